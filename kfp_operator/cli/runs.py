"""``runs``: create, start, repeat, wait for, read the log of, and cancel Runs. What kubectl can do as well is left to kubectl."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kfp_operator.cli import completion, options
from kfp_operator.cli.exits import ExitCode

if TYPE_CHECKING:
    from kfp_operator.settings import Settings

app = typer.Typer(
    no_args_is_help=True, help="Runs: create, start, rerun, wait, logs, cancel. List and delete them with kubectl: kubectl get mlr"
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the Run.", autocompletion=completion.run_names, show_default=False)]
Timeout = Annotated[
    timedelta, typer.Option("--timeout", metavar="TIME", parser=options.duration, help="Longest time to wait, as 90s, 10m or 2h.")
]
WAIT_CODES = options.exit_codes(
    "0   the run succeeded",
    "1   it ended otherwise: failed, stopped, deleted",
    "2   wrong usage",
    "3   it had not ended after --timeout; it goes on",
    "4   the API server did not answer or refused, or there is no such Run",
)


@app.command(
    "create",
    epilog=options.examples(
        "kfp-operator runs create penguin-1 --pipeline penguin-pipeline",
        "# a certain version, with parameters, reporting an artifact; wait for the end",
        "kfp-operator runs create --generate-name penguin- --wait \\",
        "  --pipeline penguin-pipeline:49e208 -p epochs=3 -p rate=0.1 \\",
        "  --artifact model=pusher:pushed_model",
        "# the manifest, to keep it in git",
        "kfp-operator runs create p1 --pipeline penguin-pipeline --dry-run > run.yaml",
    )
    + WAIT_CODES,
)
def create(
    pipeline: Annotated[
        str,
        typer.Option(
            "--pipeline", metavar="NAME[:VERSION]", help="The Pipeline to run. Without a version: the latest.", show_default=False
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the Run.", show_default=False)] = "",
    generate_name: Annotated[
        str,
        typer.Option("--generate-name", metavar="PREFIX", help="Let the API server choose a name with this prefix.", show_default=False),
    ] = "",
    parameter: Annotated[
        list[Any] | None,
        typer.Option(
            "--parameter",
            "-p",
            metavar="NAME=VALUE",
            parser=options.pair("a parameter"),
            help="A parameter of the pipeline; may be given several times. Converted to the type that the pipeline declares.",
        ),
    ] = None,
    artifact: Annotated[
        list[Any] | None,
        typer.Option(
            "--artifact",
            metavar="NAME=PATH",
            parser=options.pair("an artifact"),
            help="Report an output under a name, as model=pusher:pushed_model; may be given several times.",
        ),
    ] = None,
    provider: Annotated[
        str, typer.Option("--provider", metavar="NS/NAME", help="The Provider. Default: the Pipeline's.", show_default=False)
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run to its end, as runs wait does.")] = False,
    timeout: Timeout = "24h",  # type: ignore[assignment]  # typer parses defaults too
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the manifest and create nothing; needs no cluster.")] = False,
    namespace: options.Namespace = None,
    config: options.Config = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Create a Run, the execution of a Pipeline."""
    from kfp_operator.api.names import Names
    from kfp_operator.cli.creation import Wanted, manifest

    if bool(name) == bool(generate_name):
        raise typer.BadParameter("give either a name or --generate-name", param_hint="NAME")
    if dry_run and wait:
        raise typer.BadParameter("nothing is created, so there is nothing to wait for", param_hint="--dry-run")
    wanted = Wanted(
        pipeline=pipeline,
        name=name,
        generate_name=generate_name,
        provider=provider,
        parameters=_distinct(parameter, "--parameter"),
        artifacts=_distinct(artifact, "--artifact"),
    )
    settings = options.settings(config)
    if dry_run:
        import yaml

        typer.echo(yaml.safe_dump(manifest(wanted, Names(settings.api_group), namespace), sort_keys=False, allow_unicode=True), nl=False)
        return

    async def work() -> ExitCode:
        from kfp_operator.cli.target import connect
        from kfp_operator.cli.waiting import wait as wait_for

        async with connect(kubeconfig, context, namespace=namespace, group=settings.api_group) as target:
            body = await target.cluster.create(target.kinds.run, manifest(wanted, target.names, target.namespace), target.namespace)
            created = str(body["metadata"]["name"])
            typer.echo(f"run.{target.kinds.group}/{created} created")
            return await wait_for(target, created, within=timeout, console=_console()) if wait else ExitCode.OK

    _finish(work())


