"""What runs: the driver, Ray Tune, and the workers."""

from typing import Literal

TrackerName = Literal["mlflow", "wandb"]

Allowed = Literal["code"]
"""A difference to the sessions before that is allowed instead of refused."""
