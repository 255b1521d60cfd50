"""Manifests for the CRDs on a real API server, what it says to bad ones, and tables of kubectl."""

import json
import re
from collections.abc import Mapping
from typing import Any

from kfp_operator.api.names import DEFAULT_GROUP, VERSION
from tests.cluster import Cluster

Refused = tuple[str, dict[str, Any], str, str]
"""Kind, spec, the field that is named, and what is said of it."""


def manifest(kind: str, name: str, spec: dict[str, Any], *, group: str = DEFAULT_GROUP) -> dict[str, Any]:
    """An object of one of our kinds."""
    return {"apiVersion": f"{group}/{VERSION}", "kind": kind, "metadata": {"name": name}, "spec": spec}


def stream(*manifests: dict[str, Any]) -> str:
    """Several in one document."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})


def refusals(cluster: Cluster, refused: Mapping[str, Refused]) -> dict[str, str]:
    """What the API server says to each of them, by name, asked in one go."""
    manifests = (manifest(kind, name, spec) for name, (kind, spec, _, _) in refused.items())
    answer = cluster.kubectl("create", "--validate=ignore", "--dry-run=server", "--filename", "-", stdin=stream(*manifests), check=False)
    assert answer.stdout == ""
    lines = (re.search(r'"([-a-z.]+)" is invalid: (.*)', line) for line in answer.stderr.splitlines())
    found = {line[1]: line[2] for line in lines if line}
    assert found.keys() == refused.keys(), answer.stderr
    return found


def columns(table: str) -> list[dict[str, str]]:
    """The rows of a table that kubectl printed."""
    head, *rows = table.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+( \S+)*", head)]
    ends = [*starts[1:], None]
    return [{head[a:b].strip(): row[a:b].strip() for a, b in zip(starts, ends, strict=True)} for row in rows]
