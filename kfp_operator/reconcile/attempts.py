"""How the attempts of a Run are counted. Pure.

The operator submits a Run once, and once more for each of `spec.retries` that is needed; submission number n is known to the backend as
`submission_id(uid, n)`. A backend may also re-open an ended run in its own history, when somebody retries it there, and counts the
attempts of a submission from 1. Both together are one number that only grows::

    attempt = first attempt of the submission - 1 + the backend's count

So attempt = submissions by the operator + re-opens at the backend. Which submission is on, and with which attempt it began, stands in
every event and in status: the run-status `retrying`, which belongs to the attempt that failed, names the submission that comes next,
and from its storage on that one is on. Nothing is submitted again before status shows it too, so that neither a lost stream nor a
restored object makes the operator look at the wrong one.
"""

from dataclasses import dataclass, replace

from kfp_operator.api.run import Run, RunStatus
from kfp_operator.providers.protocol import RunUpdate
from kfp_operator.schemas import RunCompletion
from kfp_operator.schemas import RunStatus as RunStatusEvent


@dataclass(frozen=True, slots=True, order=True)
class CurrentSubmission:
    """The submission that is on, or comes next; a later one is greater."""

    number: int = 1
    first_attempt: int = 1

    def next(self, failed: int) -> "CurrentSubmission":
        """The one after attempt `failed` of this one."""
        return CurrentSubmission(self.number + 1, failed + 1)

    def numbered(self, update: RunUpdate) -> RunUpdate:
        """A backend's report of this submission, with its attempt as the Run counts."""
        return replace(update, attempt=self.attempt(update.attempt), earlier=tuple(self.numbered(each) for each in update.earlier))

    def attempt(self, count: int) -> int:
        """The Run's number for what the backend counts as attempt `count` of this submission."""
        return self.first_attempt - 1 + max(count, 1)


FIRST = CurrentSubmission()


def shown(status: RunStatus) -> CurrentSubmission:
    """What the Run's status shows."""
    return CurrentSubmission(status.submission, status.first_attempt or 1) if status.submission else FIRST


def told(event: RunStatusEvent | RunCompletion) -> CurrentSubmission:
    """What an event says."""
    return CurrentSubmission(event.submission, event.first_attempt)


def attempt_of(run: Run, current: CurrentSubmission) -> int:
    """The attempt that is on, or that comes next while there is none."""
    return max(run.status.attempt, current.first_attempt)


def submission_of(status: RunStatus, attempt: int) -> int:
    """Number of the submission that an attempt belonged to, as far as status tells.

    Exact while nothing was re-opened at the backend, or the last states still tell of the retries since.
    """
    current = shown(status)
    if attempt >= current.first_attempt:
        return current.number
    if current.first_attempt == current.number:
        return attempt
    since = {entry.attempt for entry in status.history if entry.state == "retrying" and entry.attempt >= attempt}
    return max(current.number - len(since), 1)