@app.command(
    "start",
    epilog=options.examples(
        "kfp-operator runs start penguin-nightly",
        "# with other parameters than the template's, and wait for the end",
        "kfp-operator runs start penguin-nightly -p epochs=3 --wait",
        "# what it does, for those without this program",
        'kubectl annotate --overwrite mlrc penguin-nightly kfp-operator.dev/start="$(date +%s)"',
    )
    + WAIT_CODES,
)
def start(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Name of the RunConfiguration.",
            autocompletion=completion.configuration_names,
            show_default=False,
        ),
    ],
    parameter: Annotated[
        list[Any] | None,
        typer.Option(
            "--parameter",
            "-p",
            metavar="NAME=VALUE",
            parser=options.pair("a parameter"),
            help="A value in place of the template's, for this run alone; may be given several times.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run to its end, as runs wait does.")] = False,
    timeout: Timeout = "24h",  # type: ignore[assignment]  # typer parses defaults too
    namespace: options.Namespace = None,
    config: options.Config = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Start a Run of a RunConfiguration, also of one that is suspended.

    The operator makes the Run, as soon as the RunConfiguration's concurrencyPolicy and parameters let it.
    """
    parameters = dict(_distinct(parameter, "--parameter"))
    settings = options.settings(config)

    async def work() -> ExitCode:
        from kfp_operator.cli import start as starting
        from kfp_operator.cli.target import connect

        async with connect(kubeconfig, context, namespace=namespace, group=settings.api_group) as target:
            run, text = await starting.start(target, name, parameters)
            typer.echo(f"run.{target.kinds.group}/{run} asked for")
            if not wait:
                return ExitCode.OK
            return await starting.follow(target, name, run, text, within=timeout, console=_console())

    _finish(work())


@app.command(
    "rerun",
    epilog=options.examples(
        "kfp-operator runs rerun penguin-1",
        "# exactly what ran, though the Pipeline has a newer version; follow it to its end",
        "kfp-operator runs rerun penguin-1 --same-version --wait",
        "# with the models that other configurations have produced since",
        "kfp-operator runs rerun penguin-1 --resolve-again",
    )
    + WAIT_CODES,
)
def rerun(
    name: Name,
    new_name: Annotated[
        str,
        typer.Option("--name", metavar="NAME", help="Name of the new Run. Default: the old one's and -r1, -r2 ...", show_default=False),
    ] = "",
    same_version: Annotated[
        bool, typer.Option("--same-version", help="Run the version of the Pipeline that ran, though the old Run did not name it.")
    ] = False,
    resolve_again: Annotated[
        bool,
        typer.Option("--resolve-again", help="Get the values of parameters with valueFrom anew. Default: those that the old Run had."),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run to its end, as runs wait does.")] = False,
    timeout: Timeout = "24h",  # type: ignore[assignment]  # typer parses defaults too
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the manifest and create nothing.")] = False,
    namespace: options.Namespace = None,
    config: options.Config = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Execute again what a Run executed: create a new one with its spec.

    It may have ended or not, and may have been restored from a backup.
    The new one is labelled with its name; nothing else of its labels and annotations is taken over.
    """
    from kfp_operator.cli.rerun import Wanted

    if dry_run and wait:
        raise typer.BadParameter("nothing is created, so there is nothing to wait for", param_hint="--dry-run")
    settings = options.settings(config)
    wanted = Wanted(name=new_name, same_version=same_version, resolve_again=resolve_again)

    async def work() -> ExitCode:
        from kfp_operator.cli import rerun as again
        from kfp_operator.cli.target import connect
        from kfp_operator.cli.waiting import wait as wait_for

        async with connect(kubeconfig, context, namespace=namespace, group=settings.api_group) as target:
            if dry_run:
                import yaml

                old = await target.cluster.get(target.kinds.run, name, target.namespace)
                document = again.manifest(old, wanted, target.names)
                document["metadata"].setdefault("name", again.candidate(old, target.names, 0))
                typer.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)
                return ExitCode.OK
            created = await again.rerun(target, name, wanted)
            typer.echo(f"run.{target.kinds.group}/{created} created")
            return await wait_for(target, created, within=timeout, console=_console()) if wait else ExitCode.OK

    _finish(work())


