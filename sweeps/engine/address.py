"""Which cluster an address means, and what its head says before this process joins it.

Ray itself asks for minutes where nothing answers, and does not say why.
"""

import contextlib
import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.exits import ClusterError, UsageError

AUTO, LOCAL = "auto", "local"
_PORT = 6379  # Ray's own choice
_VARIABLE = "RAY_ADDRESS"
_ADDRESS = re.compile(
    r"(?:(?P<host>[^\s:/@\[\]]+)|\[(?P<six>[0-9A-Fa-f:.]+)\]):(?P<port>[0-9]{1,5})"
)
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 10


@dataclass(frozen=True)
class Head:
    """The head of a cluster, which has answered."""

    address: str  # HOST:PORT
    alive: Mapping[str, Mapping[str, float]]  # Ray's id of each node that is alive -> its resources
    is_here: bool  # whether this machine is one of these nodes


def require_address(address: str) -> None:
    """Raise `UsageError` if a text is no address of a cluster; with `auto`, if that in $RAY_ADDRESS is none."""
    given = os.environ.get(_VARIABLE, "")
    if address == AUTO and given:
        if given in {AUTO, LOCAL}:
            raise UsageError(
                f"{_VARIABLE}={given}: --address {AUTO} takes the address from this variable, and {given} is "
                f"none; set it to HOST:PORT, or unset it: unset {_VARIABLE}"
            )
        _require(given, f"{_VARIABLE}={given}", "HOST:PORT")
    elif address not in {AUTO, LOCAL}:
        _require(address, f"--address {address}", f"HOST:PORT, {AUTO} or {LOCAL}")


def not_up(address: str, error: BaseException) -> ClusterError:
    """The error of a cluster that can't be started or reached, by that of Ray."""
    lines = [line.strip() for line in str(error).splitlines()] or [""]
    reason = lines[0] or lines[-1] or type(error).__name__
    if address != LOCAL:
        return ClusterError(f"--address {address}: {type(error).__name__}: {reason}")
    advice = "If other programs keep this machine busy, try again when it has less to do"
    return ClusterError(f"Ray could not be started here: {reason}\n{advice}")


def _require(address: str, named: str, expected: str) -> None:
    """Raise `UsageError`, which says what is expected, if a text is not HOST:PORT."""
    scheme, _, rest = address.rpartition("://")
    host = rest.partition("/")[0].rpartition(":")[0] or rest.partition("/")[0]
    if scheme:
        raise UsageError(
            f"{named}: expected {expected}. A sweep does not run through {scheme}://: run it "
            f"on a node of the cluster, with the port of `ray start --head`: --address {host}:{_PORT}"
        )
    if _parts(address) is None:
        raise UsageError(
            f"{named}: expected {expected}; the port is that of `ray start --head`, by default {_PORT}"
        )


def _parts(address: str) -> tuple[str, int] | None:
    """Host and port of an address; None if it is not HOST:PORT."""
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 2**16:
        return None
    return found["host"] or found["six"], int(found["port"])


def _found(address: str) -> tuple[str, str]:
    """HOST:PORT, and how an error names it; `ClusterError` if `auto` finds no cluster."""
    if address != AUTO:
        return address, f"--address {address}"
    given = os.environ.get(_VARIABLE, "")
    if given:
        return given, f"--address auto: {_VARIABLE}={given}"
    from ray._common.utils import get_ray_address_file

    file = Path(get_ray_address_file(None))
    with contextlib.suppress(OSError):
        if kept := file.read_text().strip():
            return kept, f"--address auto: {kept}, which `ray start` left in {file}"
    raise ClusterError(
        f"--address auto: this machine belongs to no cluster (there is no {file}). Join one: "
        f"`ray start --address=HOST:{_PORT}`; or name one: --address HOST:{_PORT}"
    )


def joined(address: str) -> str:
    """HOST:PORT of the cluster at an address, to which this machine belongs; `ClusterError` if it does not."""
    head = ask(address)
    if not head.is_here:
        raise ClusterError(
            f"--address {address}: this machine is no node of that cluster. Run the sweep on one of its "
            f"nodes, or join it first: RAY_AUTH_MODE=token ray start --address={head.address}"
        )
    return head.address


def ask(address: str) -> Head:
    """What the head at an address says of its cluster, within seconds.

    `ClusterError`, with the cause and what to do, if none answers there or it does not let this process in.
    """
    require_address(address)
    where, named = _found(address)
    _connect(where, named)
    return _answer(where, named)


def again(address: str) -> Head:
    """What a head that has answered before, at HOST:PORT, says now; `ClusterError` if it does not answer."""
    try:
        _connect(address, address)
        return _head(address, _call(address, "GetAllNodeInfo").node_info_list)
    except Exception as error:
        if code := _code(error):
            raise ClusterError(f"{address}: Ray's head does not answer ({code})") from error
        raise


