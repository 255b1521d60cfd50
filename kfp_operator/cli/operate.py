"""``run``: the operator itself."""

from typing import Annotated, Literal

import typer

from kfp_operator.cli import options

EPILOG = options.examples(
    "# on a laptop: the cluster of the kubeconfig; NATS and local runs are here",
    "kfp-operator run",
    "# one team's namespaces, an existing NATS",
    "kfp-operator run -n team-a -n team-b --nats nats://nats.nats-system:4222",
    "# everything else is a setting",
    "kfp-operator run --config operator.yaml",
) + options.exit_codes(
    "0   stopped by SIGTERM or Ctrl-C",
    "1   another process leads in its place: start it again",
    "2   flags, settings or files that cannot be used",
    "4   the API server or NATS refused at the start",
)


def run(
    config: options.Config = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespaces = None,
    nats: Annotated[
        list[str] | None,
        typer.Option(
            "--nats",
            metavar="URL",
            help="NATS server, as nats://nats.nats-system:4222; may be given several times. "
            "Default: the setting nats.servers, else a private server on this machine.",
            rich_help_panel="Where",
        ),
    ] = None,
    state_dir: options.StateDir = None,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option("--log-format", help="text for people (default), json for machines.", rich_help_panel="Log and health"),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option("--log-level", help="Least level that is logged. Default: info.", rich_help_panel="Log and health"),
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(
            "--http-port",
            min=0,
            max=65535,
            help="Port of /healthz, /readyz and /metrics; 0: a free one. Default: 8080.",
            rich_help_panel="Log and health",
        ),
    ] = None,
) -> None:
    """Run the operator until SIGTERM or Ctrl-C.

    It needs the CustomResourceDefinitions (kfp-operator crds) and NATS with JetStream; outside a cluster it starts its own if none is set.
    Runs of type local go on when it stops, and are adopted when it starts again.
    """
    import asyncio

    settings = options.settings(
        config,
        namespaces=namespace or None,
        nats=options.nats_flags(nats),
        state_dir=state_dir,
        log={"format": log_format, "level": log_level},
        http={"port": http_port},
    )
    from kfp_operator.operator import app

    with asyncio.Runner() as runner:
        runner.run(app.run(settings, kubeconfig=kubeconfig, context=context))
