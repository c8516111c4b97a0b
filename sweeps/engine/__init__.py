"""What runs: the driver, Ray Tune, and the workers."""

from typing import Literal

TrackerName = Literal["mlflow", "wandb"]
