"""``crds``: the CustomResourceDefinitions that this version needs."""

from pathlib import Path
from typing import Annotated

import typer

from kfp_operator.cli import options

EPILOG = options.examples(
    "# install or update them; objects that exist are kept",
    "kfp-operator crds | kubectl apply --server-side --force-conflicts -f -",
    "# see what would change",
    "kfp-operator crds | kubectl diff --server-side --force-conflicts -f -",
    "# one file per kind",
    "kfp-operator crds --output crds/",
)


def crds(
    api_group: Annotated[
        str | None,
        typer.Option(
            "--api-group", metavar="GROUP", envvar="KFPOP_API_GROUP", help="API group. Default: kfp-operator.dev.", show_envvar=False
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Write one file per kind into this folder instead.")
    ] = None,
) -> None:
    """Print the CustomResourceDefinitions as YAML for kubectl.

    Under an API group other than the default, the operator needs the setting apiGroup (KFPOP_API_GROUP) too.
    """
    from kfp_operator.api.crd import crd_files, crd_yaml

    group = _group(api_group)
    if output is None:
        typer.echo(crd_yaml(group), nl=False)
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in crd_files(group).items():
            (output / name).write_text(text, encoding="utf-8")
            typer.echo(output / name)
    except OSError as error:
        raise typer.BadParameter(f"cannot write to {output}: {error.strerror}", param_hint="--output") from error


def _group(name: str | None) -> str:
    import re

    from kfp_operator.api.names import DEFAULT_GROUP
    from kfp_operator.api.schema import DNS_LABEL, MAX_NAME

    if name is None:
        return DEFAULT_GROUP
    if len(name) > MAX_NAME or not re.fullmatch(rf"{DNS_LABEL}(\.{DNS_LABEL})+", name):
        raise typer.BadParameter(f"{name!r} is not a domain name in lower case, as kfp-operator.dev", param_hint="--api-group")
    return name
