"""``pipelines build``: from a file with a KFP pipeline to a manifest."""

from pathlib import Path
from typing import Annotated

import typer

from kfp_operator.cli import options

app = typer.Typer(no_args_is_help=True, help="Pipelines: build manifests from Python.")


@app.command(
    "build",
    epilog=options.examples(
        "# the pipeline of a file that has one",
        "kfp-operator pipelines build pipeline.py | kubectl apply --server-side -f -",
        "# one of several, under another name, for another Provider",
        "kfp-operator pipelines build pipeline.py:train --name penguins \\",
        "  --provider mlops/local --output pipeline.yaml",
    ),
)
def build(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py[:FUNCTION]", help="Python file, and the pipeline function if there are several.", show_default=False
        ),
    ],
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the Pipeline. Default: the pipeline's own.")] = None,
    provider: Annotated[
        str | None, typer.Option("--provider", metavar="NS/NAME", help="The Provider it runs on. Default: default/local.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write to this file instead of printing.")] = None,
) -> None:
    """Compile a Kubeflow pipeline and print it as a Pipeline manifest.

    The file is run with this Python, which needs kfp (pip install 'kfp-operator\\[local]') and what the file imports.
    """
    from kfp_operator.cli.build import build_manifest, to_yaml

    path, function = split(file)
    if output is not None and not output.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {output.parent}", param_hint="--output")
    text = to_yaml(build_manifest(path, function, name=name, provider=provider, api_group=options.settings(None).api_group))
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"cannot write {output}: {error.strerror}", param_hint="--output") from error


def split(reference: str) -> tuple[Path, str | None]:
    """The file and the function of ``FILE.py[:FUNCTION]``. Raises typer.BadParameter."""
    path, colon, function = reference.rpartition(":")
    if not colon or not path:
        path, function = reference, ""
    elif not function.isidentifier():
        raise typer.BadParameter(f"{function!r} is not the name of a function, as in pipeline.py:train", param_hint="FILE.py[:FUNCTION]")
    if not Path(path).is_file():
        raise typer.BadParameter(f"there is no file {path}", param_hint="FILE.py[:FUNCTION]")
    return Path(path), function or None
