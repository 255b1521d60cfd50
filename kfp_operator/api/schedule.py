"""When runs are started by the clock: the fields that RunSchedule and the schedules of a RunConfiguration share."""

from typing import Annotated, Literal

from pydantic import Field

from kfp_operator.api.meta import Model, Time
from kfp_operator.api.schema import MAX_NAME, Enforced, Rule, matches

_FIELD = "[-0-9A-Za-z*/,#?]+"
CRON = matches(
    rf" *({_FIELD}( +{_FIELD}){{4,5}}|@(yearly|annually|monthly|weekly|daily|midnight|hourly)) *",
    "must have five fields (minute, hour, day of month, month, day of week) or six with seconds first, or be one of "
    "@hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually",
)
"""A first net: whether the fields can be is told by a condition."""
ZONE = matches("[A-Za-z][-+A-Za-z0-9_/]*", "must be the name of a time zone, as Europe/Paris, or empty for UTC", or_empty=True)

MAX_OWNER_NAME = 200
"""Characters of a name that Runs are named after: theirs are longer, and may have 253."""
ConcurrencyPolicy = Literal["Allow", "Forbid", "Replace", "QueueLatest"]


class Schedule(Model):
    """Ticks of a clock."""

    rules = (
        Rule("!has(self.startTime) || !has(self.endTime) || self.startTime <= self.endTime", "endTime is before startTime", ".endTime"),
    )

    cron_expression: Annotated[str, Enforced(min_length=1, max_length=256, rules=(CRON,))] = Field(
        description=(
            'Five fields (minute, hour, day of month, month, day of week) or six with seconds first, as "0 2 * * *" or "*/30 * * * * *"; '
            "or @hourly, @daily, @weekly, @monthly, @yearly. L is the last day of a month, 5L its last Friday, 1#2 its second Monday."
        )
    )
    time_zone: Annotated[str, Enforced(max_length=64, rules=(ZONE,))] = Field(
        "", description="Name of a time zone, as Europe/Paris; empty: UTC. What is skipped when clocks go forward is run right after."
    )
    start_time: Time | None = Field(None, description="No tick before this time.")
    end_time: Time | None = Field(None, description="No tick after this time.")


class ActiveRun(Model):
    """A Run that has not ended."""

    name: Annotated[str, Enforced(max_length=MAX_NAME)] = Field(description="Name of the Run.")
    uid: Annotated[str, Enforced(max_length=128)] = Field("", description="The Run's metadata.uid.")


START_DEADLINE = "Seconds after a tick in which its run may still be started; a later one is missed. Absent: no limit."
SUSPEND = "Start no runs. Runs in flight go on; ticks that pass are not caught up."
CATCH_UP = (
    "Which ticks are made up for that passed while the operator was away, or could start no run: Latest, the latest one; All, the latest "
    "100; None, none that is later than startingDeadlineSeconds (absent: 60 seconds)."
)
CONCURRENCY = (
    "What happens when a run is due while another is active: Allow starts it, Forbid skips it, Replace stops the other one, "
    "QueueLatest starts the latest one that is due when the other has ended."
)
SUCCESSFUL_KEPT = "How many succeeded Runs are kept; older ones are deleted."
FAILED_KEPT = "How many failed or stopped Runs are kept; older ones are deleted."
SUCCESSFUL_LIMIT = f"{SUCCESSFUL_KEPT} Absent: all."
FAILED_LIMIT = f"{FAILED_KEPT} Absent: all."
Limit = Annotated[int, Enforced(minimum=0, maximum=10_000)]
Seconds = Annotated[int, Enforced(minimum=1, maximum=31_536_000)]
