"""Early stopping. A policy is one file here: its settings, and the fold that decides.

To add one, write its file and list its settings in `AnySchedule`. In `tests/policies/test_policies.py`,
give it a test class that inherits `PolicySuite` (`tests/policies/conformance.py`). Run `make schema`.
"""

from typing import Annotated, get_args

from pydantic import Field

from sweeps.policies.asha import AshaSchedule
from sweeps.policies.asha_stopping import AshaStoppingSchedule
from sweeps.policies.base import Decision, Policy, Promotion, Schedule, Stop
from sweeps.policies.hyperband import HyperbandSchedule
from sweeps.policies.i_epoch import IEpochSchedule
from sweeps.policies.median import MedianSchedule
from sweeps.policies.none import NoSchedule
from sweeps.policies.sha import ShaSchedule

AnySchedule = Annotated[
    NoSchedule
    | AshaSchedule
    | AshaStoppingSchedule
    | ShaSchedule
    | HyperbandSchedule
    | IEpochSchedule
    | MedianSchedule,
    Field(discriminator="policy"),
]

# For a space that names no policy; docs/early_stopping.md says why.
DEFAULT_SCHEDULE = AshaSchedule.model_validate(
    {"policy": "asha", "grace": "1/8", "score": "decayed"}
)

# Settings by the name of their policy, which a space writes under `schedule.policy`.
SCHEDULES: dict[str, type[Schedule]] = {
    get_args(schedule.model_fields["policy"].annotation)[0]: schedule
    for schedule in get_args(get_args(AnySchedule)[0])
}

__all__ = [
    "DEFAULT_SCHEDULE",
    "SCHEDULES",
    "AnySchedule",
    "Decision",
    "Policy",
    "Promotion",
    "Schedule",
    "Stop",
]
