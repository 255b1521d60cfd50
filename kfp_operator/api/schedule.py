"""When runs are started by the clock: the fields that RunSchedule and the schedules of a RunConfiguration share."""

from typing import Annotated, Literal

from pydantic import Field

from kfp_operator.api.meta import Model, Time
from kfp_operator.api.schema import MAX_NAME, Enforced

ConcurrencyPolicy = Literal["Allow", "Forbid", "Replace", "QueueLatest"]


class Schedule(Model):
    """Ticks of a clock."""

    cron_expression: Annotated[str, Enforced(min_length=1, max_length=256)] = Field(
        description=(
            'Five fields (minute, hour, day of month, month, day of week) or six with seconds first, as "0 2 * * *" or "*/30 * * * * *"; '
            "or @hourly, @daily, @weekly, @monthly, @yearly."
        )
    )
    time_zone: Annotated[str, Enforced(max_length=64)] = Field("", description="Name of a time zone, as Europe/Paris; empty: UTC.")
    start_time: Time | None = Field(None, description="No run before this time.")
    end_time: Time | None = Field(None, description="No run after this time.")


class ActiveRun(Model):
    """A Run that has not ended."""

    name: Annotated[str, Enforced(max_length=MAX_NAME)] = Field(description="Name of the Run.")
    uid: Annotated[str, Enforced(max_length=128)] = Field("", description="The Run's metadata.uid.")


START_DEADLINE = "Seconds after a tick in which its run may still be started; a later one is missed. Absent: no limit."
SUSPEND = "Start no runs. Runs in flight go on; ticks that pass are not caught up."
CONCURRENCY = (
    "What happens when a run is due while another is active: Allow starts it, Forbid skips it, Replace stops the other one, "
    "QueueLatest starts the latest one that is due when the other has ended."
)
SUCCESSFUL_LIMIT = "How many succeeded Runs are kept; older ones are deleted. Absent: all."
FAILED_LIMIT = "How many failed or stopped Runs are kept; older ones are deleted. Absent: all."
Limit = Annotated[int, Enforced(minimum=0, maximum=10_000)]
Seconds = Annotated[int, Enforced(minimum=1, maximum=31_536_000)]
