"""``events``: watch what happens to Runs, publish what happens outside, and the schemas of the events."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kfp_operator.cli import completion, options

if TYPE_CHECKING:
    from kfp_operator.cli.feed import Start
    from kfp_operator.settings import Settings

app = typer.Typer(no_args_is_help=True, help="CloudEvents about Runs, and events from outside: watch, publish, schema.")


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
    "publish",
    epilog=options.examples(
        "# to the NATS server of the settings",
        "kfp-operator events publish -n team-a --kind connection_dataset_version \\",
        "  --ref connections.penguins --data version=2026-03-01",
        "# over HTTP, with an id that makes a repetition the same event",
        "kfp-operator events publish --url https://events.example.org --token-file token \\",
        "  --kind model_version_new_metric --ref models.penguin --id eval-17 --data @metrics.json",
    )
    + options.exit_codes(
        "0   stored, by this call or before",
        "2   wrong usage: an event that cannot be accepted",
        "4   NATS or the operator did not answer or refused; the same call with the same --id may be repeated",
    ),
)
def publish(
    kind: Annotated[
        str,
        typer.Option("--kind", metavar="KIND", help="What happened.", autocompletion=completion.inbound_kinds, show_default=False),
    ],
    ref: Annotated[
        str, typer.Option("--ref", metavar="TYPE.NAME", help="What it happened to, as connections.penguins.", show_default=False)
    ],
    namespace: Annotated[
        str,
        typer.Option(
            "--namespace", "-n", metavar="NAME", help="The namespace it is for. With --url the default is the token's.", show_default=False
        ),
    ] = "",
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="NAME=VALUE|JSON|@FILE",
            help="What else there is to say: a text under a name, a JSON object, or a file with one (@-: standard input); "
            "may be given several times.",
        ),
    ] = None,
    source: Annotated[str, typer.Option("--source", metavar="URI", help="Where it comes from. Default: urn:kfp-operator:cli.")] = "",
    id_: Annotated[
        str,
        typer.Option("--id", metavar="ID", help="Unique within the source: the same again is the same event. Default: a random one."),
    ] = "",
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="An operator's port for events, instead of NATS.", rich_help_panel="Where")
    ] = "",
    token: Annotated[
        str,
        typer.Option(
            "--token",
            metavar="TOKEN",
            envvar="KFP_OPERATOR_TOKEN",
            help="The token for --url. Others on this machine can see it in a command: rather use the variable or --token-file.",
            rich_help_panel="Where",
        ),
    ] = "",
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="A file with the token for --url.", rich_help_panel="Where")
    ] = None,
    output: Annotated[
        Literal["text", "json"], typer.Option("--output", "-o", help="text: a line for people; json: the CloudEvent on a line.")
    ] = "text",
    config: options.Config = None,
    nats: options.Nats = None,
    state_dir: options.StateDir = None,
) -> None:
    """Publish an event from outside: a commit, a data set, an image, an alert, a metric.

    It is stored on stream kfp-operator-inbound for those who wait for it.
    """
    import uuid

    from kfp_operator.cli import publishing
    from kfp_operator.errors import EventRefused
    from kfp_operator.events import binding, inbound

    if url:
        token = publishing.read_token(token_file) if token_file is not None else token
        if not token:
            raise typer.BadParameter("the operator wants a token: give --token-file, or set KFP_OPERATOR_TOKEN", param_hint="--url")
    elif not namespace:
        raise typer.BadParameter("say which namespace the event is for", param_hint="--namespace")
    found = next((one for one in inbound.KINDS if one.value == kind), None)
    if found is None:
        raise typer.BadParameter(f"{kind!r} is not one of {', '.join(one.value for one in inbound.KINDS)}", param_hint="--kind")
    members = publishing.payload(data or [], sys.stdin.read() if "@-" in (data or []) else "")
    try:
        event = inbound.make(namespace or "default", found, ref, members, source=source or publishing.SOURCE, id_=id_ or str(uuid.uuid4()))
    except EventRefused as error:
        raise typer.BadParameter(str(error), param_hint="--ref, --data, --namespace, --source or --id") from error
    if url:
        stored = asyncio.run(publishing.to_http(url, token, namespace, event))
    else:
        settings = options.settings(config, nats=options.nats_flags(nats), state_dir=state_dir)
        stored = asyncio.run(publishing.to_nats(settings, event))
    if output == "json":
        typer.echo(binding.encode(event.event).body)
    else:
        typer.echo(f"{'stored before' if stored.already else 'stored'}  {stored.subject}  id {event.id}")


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
