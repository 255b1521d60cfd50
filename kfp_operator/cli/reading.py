"""The log of a Run: which provider has it, and its lines."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.provider import Provider
from kfp_operator.api.run import Run
from kfp_operator.cli.progress import view
from kfp_operator.cli.target import Target
from kfp_operator.cli.waiting import Deleted, Trouble, follow
from kfp_operator.errors import ClusterUnavailable, InvalidSpec, NotFound, Permanent
from kfp_operator.operator.opening import open_provider
from kfp_operator.providers.protocol import submission_id
from kfp_operator.reconcile.attempts import submission_of
from kfp_operator.settings import Settings


async def lines(target: Target, settings: Settings, name: str, *, follow: bool, attempt: int | None = None) -> AsyncGenerator[str]:
    """Lines of the run's log; with `follow` until the run ends, from before it starts.

    Raises ClusterError, ProviderError, InvalidSpec; NotFound when the Run was never at the backend.
    """
    run = await _started(target, name) if follow else await target.run(name)
    if not run.status.attempt:
        raise NotFound(f"Run {run.metadata.full_name} has no log: {_why(run)}")
    if attempt is not None and attempt > run.status.attempt:
        raise NotFound(f"Run {run.metadata.full_name} has no attempt {attempt}: the last one is {run.status.attempt}")
    resource = await _provider(target, run)
    try:
        provider = open_provider(resource, settings)
    except InvalidSpec as error:
        raise InvalidSpec(f"Provider {resource.metadata.full_name}: {error}") from error
    try:
        submission = submission_of(run.status, attempt or run.status.attempt)
        async for line in provider.logs(submission_id(run.metadata.uid, submission), follow=follow):
            yield line
    except Permanent as error:
        if resource.spec.type != "local":
            raise
        raise Permanent(
            f"{error}. Runs of type local keep their log on the machine of their operator, in its stateDir; "
            f"looked for in {settings.state_dir.expanduser()} (--state-dir)",
            reason=error.reason,
        ) from error
    finally:
        await provider.close()


async def _started(target: Target, name: str) -> Run:
    """The Run once it is at the backend, or has ended without."""
    async with aclosing(follow(target, name)) as looks:
        async for look in looks:
            match look:
                case Trouble(message):
                    raise ClusterUnavailable(message)
                case Deleted():
                    break
                case run:
                    if run.status.attempt or view(run).ended:
                        return run
    raise NotFound(f"Run {target.namespace}/{name} was deleted before it started", status=404)


async def _provider(target: Target, run: Run) -> Provider:
    """The Provider the Run is bound to."""
    name = run.status.provider or run.spec.provider
    if not name:
        body = await target.cluster.get(target.kinds.pipeline, run.spec.pipeline_name, run.metadata.namespace)
        name = Pipeline.parse(body).spec.provider
    namespace, _, short = name.partition("/")
    return Provider.parse(await target.cluster.get(target.kinds.provider, short, namespace))


def _why(run: Run) -> str:
    now = view(run)
    if now.ended:
        return f"it was never at the backend ({now.state}{': ' + now.message if now.message else ''})"
    return f"it has not started ({now.message or now.state}); -f waits for it"
