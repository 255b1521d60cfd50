"""Which ended Runs of an owner are deleted: those beyond the history limits. Pure."""

from collections.abc import Collection, Sequence

from kfp_operator.api.states import RunState
from kfp_operator.reconcile.starting import OwnedRun

AT_ONCE = 20
"""Runs that are deleted in one go: others wait for the worker too."""


def surplus(
    runs: Sequence[OwnedRun], *, successful: int | None, failed: int | None, keep: Collection[str] = (), most: int = AT_ONCE
) -> list[OwnedRun]:
    """The Runs to delete, oldest end first, at most `most` of them.

    `successful`, `failed`: how many Runs that succeeded, and that ended otherwise, are kept; None: all. Only Runs that are settled are
    ever returned, and never those named in `keep`: those that would be started once more if they were gone.
    """
    kept = [run for run in runs if not run.active and not run.deleting]
    surplus: list[OwnedRun] = []
    for limit, found in (
        (successful, [run for run in kept if run.state is RunState.SUCCEEDED]),
        (failed, [run for run in kept if run.state is not RunState.SUCCEEDED]),
    ):
        if limit is not None:
            surplus += sorted(found, key=_age)[: max(len(found) - limit, 0)]
    return sorted((run for run in surplus if run.settled and run.name not in keep), key=_age)[:most]


def last_success(runs: Sequence[OwnedRun]) -> OwnedRun | None:
    """The Run that succeeded last, by its end."""
    return max((run for run in runs if run.state is RunState.SUCCEEDED and run.ended is not None), key=_age, default=None)


def _age(run: OwnedRun) -> tuple[float, float, str]:
    return (run.ended or run.created).timestamp(), run.created.timestamp(), run.name
