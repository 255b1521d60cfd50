"""The manifest of a Run from flags."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kfp_operator.api.names import Names


@dataclass(frozen=True, slots=True)
class Wanted:
    """A Run as the flags describe it."""

    pipeline: str
    name: str = ""
    generate_name: str = ""
    provider: str = ""
    parameters: Sequence[tuple[str, str]] = ()
    artifacts: Sequence[tuple[str, str]] = ()
    active_deadline: int | None = None
    """Seconds."""


def manifest(wanted: Wanted, names: Names, namespace: str | None) -> dict[str, Any]:
    """The document for the API server; members that the flags do not set are left out.

    Parameter values stay strings: the operator converts them to the types that the pipeline declares.
    """
    metadata: dict[str, Any] = {"name": wanted.name} if wanted.name else {"generateName": wanted.generate_name}
    if namespace:
        metadata["namespace"] = namespace
    spec: dict[str, Any] = {"pipeline": wanted.pipeline}
    if wanted.provider:
        spec["provider"] = wanted.provider
    if wanted.parameters:
        spec["parameters"] = [{"name": name, "value": value} for name, value in wanted.parameters]
    if wanted.artifacts:
        spec["artifacts"] = [{"name": name, "path": path} for name, path in wanted.artifacts]
    if wanted.active_deadline is not None:
        spec["activeDeadlineSeconds"] = wanted.active_deadline
    return {"apiVersion": names.api_version, "kind": "Run", "metadata": metadata, "spec": spec}
