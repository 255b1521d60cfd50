"""``doctor``: is everything there that the operator needs? Looks, and changes nothing."""

import asyncio
from typing import TYPE_CHECKING

import typer

from kfp_operator.cli import options
from kfp_operator.cli.exits import ExitCode

if TYPE_CHECKING:
    from rich.console import Console

    from kfp_operator.settings import Settings

EPILOG = options.examples(
    "kfp-operator doctor",
    "# with the settings and the rights of the operator",
    "kfp-operator doctor --config operator.yaml --context operator",
) + options.exit_codes(
    "0   nothing keeps the operator from working (there may be warnings)",
    "1   something does: a line says FAIL",
    "2   wrong usage or settings",
)


def doctor(
    config: options.Config = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespaces = None,
    nats: options.Nats = None,
    state_dir: options.StateDir = None,
) -> None:
    """Check the API server, CRDs, permissions, NATS and streams; say what is wrong and what helps.

    Permissions are those of the user of the kubeconfig: take the operator's to check the operator's.
    """
    from rich.console import Console

    settings = options.settings(config, namespaces=namespace or None, nats=options.nats_flags(nats), state_dir=state_dir)
    if asyncio.run(_examine(settings, kubeconfig, context, Console())):
        raise typer.Exit(ExitCode.FAILED)


async def _examine(settings: "Settings", kubeconfig: str | None, context: str | None, console: "Console") -> bool:
    """Print all findings; whether one of them is FAIL."""
    from kfp_operator.cli.check_cluster import check_cluster
    from kfp_operator.cli.check_nats import check_nats
    from kfp_operator.cli.report import Level, fail, show
    from kfp_operator.cli.target import connect
    from kfp_operator.errors import ConfigurationError

    failed = False
    try:
        async with connect(kubeconfig, context, namespace=None, group=settings.api_group) as target:
            async for finding in check_cluster(target, settings):
                show(finding, console)
                failed |= finding.level is Level.FAIL
    except ConfigurationError as error:
        show(fail("API server", str(error), "name a cluster with --kubeconfig or --context"), console)
        failed = True
    async for finding in check_nats(settings):
        show(finding, console)
        failed |= finding.level is Level.FAIL
    return failed
