"""Executing again what a Run executed: a new Run with the spec of the old one, which may be one that was restored from a backup."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfp_operator.api.names import Names, labelled, name_in
from kfp_operator.api.schema import MAX_NAME
from kfp_operator.cli.target import Target
from kfp_operator.errors import AlreadyExists, ConfigurationError

TRIES = 50
"""Names that are tried in turn before the API server is asked to choose one."""
_NUMBERED = re.compile(r"(.+)-r([1-9][0-9]{0,5})")


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the new Run shall differ from the old one."""

    name: str = ""
    """Empty: the old one's, with -r1, -r2 ... at its end."""
    same_version: bool = False
    """The version of the Pipeline that ran, instead of what the spec says."""
    resolve_again: bool = False
    """Parameters with valueFrom get their values anew, instead of those that they had."""


def manifest(old: Mapping[str, Any], wanted: Wanted, names: Names) -> dict[str, Any]:
    """The new Run's document, without a name unless one is wanted. `old` is the Run as the API server has it.

    Raises ConfigurationError when the version that ran is wanted and not known.
    """
    metadata, status = old["metadata"], old.get("status") or {}
    spec = {field: value for field, value in old["spec"].items() if field != "cancel"}
    if wanted.same_version:
        version = (metadata.get("labels") or {}).get(names.pipeline_version) or status.get("pipelineVersion")
        if not version:
            raise ConfigurationError(f"Run {metadata['name']} was never bound to a version of its Pipeline: leave --same-version out")
        spec["pipeline"] = f"{spec['pipeline'].partition(':')[0]}:{version}"
    if not wanted.resolve_again and "parameters" in spec:
        spec["parameters"] = _filled_in(spec["parameters"], status.get("resolved") or ())
    labels, annotations = labelled(names.rerun_of, metadata["name"])
    told: dict[str, Any] = {"namespace": metadata["namespace"], "labels": labels}
    if annotations:
        told["annotations"] = annotations
    if wanted.name:
        told["name"] = wanted.name
    return {"apiVersion": names.api_version, "kind": "Run", "metadata": told, "spec": spec}


def _filled_in(parameters: list[dict[str, Any]], resolved: Any) -> list[dict[str, Any]]:
    """The parameters with the values that the old Run got for them; what it never got stays as it is."""
    values = {value["name"]: value for value in resolved}
    filled = []
    for parameter in parameters:
        value = values.get(parameter["name"]) if "valueFrom" in parameter else None
        if value is None:
            filled.append(parameter)
        elif not value.get("omitted"):
            filled.append({"name": parameter["name"], "value": value.get("value", "")})
    return filled


def candidate(old: Mapping[str, Any], names: Names, number: int) -> str:
    """The name of the new Run, at the try of that number from 0: train-r1 for train, train-r3 for train-r2, which was run again itself."""
    metadata = old["metadata"]
    base, first = str(metadata["name"]), 1
    again = name_in(names.rerun_of, metadata.get("labels") or {}, metadata.get("annotations") or {})
    if again and (found := _NUMBERED.fullmatch(base)) is not None:
        base, first = found[1], int(found[2]) + 1
    end = f"-r{first + number}"
    return base[: MAX_NAME - len(end)].rstrip("-.") + end


async def rerun(target: Target, name: str, wanted: Wanted) -> str:
    """Create the new Run and return its name. Raises ClusterError; AlreadyExists when the wanted name is taken."""
    old = await target.cluster.get(target.kinds.run, name, target.namespace)
    document = manifest(old, wanted, target.names)
    metadata = document["metadata"]
    if not wanted.name:
        for number in range(TRIES):
            named = {**document, "metadata": {**metadata, "name": candidate(old, target.names, number)}}
            try:
                body = await target.cluster.create(target.kinds.run, named, target.namespace)
            except AlreadyExists:
                continue
            return str(body["metadata"]["name"])
        document = {**document, "metadata": {**metadata, "generateName": f"{name}-r-"}}
    body = await target.cluster.create(target.kinds.run, document, target.namespace)
    return str(body["metadata"]["name"])