def free(head: Head) -> dict[str, Mapping[str, float]]:
    """The resources of each node of a cluster that nobody holds now, by Ray's id."""
    found = _call(head.address, "GetAllAvailableResources", "NodeResourceInfo").resources_list
    return {node.node_id.hex(): node.resources_available for node in found}


def scales(head: Head) -> bool:
    """Whether a cluster has an autoscaler that starts nodes for what is asked, which is Ray's second."""
    # What Ray's `is_autoscaler_v2` reads where a process has joined.
    space, key = b"__autoscaler", b"__autoscaler_v2_enabled"
    answer = _call(head.address, "InternalKVGet", "InternalKV", namespace=space, key=key)
    return bool(answer.value == b"1")


def _head(where: str, nodes: Iterable[Any]) -> Head:
    alive = [node for node in nodes if node.state == node.ALIVE]
    here = any(_is_there(Path(node.raylet_socket_name)) for node in alive)
    return Head(where, {node.node_id.hex(): node.resources_total for node in alive}, here)


def _connect(where: str, named: str) -> None:
    """Raise `ClusterError` if nothing listens at HOST:PORT."""
    parts = _parts(where)
    if parts is None:
        raise ClusterError(f"{named}: is not HOST:PORT")
    up = f"Is the cluster up, and is this the address of its head (`ray start --head --port={parts[1]}`)?"
    try:
        socket.create_connection(parts, timeout=_CONNECT_SECONDS).close()
    except socket.gaierror as error:
        text = f"{named}: no machine of that name is known here ({error.strerror}); name its IP address"
        raise ClusterError(text) from error
    except TimeoutError as error:
        raise ClusterError(
            f"{named}: nothing answers there within {_CONNECT_SECONDS} s; a firewall may be in between. {up}"
        ) from error
    except OSError as error:
        raise ClusterError(f"{named}: nothing listens there ({error.strerror}). {up}") from error


def _call(
    where: str, method: str, of: str = "NodeInfo", *, token: bool = True, **fields: bytes
) -> Any:
    """What the head answers to a call of Ray's with these fields; `grpc.RpcError` if it does not within
    seconds."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2 as messages
    from ray.core.generated import gcs_service_pb2_grpc as services

    channel = init_grpc_channel(where) if token else grpc.insecure_channel(where)
    with channel:
        asked = getattr(messages, f"{method}Request")(**fields)
        service = getattr(services, f"{of}GcsServiceStub")(channel)
        return getattr(service, method)(asked, timeout=_ANSWER_SECONDS)


def _code(error: Exception) -> str:
    """The name of the status with which a call ended; empty if the error is not of a call."""
    code = getattr(error, "code", None)
    return code().name if callable(code) else ""


def _answer(where: str, named: str) -> Head:
    """What the head at HOST:PORT says; `ClusterError` if it is none, or one that does not fit."""
    import ray

    with_token = os.environ.get("RAY_AUTH_MODE") == "token"
    try:
        version = _call(where, "CheckAlive").ray_version
        nodes = _call(where, "GetAllNodeInfo").node_info_list
    except Exception as error:
        code = _code(error)
        if code == "UNAUTHENTICATED":
            raise ClusterError(f"{named}: {_refused(with_token)}") from error
        if code:
            raise ClusterError(
                f"{named}: something listens there, but does not answer as Ray's head does ({code}). Is it "
                f"the port of `ray start --head`, by default {_PORT}, and does the head still run?"
            ) from error
        raise
    if version != ray.__version__:
        raise ClusterError(
            f"{named}: the cluster runs Ray {version}, and this is Ray {ray.__version__}; install the "
            f"same on all machines: pip install ray=={ray.__version__}"
        )
    if with_token and _is_open(where):
        raise ClusterError(
            f"{named}: the cluster demands no token, so whoever reaches it can run code there. Start "
            "it again with `RAY_AUTH_MODE=token ray start ..` on every machine; or, on a network that you "
            "trust, run this command with RAY_AUTH_MODE=disabled"
        )
    return _head(where, nodes)


def _is_there(socket: Path) -> bool:
    """Whether this machine has a socket; one that it may not look at is no node of this user."""
    try:
        return socket.exists()
    except OSError:
        return False


def _refused(with_token: bool) -> str:
    """What to do about a head that lets nobody in without its token."""
    if not with_token:
        return "the cluster demands a token; unset RAY_AUTH_MODE, and this machine's token is sent"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "the cluster has another token than the one in RAY_AUTH_TOKEN"
    file = os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")
    return f"the cluster has another token than the one in {file}; copy that of the head's machine here"


def _is_open(where: str) -> bool:
    """Whether the head lets in who has no token."""
    try:
        _call(where, "CheckAlive", token=False)
    except Exception:  # noqa: BLE001 grpc's, which is not loaded here
        return False
    return True