@app.command(
    "wait",
    epilog=options.examples(
        "kfp-operator runs wait penguin-1",
        "# in a script",
        "kfp-operator runs wait p1 --timeout 30m || kfp-operator runs logs p1",
    )
    + WAIT_CODES,
)
def wait(
    name: Name,
    timeout: Timeout = "24h",  # type: ignore[assignment]  # typer parses defaults too
    namespace: options.Namespace = None,
    config: options.Config = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Follow a Run to its end and exit with what came of it.

    Each change of state is a line, with the time at the backend. An outage of the API server is waited out.
    """
    settings = options.settings(config)

    async def work() -> ExitCode:
        from kfp_operator.cli.target import connect
        from kfp_operator.cli.waiting import wait as wait_for

        async with connect(kubeconfig, context, namespace=namespace, group=settings.api_group) as target:
            return await wait_for(target, name, within=timeout, console=_console())

    _finish(work())


@app.command(
    "logs",
    epilog=options.examples(
        "kfp-operator runs logs penguin-1", "# from before its start to its end", "kfp-operator runs logs penguin-1 -f"
    ),
)
def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends; wait for it to start.")] = False,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, metavar="N", help="Which attempt. Default: the last one.")] = None,
    namespace: options.Namespace = None,
    config: options.Config = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
) -> None:
    """Print what a run printed.

    Runs of type local keep their log on the machine of their operator: this must be that machine, with the same stateDir.
    """
    settings = options.settings(config, state_dir=state_dir)

    async def work() -> ExitCode:
        from kfp_operator.cli.reading import lines
        from kfp_operator.cli.target import connect

        async with connect(kubeconfig, context, namespace=namespace, group=settings.api_group) as target:
            async for line in lines(target, settings, name, follow=follow, attempt=attempt):
                typer.echo(line)
        return ExitCode.OK

    _finish(work())


@app.command(
    "cancel", epilog=options.examples("kfp-operator runs cancel penguin-1", "# and see it end", "kfp-operator runs wait penguin-1")
)
def cancel(
    name: Name,
    namespace: options.Namespace = None,
    config: options.Config = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Ask for a Run to be stopped (spec.cancel: true). It cannot be taken back."""
    settings: Settings = options.settings(config)

    async def work() -> ExitCode:
        from kfp_operator.cli.progress import view
        from kfp_operator.cli.target import connect

        async with connect(kubeconfig, context, namespace=namespace, group=settings.api_group) as target:
            title = f"run.{target.kinds.group}/{name}"
            before = await target.run(name)
            if view(before).ended:
                typer.echo(f"{title} has ended before: {view(before).state}")
            elif before.spec.cancel:
                typer.echo(f"{title} is being cancelled already")
            else:
                await target.cluster.patch(target.kinds.run, name, {"spec": {"cancel": True}}, target.namespace)
                typer.echo(f"{title} cancelled")
        return ExitCode.OK

    _finish(work())


def _finish(work: Coroutine[Any, Any, ExitCode]) -> None:
    code = asyncio.run(work)
    if code is not ExitCode.OK:
        raise typer.Exit(code)


def _console() -> Any:
    from rich.console import Console

    return Console()


def _distinct(pairs: list[tuple[str, str]] | None, flag: str) -> tuple[tuple[str, str], ...]:
    names = [name for name, _ in pairs or ()]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise typer.BadParameter(f"{', '.join(doubled)} given more than once", param_hint=flag)
    return tuple(pairs or ())
