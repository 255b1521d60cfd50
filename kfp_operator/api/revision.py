"""Every synchronized version of a Pipeline, kept as an immutable ``apps/v1 ControllerRevision`` that the Pipeline owns.

The compiled spec is compressed (JSON, gzip, base64) with its SHA-256, so `name:version` and queued Runs always find the spec they
were made for. Equal specs share one revision: its name is made of the Pipeline's name and the version.
"""

import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfp_operator.api.names import Names, label_value
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.errors import InvalidSpec

MAX_COMPRESSED = 1024 * 1024
"""Bytes of compressed spec; an object of the API server holds about 1.5 MiB."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One version of a Pipeline."""

    name: str
    version: str
    number: int
    digest: str
    """SHA-256 of the spec's canonical JSON, hexadecimal."""
    documents: Mapping[str, Any]
    """``{"pipelineSpec": ..., "platformSpec": ...}``"""


def digest(documents: Mapping[str, Any]) -> str:
    """SHA-256 of the documents' canonical JSON."""
    return hashlib.sha256(_canonical(documents)).hexdigest()


def revision_name(pipeline: str, version: str) -> str:
    """Name of the ControllerRevision: "<pipeline>-<version>", clipped with a hash beyond 253 characters."""
    name = f"{pipeline}-{version}"
    if len(name) <= 253:
        return name
    return f"{pipeline[:200].rstrip('.-')}-{hashlib.sha256(name.encode()).hexdigest()[:16]}-{version}"


def encode(pipeline: Pipeline, names: Names, version: str, documents: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The ControllerRevision as JSON; InvalidSpec when it is too large to be kept."""
    packed = gzip.compress(_canonical(documents), mtime=0)
    if len(packed) > MAX_COMPRESSED:
        raise InvalidSpec(
            f"the compiled pipeline is {len(packed)} bytes when compressed, {MAX_COMPRESSED} is the most a cluster keeps; "
            "split it, or move large constants into files",
            field="spec.pipelineSpec",
            reason="PipelineTooLarge",
        )
    meta = pipeline.metadata
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": revision_name(meta.name, version),
            "namespace": meta.namespace,
            "labels": {names.pipeline: label_value(meta.name), names.pipeline_version: version},
            "ownerReferences": [
                {
                    "apiVersion": names.api_version,
                    "kind": "Pipeline",
                    "name": meta.name,
                    "uid": meta.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "revision": number,
        "data": {"version": version, "digest": digest(documents), "spec": base64.b64encode(packed).decode()},
    }


def decode(body: Mapping[str, Any]) -> Revision:
    """A Revision from the API server's JSON; InvalidSpec when it was damaged."""
    name = body["metadata"]["name"]
    data = body.get("data") or {}
    try:
        documents = json.loads(gzip.decompress(base64.b64decode(data["spec"])))
        intact = digest(documents) == data["digest"]
        version = str(data["version"])
    except (KeyError, ValueError, OSError, EOFError, zlib.error) as error:
        raise InvalidSpec(f"ControllerRevision {name} was changed by hand: {error}", reason="RevisionDamaged") from error
    if not intact:
        raise InvalidSpec(f"ControllerRevision {name} was changed by hand: its digest does not fit", reason="RevisionDamaged")
    return Revision(name=name, version=version, number=int(body.get("revision", 0)), digest=data["digest"], documents=documents)


def _canonical(documents: Mapping[str, Any]) -> bytes:
    return json.dumps(documents, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
