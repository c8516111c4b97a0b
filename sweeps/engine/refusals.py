"""Whether a request may go on with a sweep that has begun."""

from sweeps import ledger as led
from sweeps.exits import RefusedError
from sweeps.plan.request import Request
from tinylm import config as cfg


def refuse_other_base(before: led.Row | None, request: Request) -> None:
    """Raise `RefusedError`, with the difference, if the sweep has another base config."""
    if before is None:
        return
    swept = set(request.space.space) | set(before["space"].get("space", {}))
    found = cfg.difference(before["base"], request.base.model_dump())
    different = [line for path, line in found.items() if path not in swept]
    block = before["base"]["eval"]["block"]
    if "eval.block" in found and block != "window":
        different.append(f"  (to keep its validation tokens, set eval.block: {block} under base)")
    elif "eval.block" in found:
        different.append("  (where model.context_length varies, all trials predict the same block)")
    if "data.test_fraction" in found and not before["base"]["data"]["test_fraction"]:
        different.append("  (to keep its training text, set data.test_fraction: 0.0 under base)")
    if different:
        raise RefusedError(
            "\n".join(["the sweep in this folder has another base config:", *different])
        )


def refuse_other_bits(sweep: led.Sweep, request: Request) -> None:
    """Raise `RefusedError` if trials are compared in bits per byte, and some were measured when bits per
    byte still counted the ends of documents."""
    measured = any(trial.curve for trial in sweep.trials.values())
    other = sweep.request is not None and sweep.request.get("bits") != led.BITS
    target = request.space.target
    compared = {request.space.metric, target.metric if target else None}
    if "bits_per_byte" in compared and measured and other:
        raise RefusedError(
            "metric: this sweep was begun by version 0.1, whose bits per byte counted the ends of "
            "documents; its trials can't be compared with new ones"
        )
