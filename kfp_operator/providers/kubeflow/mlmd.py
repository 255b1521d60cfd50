"""Reads what a run produced from ML Metadata (MLMD), which all releases of Kubeflow Pipelines up to 2.17 keep artifacts in.

A run is a context, its tasks are executions in it, and events link executions to artifacts. What KFP's launcher writes has traps: user
metadata are *custom* properties; numbers become doubles and truth values integers; lists and mappings are wrapped in a struct; tasks of
loops and nested pipelines share names; a task that was retried has an execution for each try; cached tasks link the artifacts of an
earlier run. A run that died early has no context.

The service knows neither authentication nor tenants: only what belongs to a run of ours is asked for.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from google.protobuf import json_format

from kfp_operator.errors import Permanent, Retryable
from kfp_operator.providers.kubeflow.mlmd_messages import OUTPUTS, SERVICE, SUCCESSFUL, messages
from kfp_operator.providers.protocol import ComponentArtifact

RUN_TYPE = "system.PipelineRun"
TIMEOUT = 15.0
"""Seconds of one call."""
LARGEST_ANSWER = 64 * 1024 * 1024
BATCH = 500
"""Ids in one request."""
MOST_ARTIFACTS = 10_000
_OWN = frozenset({"display_name", "store_session_info"})
"""Custom properties of an artifact that are KFP's, not the user's."""


@dataclass(frozen=True, slots=True)
class Execution:
    """A task's execution."""

    id: int
    task: str
    parent: int
    iteration: int
    successful: bool


@dataclass(frozen=True, slots=True)
class Link:
    """An output of an execution."""

    execution: int
    artifact: int
    key: str
    index: int | None


