"""The command ``kfp-operator``: its commands, and what becomes of errors.

An error that this package raises on purpose is one line on standard error and an exit code (`exits`). Any other is a defect, and is one
line too, which says how to see the traceback. Nothing heavy is imported here.
"""

import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kfp_operator import __version__
from kfp_operator.cli import crds, doctor, events, operate, options, pipelines, runs
from kfp_operator.cli.exits import ExitCode, exit_code
from kfp_operator.errors import KfpOperatorError


class _Commands(TyperGroup):
    """Turns the errors of this package into messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Invoke the command."""
        try:
            return super().invoke(ctx)
        except KfpOperatorError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(exit_code(error)) from error


app = typer.Typer(
    name=options.PROGRAM,
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=options.examples(
        "# is everything there that is needed?",
        "kfp-operator doctor",
        "# run the operator against the cluster of your kubeconfig",
        "kfp-operator crds | kubectl apply --server-side --force-conflicts -f -",
        "kfp-operator run",
        "# run a pipeline and wait for its end",
        "kfp-operator pipelines build pipeline.py | kubectl apply --server-side -f -",
        "kfp-operator runs create penguin-1 --pipeline penguin-pipeline --wait",
    ),
)
app.command("run", epilog=operate.EPILOG)(operate.run)
app.command("crds", epilog=crds.EPILOG)(crds.crds)
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)
app.add_typer(pipelines.app, name="pipelines")
app.add_typer(runs.app, name="runs")
app.add_typer(events.app, name="events")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"{options.PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error too.")] = False,
) -> None:
    """Kubeflow pipelines and runs as Kubernetes resources, and what happens to them as CloudEvents on NATS."""


def main() -> None:
    """The console script."""
    command = typer.main.get_command(app)  # not app(): that would install an excepthook of its own
    try:
        command(prog_name=options.PROGRAM)
    except Exception as error:  # noqa: BLE001  # the last resort, for defects: people get a line to report, not a trace
        if "--debug" in sys.argv:
            traceback.print_exc()
        typer.echo(
            f"Error: unexpected {type(error).__name__}: {error}\n"
            f"This is a defect of {options.PROGRAM}: please report it, with what {options.PROGRAM} --debug ... prints.",
            err=True,
        )
        sys.exit(ExitCode.DEFECT)
