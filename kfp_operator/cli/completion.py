"""Names from the cluster for shell completion: quick, or nothing."""

import threading

import typer

PATIENCE = 1.0
"""Seconds that a person at a prompt waits for the API server."""


def run_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of Runs that begin with what was typed; none when the cluster does not answer in time."""
    return _names("Run", ctx, incomplete)


def configuration_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """The same of RunConfigurations."""
    return _names("RunConfiguration", ctx, incomplete)


def _names(kind: str, ctx: typer.Context, incomplete: str) -> list[str]:
    found: list[str] = []
    thread = threading.Thread(target=_collect, args=(kind, ctx.params, incomplete, found), daemon=True)
    thread.start()
    thread.join(PATIENCE + 2.0)  # importing takes its time too
    return sorted(found)


def inbound_kinds(incomplete: str) -> list[str]:
    """Kinds of events from outside that begin with what was typed."""
    from kfp_operator.schemas.kinds import V1EventKind

    return [kind.value for kind in V1EventKind if not kind.internal and kind.value.startswith(incomplete)]


def _collect(kind: str, params: dict[str, object], incomplete: str, found: list[str]) -> None:
    import asyncio
    from contextlib import suppress

    from kfp_operator.cli.options import settings
    from kfp_operator.cli.target import connect
    from kfp_operator.errors import KfpOperatorError

    def given(name: str) -> str | None:
        value = params.get(name)
        return str(value) if value else None

    async def names() -> None:
        group = settings(None).api_group
        async with connect(given("kubeconfig"), given("context"), namespace=given("namespace"), group=group, patience=PATIENCE) as target:
            resource = next(each for each in target.kinds.all if each.kind == kind)
            async for body in target.cluster.list(resource, target.namespace, metadata_only=True):
                name = str(body["metadata"]["name"])
                if name.startswith(incomplete):
                    found.append(name)

    with suppress(KfpOperatorError, TimeoutError):  # a prompt has no place for a message
        asyncio.run(asyncio.wait_for(names(), PATIENCE))
