"""Tells of runs that others started: in the UI, with the SDK, by recurring runs.

Those that ended since the last look are read by the time of their end. That time is Argo's, and the row may be written later than it
says, so the last minutes are read again each time; and every run that was seen active and is so no longer is looked at, however late
its end is stored. Only ends are told.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from kfp_operator.api.run import ArtifactDefinition
from kfp_operator.providers.kubeflow import naming
from kfp_operator.providers.kubeflow.api import Api, Document, at, since
from kfp_operator.providers.kubeflow.clock import Clock
from kfp_operator.providers.kubeflow.reading import Reader, mark_of_run
from kfp_operator.providers.kubeflow.states import is_final
from kfp_operator.providers.kubeflow.times import EPOCH, moment
from kfp_operator.providers.protocol import Observed, RunUpdate

OVERLAP = timedelta(minutes=5)
"""How late the end of a run may be stored that was never seen active."""
MOST_PAGES = 20
"""Pages of ended runs in one look; after a long absence the next look goes on from there."""
REMEMBERED = 20_000


class Others:
    """Runs without our mark. `artifacts`: what their completions tell."""

    def __init__(self, api: Api, reader: Reader, clock: Clock, *, artifacts: Sequence[ArtifactDefinition], poll_interval: float) -> None:
        self.artifacts = artifacts
        self._api = api
        self._reader = reader
        self._clock = clock
        self._poll_interval = poll_interval
        self._names = Names(api)

    async def watch(self, since: datetime) -> AsyncIterator[RunUpdate | datetime]:
        """See `protocol.Observing`."""
        began, read_from = since, since
        active: set[str] = set()
        told: OrderedDict[tuple[str, int], None] = OrderedDict()
        most_pages = MOST_PAGES
        while True:
            asked = self._clock.now()
            last, pages = None, 0
            async for page in self._api.runs([_ended(read_from)], sort="finished_at asc", most_pages=most_pages):
                pages += 1
                for run in page:
                    last = moment(run.get("finished_at")) or last
                    if is_final(run) and mark_of_run(run) is None:
                        async for update in self._ends(run, began, told):
                            yield update
            if pages == most_pages and last is not None:
                if last > read_from:
                    read_from = last
                    yield read_from
                else:  # so many ended in one second
                    most_pages *= 2
                continue
            most_pages = MOST_PAGES
            read_from = max(began, asked - OVERLAP)
            now_active = await self._active()
            for run_id in sorted(active - now_active):
                found = await self._api.run(run_id)
                if found is not None and is_final(found):
                    async for update in self._ends(found, began, told, late=True):
                        yield update
                elif found is not None:
                    now_active.add(run_id)
            active = now_active
            yield read_from
            await self._clock.sleep(self._poll_interval)

    async def _active(self) -> set[str]:
        found = set()
        async for page in self._api.runs([at("finished_at", EPOCH)], sort="created_at asc"):
            found |= {str(run["run_id"]) for run in page if run.get("run_id") and mark_of_run(run) is None}
        return found

    async def _ends(
        self, run: Document, began: datetime, told: OrderedDict[tuple[str, int], None], *, late: bool = False
    ) -> AsyncIterator[RunUpdate]:
        """The attempts that ended since observing began and were not told. `late`: the last one was seen active since."""
        updates = await self._reader.read_all(run)
        for update in updates:
            key = (update.submission_id, update.attempt)
            ended = update.end_time
            if not update.state.completes or ended is None or key in told:
                continue
            if ended < began.replace(microsecond=0) and not (late and update is updates[-1]):
                continue
            yield replace(update, observed=await self._names.of(run))
            told[key] = None
            if len(told) > REMEMBERED:
                told.popitem(last=False)


def _ended(since_: datetime) -> Document:
    return since("finished_at", since_)


class Names:
    """What others' runs and what they belong to are called."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def of(self, run: Document) -> Observed:
        """The names of a run; empty where the server has none any more."""
        reference = run.get("pipeline_version_reference") or {}
        pipeline_id, version_id = str(reference.get("pipeline_id") or ""), str(reference.get("pipeline_version_id") or "")
        return Observed(
            name=str(run.get("display_name") or ""),
            pipeline=await self._pipeline(pipeline_id) if pipeline_id else _inline(run),
            pipeline_version=await self._version(pipeline_id, version_id) if pipeline_id and version_id else "",
            experiment=await self._experiment(str(run.get("experiment_id") or "")),
        )

    async def _pipeline(self, pipeline_id: str) -> str:
        key = ("pipeline", pipeline_id)
        if key not in self._known:
            found = await self._api.pipeline(pipeline_id) or {}
            ours = naming.described_pipeline(str(found.get("description") or ""))
            self._keep(key, ours or str(found.get("display_name") or found.get("name") or ""))
        return self._known[key]

    async def _version(self, pipeline_id: str, version_id: str) -> str:
        key = ("version", version_id)
        if key not in self._known:
            found = await self._api.version(pipeline_id, version_id) or {}
            self._keep(key, str(found.get("display_name") or found.get("name") or ""))
        return self._known[key]

    async def _experiment(self, experiment_id: str) -> str:
        key = ("experiment", experiment_id)
        if experiment_id and key not in self._known:
            found = await self._api.experiment(experiment_id) or {}
            self._keep(key, str(found.get("display_name") or ""))
        return self._known.get(key, "")

    def _keep(self, key: tuple[str, str], name: str) -> None:
        self._known[key] = name
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def _inline(run: Document) -> str:
    """The name in a spec that came with the run."""
    spec = run.get("pipeline_spec") or {}
    spec = spec.get("pipeline_spec") or spec
    info = spec.get("pipelineInfo") or {}
    return str(info.get("name") or "")
