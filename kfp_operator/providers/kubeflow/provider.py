"""Type kubeflow: runs are those of a Kubeflow Pipelines server.

The server keeps all state; what this process knows beyond it (which runs to follow, which submissions have no answer yet, which stops
were accepted) makes it ask less, and a new process finds out by asking.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from kfp_operator.api.states import RunState
from kfp_operator.errors import Permanent, Retryable
from kfp_operator.providers.kubeflow import naming
from kfp_operator.providers.kubeflow.api import Api
from kfp_operator.providers.kubeflow.artifacts import Artifacts
from kfp_operator.providers.kubeflow.authentication import identity_of
from kfp_operator.providers.kubeflow.client import Client
from kfp_operator.providers.kubeflow.clock import Clock, RealClock
from kfp_operator.providers.kubeflow.errors import Refusal
from kfp_operator.providers.kubeflow.experiments import Experiments
from kfp_operator.providers.kubeflow.limiter import Limiter
from kfp_operator.providers.kubeflow.naming import Mark
from kfp_operator.providers.kubeflow.observe import Others
from kfp_operator.providers.kubeflow.parameters import KubeflowParameters
from kfp_operator.providers.kubeflow.pipelines import Pipelines
from kfp_operator.providers.kubeflow.reading import Reader
from kfp_operator.providers.kubeflow.states import REPORTED, is_final
from kfp_operator.providers.kubeflow.submit import Missing, Submissions
from kfp_operator.providers.kubeflow.watch import Watch
from kfp_operator.providers.kubeflow.workflows import RunWorkflows
from kfp_operator.providers.protocol import (
    ComponentArtifact,
    ExperimentDescription,
    Observing,
    PipelineVersion,
    ProviderConfig,
    RunUpdate,
    Submission,
)

log = logging.getLogger(__name__)

SLOT_KEPT = 900.0
"""Seconds for which a submission without an answer counts as active."""
STUCK_AFTER = 120.0
"""Seconds after which a run that is being stopped and does not stop is told as stuck."""


class KubeflowProvider:
    """See `providers.protocol.Provider`."""

    statuses = REPORTED | {RunState.STOPPED}
    keeps_pipelines = True
    keeps_experiments = True

    def __init__(self, config: ProviderConfig, parameters: KubeflowParameters, *, clock: Clock | None = None) -> None:
        self._name = f"{config.namespace}/{config.name}"
        self._config = config
        self._parameters = parameters
        self._clock = clock = clock or RealClock()
        identity = identity_of(parameters.authentication, config.secrets, config.namespace, clock)
        limiter = Limiter(parameters.requests_per_second, 2 * parameters.requests_per_second, clock)
        self._client = Client(parameters, identity, limiter, clock, secrets=config.secrets)
        self._api = Api(self._client, parameters.namespace)
        self._workflows = RunWorkflows(config.workflows, parameters, clock)
        self._reader = Reader(parameters, self._workflows)
        self._pipelines = Pipelines(self._api, caching=parameters.caching)
        self._experiments = Experiments(self._api, default=parameters.experiment)
        self._submissions = Submissions(self._api, self._workflows, clock, confirmation=parameters.confirmation_seconds)
        self._artifacts = Artifacts(parameters, self._api, config.secrets)
        self._watch = Watch(
            self._api,
            self._reader,
            self._workflows,
            clock,
            provider=self._name,
            poll_interval=parameters.poll_interval_seconds,
            by_workflows=parameters.watch != "Poll",
            looked_until=config.looked_until,
        )
        self.backend = f"{parameters.endpoint} {parameters.namespace}".strip()
        self._primed = config.max_active_runs is None
        self._slots: dict[str, float] = {}
        """Submissions under way, and since when."""
        self._stopping: dict[str, float] = {}
        self.others: Observing | None = None
        if parameters.observe == "All":
            self.others = Others(
                self._api,
                self._reader,
                clock,
                artifacts=tuple(parameters.observed_artifacts),
                poll_interval=parameters.poll_interval_seconds,
            )

    async def check(self) -> None:
        """The server is one, lets us in, has its database; and what else the parameters ask for is there."""
        health = await self._api.health()
        if health.multi_user and not self._parameters.namespace:
            raise Permanent(
                "the server is multi-user: set spec.parameters.namespace to the profile that runs belong to "
                "(without one, pipelines would be published to everybody)",
                reason="NamespaceMissing",
            )
        await self._api.look_at_runs()
        if self._parameters.watch == "Workflows":
            await self._probe_workflows()
        await self._artifacts.check()
        if not self._primed:
            await self._watch.prime()
            self._primed = True

    async def close(self) -> None:
        """Let go of the server; runs go on."""
        await self._client.close()
        await self._artifacts.close()

    # Experiments and pipelines

    async def ensure_experiment(self, experiment: ExperimentDescription) -> str:
        """Make it, unless it is there."""
        name = naming.experiment_name(experiment.namespace, experiment.name)
        return await self._experiments.ensure(name, naming.description(experiment.description))

    async def delete_experiment(self, provider_id: str) -> None:
        """Remove it; its runs stay."""
        await self._experiments.delete(provider_id)

    async def ensure_pipeline(self, pipeline: PipelineVersion) -> str:
        """Make pipeline and version, unless they are there; the pipeline's id."""
        return (await self._pipelines.ensure(pipeline)).pipeline_id

    async def delete_pipeline(self, provider_id: str) -> None:
        """Remove the pipeline and the versions we made."""
        await self._pipelines.delete(provider_id)

    async def prune_pipeline(self, pipeline: PipelineVersion, keep: Collection[str]) -> None:
        """Remove our versions that are not kept."""
        await self._pipelines.prune(pipeline, keep)

    # Runs

    async def submit_run(self, submission: Submission) -> str:
        """Start the run once, see `submit`."""
        self._take_slot(submission.id)
        try:
            await self._submissions.submit(submission.id, lambda: self._body(submission), first_try=submission.first_try)
        except Missing:
            self._pipelines.forget(submission.pipeline)
            self._experiments.forget()
            raise
        finally:
            if not self._submissions.uncertain(submission.id):
                self._slots.pop(submission.id, None)
        self._watch.follow(submission.id)
        return submission.id

    def _take_slot(self, run_id: str) -> None:
        """Retryable while as many runs are active as may be."""
        most = self._config.max_active_runs
        if most is None:
            return
        now = self._clock.monotonic()
        self._slots = {taken: since for taken, since in self._slots.items() if now - since < SLOT_KEPT and not self._watch.follows(taken)}
        if run_id not in self._slots and not self._watch.follows(run_id) and self._watch.active + len(self._slots) >= most:
            message = f"waits for one of {most} slots (spec.maxActiveRuns of Provider {self._name})"
            raise Retryable(message, reason="NoSlot", after=self._parameters.poll_interval_seconds)
        self._slots[run_id] = now

    async def get_run(self, submission_id: str) -> RunUpdate | None:
        """What the server says. Retryable while a submission without an answer may still arrive."""
        run = await self._api.run(submission_id)
        if run is None:
            if self._submissions.uncertain(submission_id):
                message = f"the submission of run {submission_id} was not answered, and may arrive yet"
                raise Retryable(message, reason="SubmissionUnconfirmed", after=2)
            return None
        if not is_final(run):
            self._watch.follow(submission_id)
        return await self._reader.read(run)

    async def cancel_run(self, submission_id: str) -> None:
        """Terminate it. The server says of it as of others that it failed; that we asked is remembered."""
        run = await self._api.run(submission_id)
        if run is None or is_final(run):
            if run is not None:
                self._reader.stopped(run, accepted=False)
            self._stopping.pop(submission_id, None)
            return
        if run.get("state") == "CANCELING":
            self._reader.stopped(run, accepted=True)
            await self._check_stuck(submission_id)
            return
        try:
            await self._api.terminate_run(submission_id)
        except Refusal as error:
            if error.status == 404:
                return
            now = await self._api.run(submission_id)  # "Row not found": it has ended, or is being stopped
            if now is not None and is_final(now):
                self._reader.stopped(now, accepted=False)
                return
            if now is None or now.get("state") != "CANCELING":
                raise
        self._reader.stopped(run, accepted=True)
        self._stopping.setdefault(submission_id, self._clock.monotonic())

    async def _check_stuck(self, run_id: str) -> None:
        """Retryable when the stop that was asked for takes too long: the server has noted it before it failed to reach the Workflow."""
        since = self._stopping.setdefault(run_id, self._clock.monotonic())
        waited = self._clock.monotonic() - since
        if waited < STUCK_AFTER:
            return
        found = await self._workflows.of(run_id)
        namespace = self._workflows.namespace
        if found == []:
            remedy = "its Workflow is gone, so the server will never see its end; delete the run there"
        else:
            patch = """'{"spec":{"activeDeadlineSeconds":0}}'"""
            remedy = f"stop it by hand: kubectl patch workflow -n {namespace} -l pipeline/runid={run_id} --type merge -p {patch}"
        raise Retryable(f"run {run_id} has been CANCELING for {waited / 60:.0f} minutes and goes on: {remedy}", reason="StopStuck")

    async def logs(self, submission_id: str, *, follow: bool = False) -> AsyncIterator[str]:
        """They are those of pods: Permanent, with the command that shows them."""
        where = f"kubectl logs -n {self._workflows.namespace} -l pipeline/runid={submission_id} -c main --prefix --tail=-1"
        page = self._parameters.run_url(submission_id)
        raise Permanent(
            f"logs of type kubeflow are those of pods: {where}{' -f' if follow else ''}{f', or {page}' if page else ''}",
            reason="LogsOfPods",
        )
        yield ""

    async def watch_runs(self) -> AsyncGenerator[RunUpdate]:
        """See `watch`."""
        async with aclosing(self._watch.updates()) as updates:
            async for update in updates:
                if update.state.final or update.gone:
                    self._stopping.pop(update.submission_id, None)
                yield update

    async def artifacts(self, submission_id: str) -> Sequence[ComponentArtifact]:
        """What an ended run produced."""
        return await self._artifacts.of(submission_id)

    async def _body(self, submission: Submission) -> Mapping[str, Any]:
        pipeline = submission.pipeline
        reference = await self._pipelines.present(pipeline)
        experiment = await self._experiments.of_run(submission.namespace, submission.experiment)
        full_name = f"{submission.namespace}/{submission.name}"
        config: dict[str, Any] = {"parameters": dict(submission.parameters)} if submission.parameters else {}
        if self._config.pipeline_root:
            config["pipeline_root"] = f"{self._config.pipeline_root.rstrip('/')}/{pipeline.namespace}/{pipeline.name}"
        body: dict[str, Any] = {
            "run_id": submission.id,
            "display_name": naming.run_name(submission.namespace, submission.name, submission.attempt),
            "description": str(Mark(self._name, submission.id, full_name, submission.uid, submission.attempt)),
            "experiment_id": experiment,
            "pipeline_version_reference": {"pipeline_id": reference.pipeline_id, "pipeline_version_id": reference.version_id},
        }
        if config:
            body["runtime_config"] = config
        if self._parameters.service_account:
            body["service_account"] = self._parameters.service_account
        return body

    async def _probe_workflows(self) -> None:
        try:
            await self._workflows.probe()
        except Permanent as error:
            raise Permanent(
                f"spec.parameters.watch: Workflows in namespace {self._workflows.namespace} cannot be watched: {error}; "
                "grant list and watch on workflows.argoproj.io there, or set watch: Poll",
                reason="WorkflowsForbidden",
            ) from error
