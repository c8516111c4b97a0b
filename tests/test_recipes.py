"""The recipes of docs/clusters: what holds of them without a cluster, and a job of Slurm whose commands are stand-ins."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import Machine, two_machines
from sweeping import RATES, count_rows, curves, descendants, write_space
from test_docs import check

from sweeps.exits import Code

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "docs" / "clusters"
DOCKERFILE, SBATCH, RAYJOB, AWS = (
    RECIPES / name for name in ("Dockerfile", "sweep.sbatch", "rayjob.yaml", "aws.yaml")
)
PINNED = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def commands(of: str) -> list[tuple[str, str]]:
    """The commands of a program in the recipes, each with its recipe."""
    return [
        (recipe.name, line.replace("docs/clusters/sweep.sbatch", "sweeps run"))
        for recipe in (DOCKERFILE, SBATCH, RAYJOB, AWS)
        for line in re.findall(rf"(?<![\w-]){of} [^\n\";>)&]*", recipe.read_text())
    ]


@pytest.mark.parametrize(
    ("recipe", "line"), commands("sweeps run") + commands("docs/clusters/sweep.sbatch"), ids=str
)
def test_a_sweep_of_a_recipe_can_be_typed(recipe: str, line: str) -> None:
    check(line.replace('"$@"', "lr"))


@pytest.mark.parametrize(("recipe", "line"), commands("(?:bin/)?ray"), ids=str)
def test_a_command_of_ray_in_a_recipe_is_one(recipe: str, line: str) -> None:
    scripts = pytest.importorskip("ray.scripts.scripts")
    assert shlex.split(line)[1] in scripts.cli.commands


# The image.


def steps() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, each with its arguments."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").split("\n")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line)]


def test_the_image_has_all_that_the_package_is_built_from() -> None:
    copied = [Path(one) for word, rest in steps() if word == "COPY" for one in rest.split()[:-1]]
    setuptools = PROJECT["tool"]["setuptools"]
    packages = [name for name in setuptools["packages"]["find"]["include"] if "." not in name]
    modules = [f"{name}.py" for name in setuptools["py-modules"]]
    links = [str(one.readlink().name) for one in (ROOT / "sweeps").iterdir() if one.is_symlink()]
    files = ["pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]
    assert {str(one) for one in copied} == {
        "constraints.txt",
        *packages,
        *modules,
        *links,
        *files,
    }


def test_the_image_has_the_versions_that_were_tested() -> None:
    installs = [rest for word, rest in steps() if word == "RUN" and "pip install" in rest]
    assert len(installs) == 2
    assert [one for one in installs if "--constraint constraints.txt" not in one] == []


def test_the_image_runs_as_a_user_who_needs_no_home() -> None:
    last = dict(steps())
    assert int(last["USER"]) > 0
    assert "HOME=/tmp" in last["ENV"].split()


# Slurm.


def test_the_job_hears_that_its_time_is_up_and_is_queued_again() -> None:
    options = re.findall(r"^#SBATCH (\S+)$", SBATCH.read_text(), re.MULTILINE)
    assert {"--signal=B:USR1@120", "--requeue", "--exclusive", "--ntasks-per-node=1"} <= {*options}
    assert "export RAY_AUTH_MODE=token\n" in SBATCH.read_text()


# Kubernetes.

CLAIM, JOB = yaml.safe_load_all(RAYJOB.read_text())
CLUSTER = JOB["spec"]["rayClusterSpec"]
PODS = {
    "submitter": JOB["spec"]["submitterPodTemplate"]["spec"],
    "head": CLUSTER["headGroupSpec"]["template"]["spec"],
    "workers": CLUSTER["workerGroupSpecs"][0]["template"]["spec"],
}


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_a_pod_may_do_no_more_than_it_needs(pod: dict[str, Any]) -> None:
    """What the `restricted` pod security standard asks for, and a root that is read only."""
    whole = pod["securityContext"]
    assert whole["runAsNonRoot"] and whole["runAsUser"] == int(dict(steps())["USER"])
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    [container] = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_a_pod_can_write_where_the_image_does(pod: dict[str, Any]) -> None:
    mounts = {one["name"]: one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    assert {*mounts} == {one["name"] for one in pod["volumes"]}
    assert "/tmp" in mounts.values()


def test_all_nodes_share_the_folder_of_the_results() -> None:
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]
    named = {"claimName": CLAIM["metadata"]["name"]}
    for name in ("head", "workers"):
        claims = [one.get("persistentVolumeClaim") for one in PODS[name]["volumes"]]
        assert named in claims
        assert {"name": "sweeps", "mountPath": "/work"} in PODS[name]["containers"][0][
            "volumeMounts"
        ]
    assert "--out /work/" in JOB["spec"]["entrypoint"]


def test_the_token_is_a_secret_and_ray_is_of_the_version_that_was_tested() -> None:
    assert CLUSTER["authOptions"] == {"mode": "token", "secretName": "sweep-token"}
    assert "create secret generic sweep-token --from-literal=auth_token=" in RAYJOB.read_text()
    assert CLUSTER["rayVersion"] == PINNED["ray"]


# AWS.


def test_the_cluster_launcher_accepts_the_cluster() -> None:
    """By its own schema, in a process of its own: it imports Ray."""
    program = (
        "import sys, yaml; from ray.autoscaler._private import util; "
        "util.validate_config(util.prepare_config(yaml.safe_load(sys.stdin)))"
    )
    asked = [sys.executable, "-c", program]
    done = subprocess.run(asked, input=AWS.read_text(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_node_has_the_token_and_asks_for_it() -> None:
    cluster = yaml.safe_load(AWS.read_text())
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token ~/venv/bin/ray start" in commands[-1]


# What the linters say, where they are installed.


@pytest.mark.parametrize(("linter", "recipe"), [("hadolint", DOCKERFILE), ("shellcheck", SBATCH)])
def test_a_linter_has_nothing_to_say(linter: str, recipe: Path) -> None:
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program = shutil.which(linter, path=beside)
    if program is None:
        pytest.skip(f"{linter} is not installed")
    done = subprocess.run([program, str(recipe)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


# A job of Slurm on two machines.

# Runs a command on this machine and, by a file, on the other; ends with the higher of their exit codes.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
{ export -p; printf 'cd %q && ' "$PWD"; printf '%q ' "$@"; } > "$SHARED/step.new"
mv "$SHARED/step.new" "$SHARED/step"
"$@"
here=$?
until [[ -s $SHARED/there ]]; do sleep 0.1; done
there=$(< "$SHARED/there")
exit $((here > there ? here : there))
"""
OTHER = """
until [[ -e $SHARED/step ]]; do sleep 0.1; done
bash "$SHARED/step"
echo $? > "$SHARED/there.new" && mv "$SHARED/there.new" "$SHARED/there"
"""
SCONTROL = """#!/bin/bash
case $1 in
  show) printf '%s\\n' 10.99.0.1 10.99.0.2 ;;
  requeue) echo "$2" >> "$SHARED/requeued" ;;
esac
"""


