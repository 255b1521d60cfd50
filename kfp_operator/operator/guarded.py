"""What stands between the controllers and a provider: every call is counted, and fails only as the protocol says.

Provider types are plugins, and a plugin has defects: an error of its HTTP client that it forgot, a KeyError in an answer. The protocol says
that whatever is neither Retryable nor Permanent counts as Retryable, so that it is retried with a backoff and shown where users look,
and the traceback goes to the log.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
from typing import TypeVar

from kfp_operator.errors import InvalidSpec, Permanent, Retryable
from kfp_operator.operator.metrics import Metrics
from kfp_operator.providers.protocol import (
    ComponentArtifact,
    ExperimentDescription,
    Observing,
    PipelineVersion,
    Provider,
    RunUpdate,
    Submission,
)

log = logging.getLogger(__name__)

T = TypeVar("T")


class GuardedProvider:
    """A `Provider` around another. `name` is that of its resource, as namespace/name."""

    def __init__(self, name: str, inner: Provider, metrics: Metrics) -> None:
        self._name = name
        self._inner = inner
        self._metrics = metrics
        self.statuses = inner.statuses
        self.keeps_pipelines = inner.keeps_pipelines
        self.keeps_experiments = inner.keeps_experiments
        self.backend = str(getattr(inner, "backend", ""))  # a type that was written before it was asked for has none
        self.others: Observing | None = getattr(inner, "others", None)  # likewise

    async def check(self) -> None:
        """See `Provider`."""
        await self._call("check", self._inner.check())

    async def close(self) -> None:
        """See `Provider`."""
        await self._call("close", self._inner.close())

    async def ensure_experiment(self, experiment: ExperimentDescription) -> str:
        """See `Provider`."""
        return await self._call("ensure_experiment", self._inner.ensure_experiment(experiment))

    async def delete_experiment(self, provider_id: str) -> None:
        """See `Provider`."""
        await self._call("delete_experiment", self._inner.delete_experiment(provider_id))

    async def ensure_pipeline(self, pipeline: PipelineVersion) -> str:
        """See `Provider`."""
        return await self._call("ensure_pipeline", self._inner.ensure_pipeline(pipeline))

    async def delete_pipeline(self, provider_id: str) -> None:
        """See `Provider`."""
        await self._call("delete_pipeline", self._inner.delete_pipeline(provider_id))

    async def prune_pipeline(self, pipeline: PipelineVersion, keep: Collection[str]) -> None:
        """See `Provider`."""
        await self._call("prune_pipeline", self._inner.prune_pipeline(pipeline, keep))

    async def submit_run(self, submission: Submission) -> str:
        """See `Provider`."""
        return await self._call("submit_run", self._inner.submit_run(submission))

    async def get_run(self, submission_id: str) -> RunUpdate | None:
        """See `Provider`."""
        return await self._call("get_run", self._inner.get_run(submission_id))

    async def cancel_run(self, submission_id: str) -> None:
        """See `Provider`."""
        await self._call("cancel_run", self._inner.cancel_run(submission_id))

    def logs(self, submission_id: str, *, follow: bool = False) -> AsyncIterator[str]:
        """See `Provider`."""
        return self._inner.logs(submission_id, follow=follow)

    def watch_runs(self) -> AsyncIterator[RunUpdate]:
        """See `Provider`. Whoever watches begins again after any error."""
        return self._inner.watch_runs()

    async def artifacts(self, submission_id: str) -> Sequence[ComponentArtifact]:
        """See `Provider`."""
        return await self._call("artifacts", self._inner.artifacts(submission_id))

    async def _call(self, call: str, answer: Awaitable[T]) -> T:
        result = "success"
        try:
            return await answer
        except (Permanent, InvalidSpec):
            result = "permanent"
            raise
        except Retryable:
            result = "retryable"
            raise
        except Exception as error:
            result = "defect"
            log.exception("Provider %s failed in %s with an error that it should not raise", self._name, call)
            message = f"Provider {self._name} failed in {call}: {type(error).__name__}: {error}"
            raise Retryable(message, reason="ProviderFailed") from error
        finally:
            self._metrics.provider_calls.labels(provider=self._name, call=call, result=result).inc()
