"""Starting a run once, whatever becomes of the answer.

Each POST makes the server start a Workflow, and only then store the run; a second POST of the same id starts a second Workflow that
reports into the same run. So before any POST it is asked whether the run is there, and after a POST whose outcome is unknown, of this
process or perhaps of one before it, there is none until the run was looked for long enough:

============================================ ===================================================================================
what is known                                next
============================================ ===================================================================================
the run is there                             done
nobody has posted it (`first_try`)           POST
a POST was refused, or never sent            POST
a process before this one may have posted    look for `confirmation` seconds; then POST
a POST of ours has no answer                 look for `confirmation` seconds at the run and at its Workflows; neither is there: POST
... and Workflows may not be seen            no POST; after ten minutes `SubmissionUnknown`
its Workflow is there, its run not           wait: the server stores the run, or deletes the Workflow
============================================ ===================================================================================
"""

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kfp_operator.errors import Permanent, Retryable
from kfp_operator.providers.kubeflow.api import Api
from kfp_operator.providers.kubeflow.clock import Clock
from kfp_operator.providers.kubeflow.errors import Failure, NoAnswer, Refusal
from kfp_operator.providers.kubeflow.workflows import RunWorkflows, name_of

LOOK_EVERY = 10.0
"""Seconds between two looks."""
UNKNOWN_AFTER = 600.0
"""Seconds after which a submission is given up that was not answered and whose Workflow cannot be looked for."""
MOST_POSTS = 3
"""How often a run is posted that the server answers with failures, without starting anything."""
REMEMBERED = 10_000

_NOT_STARTED = frozenset({401, 403, 425, 429})
"""Refused before the server did anything."""
_MISSING = re.compile(r"ResourceNotFoundError: (Pipeline|PipelineVersion|Experiment)\b|belongs to pipeline")
_INVALID = re.compile(
    r"invalid ?input ?error|unknown template format|executor\(label=|empty pipeline spec manifest|conversion error|Invalid value: ",
    re.IGNORECASE,
)
"""Mistakes that the server answers with 500, all found out before it starts anything."""

MakeBody = Callable[[], Awaitable[Mapping[str, Any]]]


class Missing(Retryable):
    """What the run refers to is not at the server any more: it is to be made again."""


@dataclass(slots=True)
class _Try:
    """What this process knows of a submission that it has not seen at the server."""

    since: float
    """When it was first looked for, monotonic."""
    first: bool = False
    """No process had posted it before this one."""
    posts: int = 0
    """POSTs of ours of which it is not known that nothing came of them."""
    posted: float = 0.0
    """When the last of them ended."""
    said: str = ""
    """What came back, for people."""
    posting: bool = False