@contextlib.contextmanager
def job(
    machines: tuple[Machine, Machine], shared: Path, words: list[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The script of the recipe with its arguments, as Slurm runs it on the first of two machines."""
    for name in ("step", "there"):
        (shared / name).unlink(missing_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "HOME": str(shared / "home"),
        "PATH": f"{shared / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "SHARED": str(shared),
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "10.99.0.[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
    }
    first, second = machines
    with contextlib.ExitStack() as ends:
        said = ends.enter_context((shared / "said").open("w"))
        settings: Any = {"env": environment, "stdout": said, "stderr": said}
        other = subprocess.Popen(second.within("bash", "-c", OTHER), **settings)
        ends.callback(other.wait)
        ends.callback(other.kill)
        submitted = ["bash", "-c", 'cd "$SHARED" && exec bash "$@"', "bash", str(SBATCH), *words]
        yield ends.enter_context(subprocess.Popen(first.within(*submitted), **settings))


@pytest.fixture
def shared(scale: Path) -> Iterator[Path]:
    """A folder that all machines share, with an environment and Slurm's commands."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        shared = Path(folder)
        tree = yaml.safe_load(scale.read_text())
        tree["data"]["path"] = shutil.copytree(tree["data"]["path"], f"{shared}/texts")
        (shared / "scale.yaml").write_text(yaml.safe_dump(tree))
        write_space(shared, {"policy": "none"}, RATES)
        (shared / "home").mkdir()
        programs = {
            "bin/srun": SRUN,
            "bin/scontrol": SCONTROL,
            ".venv/bin/ray": f'#!/bin/bash\nexec {shlex.quote(sys.executable)} -m ray.scripts.scripts "$@"\n',
            ".venv/bin/sweeps": f'#!/bin/bash\nexec {shlex.quote(sys.executable)} -m sweeps "$@"\n',
        }
        for name, text in programs.items():
            (shared / name).parent.mkdir(parents=True, exist_ok=True)
            (shared / name).write_text(text)
            (shared / name).chmod(0o755)
        yield shared


def wait_for_checkpoint(out: Path, script: subprocess.Popen[bytes]) -> None:
    """Return once a trial has a checkpoint, or the script has ended."""
    while script.poll() is None:
        if (out / "ledger.jsonl").exists() and count_rows(out, "checkpointed"):
            return
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.system
def test_a_job_of_slurm_that_runs_out_of_time_is_queued_again_and_resumes(
    shared: Path, trained: Any
) -> None:
    out, said = shared / "rates", shared / "said"
    words = ["rates.yaml", "--scale", "scale.yaml", "--out", str(out)]
    with two_machines(has_processes=True) as machines:
        with job(machines, shared, words) as script:
            wait_for_checkpoint(out, script)
            assert script.poll() is None, said.read_text()
            os.kill(descendants(script.pid)[1], signal.SIGUSR1)
        assert script.returncode == 128 + signal.SIGUSR1, said.read_text()
        assert (shared / "requeued").read_text() == "7\n"
        assert count_rows(out, "finished") < len(RATES)
        with job(machines, shared, words) as script:
            pass
    assert script.returncode == Code.DONE, said.read_text()
    assert curves(out) == trained
    assert (shared / "requeued").read_text() == "7\n"