class MetadataStore:
    """The service at ``host:port``, with ``https://`` in front for TLS. `authorities`: PEM of who may have signed its certificate."""

    def __init__(self, address: str, *, authorities: bytes | None = None) -> None:
        self.address = address
        self._authorities = authorities
        self._channel: Any = None
        self._calls: dict[str, Any] = {}

    async def check(self) -> None:
        """Return when it answers; Retryable, Permanent where this process lacks the client."""
        await self._call("GetContextByTypeAndName", type_name=RUN_TYPE, context_name="none")

    async def close(self) -> None:
        """Close the connection."""
        channel, self._channel = self._channel, None
        self._calls.clear()
        if channel is not None:
            await channel.close()

    async def artifacts(self, run_id: str) -> Sequence[ComponentArtifact] | None:
        """What the run's tasks produced, by task; None: the run has no context: it never began, or is not known here."""
        found = await self._call("GetContextByTypeAndName", type_name=RUN_TYPE, context_name=run_id)
        if not found.HasField("context"):
            return None
        executions = [_execution(e) for e in (await self._call("GetExecutionsByContext", context_id=found.context.id)).executions]
        links = await self._links([execution.id for execution in executions])
        kept = _latest(executions, {link.execution for link in links})
        chosen = [link for link in links if link.execution in kept][:MOST_ARTIFACTS]
        artifacts = await self._artifacts(list(dict.fromkeys(link.artifact for link in chosen)))
        return _ordered(kept, chosen, artifacts)

    async def _links(self, ids: Sequence[int]) -> list[Link]:
        links = []
        for some in _batches(ids):
            for event in (await self._call("GetEventsByExecutionIDs", execution_ids=some)).events:
                if event.type in OUTPUTS:
                    steps = event.path.steps
                    key = next((step.key for step in steps if step.HasField("key")), "")
                    index = next((step.index for step in steps if step.HasField("index")), None)
                    links.append(Link(event.execution_id, event.artifact_id, key, index))
        return links

    async def _artifacts(self, ids: Sequence[int]) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for some in _batches(ids):
            found |= {a.id: a for a in (await self._call("GetArtifactsByID", artifact_ids=some)).artifacts}
        return found

    async def _call(self, method: str, **fields: Any) -> Any:
        grpc = _grpc()
        if method not in self._calls:
            self._calls[method] = self._open(grpc).unary_unary(
                SERVICE + method,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=messages[f"{method}Response"].FromString,
            )
        try:
            return await self._calls[method](messages[f"{method}Request"](**fields), timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            told = " ".join((error.details() or "").split())[:300]
            message = f"ML Metadata at {self.address} (spec.parameters.metadataEndpoint) answers {method} with {error.code().name}: {told}"
            raise Retryable(message, reason="MetadataUnavailable") from error

    def _open(self, grpc: Any) -> Any:
        if self._channel is None:
            scheme, separator, rest = self.address.partition("://")
            target = rest if separator else self.address
            options = [("grpc.max_receive_message_length", LARGEST_ANSWER), ("grpc.enable_retries", 0)]
            if separator and scheme == "https":
                credentials = grpc.ssl_channel_credentials(root_certificates=self._authorities)
                self._channel = grpc.aio.secure_channel(target, credentials, options=options)
            else:
                self._channel = grpc.aio.insecure_channel(target, options=options)
        return self._channel


def _grpc() -> ModuleType:
    """The gRPC library, imported when it is needed: not every Kubeflow Pipelines has ML Metadata."""
    try:
        import grpc
        import grpc.aio
    except ImportError as error:
        raise Permanent(
            "ML Metadata is read with grpcio, which is not installed here: pip install 'kfp-operator[kubeflow]', "
            "or set spec.parameters.artifactSource to ArtifactApi or None",
            reason="MetadataClientMissing",
        ) from error
    found: ModuleType = grpc
    return found


def _execution(message: Any) -> Execution:
    properties = message.custom_properties
    task = properties["task_name"].string_value if "task_name" in properties else ""
    shown = properties["display_name"].string_value if "display_name" in properties else ""
    return Execution(
        id=message.id,
        task=task or shown,
        parent=properties["parent_dag_id"].int_value if "parent_dag_id" in properties else 0,
        iteration=properties["iteration_index"].int_value if "iteration_index" in properties else -1,
        successful=message.last_known_state in SUCCESSFUL,
    )


def _latest(executions: Sequence[Execution], productive: set[int]) -> dict[int, Execution]:
    """Of several tries of one task the last that succeeded, else the last that produced anything."""
    best: dict[tuple[int, str, int], Execution] = {}
    for execution in executions:
        if execution.id not in productive or not execution.task:
            continue
        key = (execution.parent, execution.task, execution.iteration)
        before = best.get(key)
        if before is None or (execution.successful, execution.id) > (before.successful, before.id):
            best[key] = execution
    return {execution.id: execution for execution in best.values()}


def _ordered(executions: Mapping[int, Execution], links: Sequence[Link], artifacts: Mapping[int, Any]) -> list[ComponentArtifact]:
    """By execution (iterations in their order), output and position, whatever the order of the answers was."""
    outputs: dict[tuple[int, str], list[Link]] = defaultdict(list)
    for link in links:
        if link.artifact in artifacts:
            outputs[link.execution, link.key or _shown(artifacts[link.artifact])].append(link)
    found = []
    for (execution_id, key), several in sorted(outputs.items(), key=lambda entry: (*_place(executions[entry[0][0]]), entry[0][1])):
        several.sort(key=lambda link: (link.index is None, link.index or 0, link.artifact))
        for position, link in enumerate(several):
            artifact = artifacts[link.artifact]
            found.append(
                ComponentArtifact(
                    component=executions[execution_id].task,
                    name=key,
                    type=artifact.type,
                    uri=artifact.uri,
                    metadata=_metadata(artifact),
                    index=position if link.index is None else link.index,
                )
            )
    return found


def _place(execution: Execution) -> tuple[str, int, int, int]:
    return execution.task, execution.parent, execution.iteration, execution.id


def _shown(artifact: Any) -> str:
    properties = artifact.custom_properties
    return str(properties["display_name"].string_value) if "display_name" in properties else ""


def _metadata(artifact: Any) -> dict[str, Any]:
    found = {name: _value(value, custom=False) for name, value in sorted(artifact.properties.items())}
    found |= {name: _value(value, custom=True) for name, value in sorted(artifact.custom_properties.items()) if name not in _OWN}
    return found


def _value(value: Any, *, custom: bool) -> Any:
    """As the step wrote it: the launcher makes doubles of all numbers, and 0 and 1 of truth values only."""
    kind = value.WhichOneof("value")
    if kind == "int_value":
        return bool(value.int_value) if custom and value.int_value in (0, 1) else value.int_value
    if kind == "double_value":
        return _number(value.double_value)
    if kind == "struct_value":
        return _whole(_unwrapped(json_format.MessageToDict(value.struct_value)))
    return getattr(value, kind) if kind else None


def _number(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if value == math.floor(value) and abs(value) < 2**53 else value


def _unwrapped(document: dict[str, Any]) -> Any:
    if len(document) == 1:
        for name, kind in (("list", list), ("struct", dict)):
            if isinstance(document.get(name), kind):
                return document[name]
    return document


def _whole(value: Any) -> Any:
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        return {name: _whole(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return value


def _batches(ids: Sequence[int]) -> list[Sequence[int]]:
    return [ids[first : first + BATCH] for first in range(0, len(ids), BATCH)]