class Submissions:
    """All submissions of a provider. `confirmation`: seconds for which a run is looked for that may have been posted."""

    def __init__(self, api: Api, workflows: RunWorkflows, clock: Clock, *, confirmation: float) -> None:
        self._api = api
        self._workflows = workflows
        self._clock = clock
        self._confirmation = confirmation
        self._tries: OrderedDict[str, _Try] = OrderedDict()

    def uncertain(self, run_id: str) -> bool:
        """Whether the run may yet appear though the server does not know it: a POST of ours is young."""
        tried = self._tries.get(run_id)
        if tried is None:
            return False
        return tried.posting or (tried.posts > 0 and self._clock.monotonic() - tried.posted < self._confirmation)

    async def submit(self, run_id: str, body: MakeBody, *, first_try: bool) -> None:
        """Return when the server has the run.

        Retryable while it is looked for or the server cannot be asked; Permanent when it refuses the run, or the outcome stays unknown.
        """
        tried = self._remember(run_id, first_try)
        if tried.posting:
            raise Retryable(f"run {run_id} is being submitted", reason="Submitting")
        if await self._api.run(run_id) is not None:
            self._tries.pop(run_id, None)
            return
        if tried.posts > 0 or not tried.first:
            await self._look(run_id, tried)
        made = await body()
        tried.posting = True
        try:
            await self._post(run_id, made, tried)
        finally:
            tried.posting = False
        self._tries.pop(run_id, None)

    def _remember(self, run_id: str, first_try: bool) -> _Try:
        tried = self._tries.get(run_id)
        if tried is None:
            tried = self._tries[run_id] = _Try(self._clock.monotonic(), first=first_try)
            if len(self._tries) > REMEMBERED:  # one that is forgotten is looked for as if another process had posted it
                self._tries.popitem(last=False)
        return tried

    async def _look(self, run_id: str, tried: _Try) -> None:
        """Return when another POST is right."""
        workflows = await self._workflows.of(run_id)
        if workflows:
            name = name_of(workflows[0])
            message = f"Workflow {self._workflows.namespace}/{name} was started for run {run_id}, which the server has not stored yet"
            raise Retryable(message, reason="SubmissionUnconfirmed", after=LOOK_EVERY)
        now = self._clock.monotonic()
        left = (tried.posted if tried.posts else tried.since) + self._confirmation - now
        if left > 0:
            message = (
                f"{_why(tried)}; it is looked for {left:.0f} s longer (spec.parameters.confirmationSeconds) before it is submitted again"
            )
            raise Retryable(message, reason="SubmissionUnconfirmed", after=min(left, LOOK_EVERY))
        if tried.posts == 0:
            return
        if workflows is None:
            self._give_up_one_day(run_id, tried, now)
        if tried.posts >= MOST_POSTS:
            del self._tries[run_id]
            raise Permanent(f"{tried.posts} submissions started nothing; the last one: {tried.said}", reason="SubmissionFailed")

    def _give_up_one_day(self, run_id: str, tried: _Try, now: float) -> None:
        left = tried.posted + UNKNOWN_AFTER - now
        unseen = f"whether it started something cannot be seen ({self._workflows.refusal or 'Workflows cannot be listed'})"
        if left > 0:
            message = f"{_why(tried)}; {unseen}, so it is not submitted again, but looked for {left / 60:.0f} minutes longer"
            raise Retryable(message, reason="SubmissionUnconfirmed", after=min(left, 3 * LOOK_EVERY))
        del self._tries[run_id]
        raise Permanent(
            f"{_why(tried)}, the server did not know it {UNKNOWN_AFTER / 60:.0f} minutes later, and {unseen}; "
            f"look for Workflows with label pipeline/runid={run_id} in namespace {self._workflows.namespace}, then create the Run again",
            reason="SubmissionUnknown",
        )

    async def _post(self, run_id: str, body: Mapping[str, Any], tried: _Try) -> None:
        before = (tried.posts, tried.posted)
        tried.posts += 1
        try:
            await self._api.create_run(body)
            return
        except Refusal as error:
            if error.status == 409:
                tried.said = str(error)
            else:
                tried.posts, tried.posted = before
                raise (Missing(str(error), reason="BackendObjectMissing") if error.absent else error) from error
        except Failure as error:
            tried.said = str(error)
            if error.status in _NOT_STARTED or 300 <= error.status < 400:
                tried.posts, tried.posted = before
                raise
            if _MISSING.search(error.said):
                tried.posts, tried.posted = before
                raise Missing(str(error), reason="BackendObjectMissing") from error
            if _INVALID.search(error.said):
                tried.posts, tried.posted = before
                raise Permanent(str(error), reason="Refused") from error
        except NoAnswer as error:
            tried.said = str(error)
            if not error.sent:
                tried.posts, tried.posted = before
                raise
        finally:
            if tried.posts > before[0]:
                tried.posted = self._clock.monotonic()
        if await self._api.run(run_id) is None:
            message = f"{_why(tried)}; it is looked for {self._confirmation:.0f} s before it is submitted again"
            raise Retryable(message, reason="SubmissionUnconfirmed", after=min(2.0, self._confirmation))


def _why(tried: _Try) -> str:
    if tried.posts:
        return f"it is not known whether the submission arrived ({tried.said})"
    return "an operator before this one may have submitted it"
