"""Every manifest under ``examples/`` is one that an API server takes, and stores as it is written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import Cluster

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = sorted(file for file in EXAMPLES.rglob("*.yaml") if "inbound" not in file.parts)
"""Those under inbound/ are for other programs; tests/unit/examples/test_inbound.py evaluates them."""


def documents(file: Path) -> Iterator[dict[str, Any]]:
    yield from (document for document in yaml.safe_load_all(file.read_text()) if document)


def kept(given: Any, found: Any) -> bool:
    """Whether all that was given is there; defaults may have been added."""
    if isinstance(given, dict):
        return isinstance(found, dict) and all(key in found and kept(value, found[key]) for key, value in given.items())
    if isinstance(given, list):
        return isinstance(found, list) and len(given) == len(found) and all(map(kept, given, found))
    return bool(given == found)


def test_there_are_examples() -> None:
    assert {"pipeline.yaml", "provider.yaml", "runs.yaml"} <= {file.name for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(EXAMPLES)))
def test_a_manifest_is_stored_as_it_is_written(file: Path, cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "--namespace", namespace, "-f", file)
    cluster.kubectl("apply", "--namespace", namespace, "-f", file)
    for document in documents(file):
        group = document["apiVersion"].partition("/")[0]
        stored = cluster.get(f"{document['kind'].lower()}s.{group}", document["metadata"]["name"], namespace)
        assert stored is not None
        assert kept(document["spec"], stored["spec"])
        assert "namespace" not in document["metadata"], "it goes where the user applies it"
