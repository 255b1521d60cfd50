"""``events``: watch what happens to Runs, and the schemas of the events."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kfp_operator.cli import completion, options

if TYPE_CHECKING:
    from kfp_operator.cli.feed import Start
    from kfp_operator.settings import Settings

app = typer.Typer(no_args_is_help=True, help="CloudEvents about Runs: watch, schema.")


@app.command(
    "watch",
    epilog=options.examples(
        "kfp-operator events watch",
        "# one run, from its beginning",
        "kfp-operator events watch -n team-a --run penguin-1 --since all",
        "# completions of the last hour and all further ones, as CloudEvents",
        "kfp-operator events watch --completions --since 1h -o json",
    )
    + options.exit_codes(
        "0   ended by Ctrl-C, or after --count events",
        "2   wrong usage, or no NATS server is known",
        "4   NATS does not answer at the start",
    ),
)
def watch(
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAME", help="Only Runs of this namespace. Default: all.", show_default=False)
    ] = "",
    run: Annotated[
        str, typer.Option("--run", metavar="NAME", help="Only this Run.", autocompletion=completion.run_names, show_default=False)
    ] = "",
    status_only: Annotated[bool, typer.Option("--status-only", help="Only changes of state (run-status).")] = False,
    completions: Annotated[bool, typer.Option("--completions", help="Only ends (run-completion).")] = False,
    since: Annotated[
        str,
        typer.Option(
            "--since", metavar="new|all|TIME", help="Where to begin: new events, all that are stored, or those of the last 90s, 10m, 2h."
        ),
    ] = "new",
    output: Annotated[
        Literal["text", "json"], typer.Option("--output", "-o", help="text: a line for people; json: the CloudEvent on a line.")
    ] = "text",
    count: Annotated[int | None, typer.Option("--count", min=1, metavar="N", help="End after so many events. Default: never.")] = None,
    config: options.Config = None,
    nats: options.Nats = None,
    state_dir: options.StateDir = None,
) -> None:
    """Print CloudEvents as they are stored, until Ctrl-C.

    Reads stream kfp-operator-runs with a consumer of its own: it takes no event from anybody, and misses none.
    After an outage of NATS it goes on where it was.
    """
    if status_only and completions:
        raise typer.BadParameter("--status-only and --completions exclude each other", param_hint="--completions")
    start = _start(since)
    settings = options.settings(config, nats=options.nats_flags(nats), state_dir=state_dir)
    kinds = ["run-status"] * (not completions) + ["run-completion"] * (not status_only)
    try:
        asyncio.run(_watch(settings, kinds, namespace, run, start, output, count))
    except KeyboardInterrupt:
        return


@app.command(
    "schema",
    epilog=options.examples(
        "# of all events, as one document by event type",
        "kfp-operator events schema",
        "# of one",
        "kfp-operator events schema run-completion",
    ),
)
def schema(
    event: Annotated[
        str,
        typer.Argument(metavar="TYPE", help="run-completion, run-status, ..., with or without org.kubeflow.pipelines.", show_default=False),
    ] = "",
) -> None:
    """Print the JSON Schema of an event's data: what dataschema refers to."""
    import json

    from kfp_operator.events import schemas

    typer.echo(json.dumps(schemas.schema(event) if event else schemas.schemas(), indent=2))


def _start(since: str) -> "Start":
    from datetime import UTC, datetime

    match since:
        case "new":
            return "new"
        case "all":
            return "all"
        case _:
            try:
                return datetime.now(UTC) - options.duration(since)
            except (typer.BadParameter, OverflowError):
                raise typer.BadParameter(
                    f"{since!r} is not new, all or a length of time, as 90s, 10m or 2h", param_hint="--since"
                ) from None


async def _watch(
    settings: "Settings", kinds: list[str], namespace: str, run: str, start: "Start", output: Literal["text", "json"], count: int | None
) -> None:
    from contextlib import aclosing

    from kfp_operator.cli import feed
    from kfp_operator.cli.listing import Listing
    from kfp_operator.events.jetstream import JetStreamBus
    from kfp_operator.events.subjects import Kind, Subjects

    subjects = Subjects(settings.events.prefix)
    listing = Listing(subjects, output)
    patterns = [subjects.pattern(Kind(kind), namespace, run) for kind in kinds]
    async with JetStreamBus(feed.servers(settings)) as bus:
        await feed.connected(bus)
        async with aclosing(feed.follow(bus, subjects.stream("runs"), patterns, start)) as messages:
            async for message in messages:
                if isinstance(message, feed.Interruption):
                    typer.echo(f"... {message.message}", err=True)
                    continue
                if listing.show(message) and count is not None and listing.shown >= count:
                    return
