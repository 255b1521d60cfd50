"""What a metadata store tells Google's own client of a run: ``python reading.py HOST PORT RUN_ID``, in the environment of the engine."""

import json
import sys
from typing import Any

from google.protobuf import json_format
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as pb


def read(host: str, port: int, run_id: str) -> list[dict[str, Any]]:
    """Every output of every execution of the run, in the order of the executions."""
    config = pb.MetadataStoreClientConfig(host=host, port=port)
    store = metadata_store.MetadataStore(config)
    context = store.get_context_by_type_and_name("system.PipelineRun", run_id)
    if context is None:
        return []
    executions = {e.id: e for e in store.get_executions_by_context(context.id)}
    events = [e for e in store.get_events_by_execution_ids(list(executions)) if e.type == pb.Event.OUTPUT]
    artifacts = {a.id: a for a in store.get_artifacts_by_id([e.artifact_id for e in events])}
    return [_output(executions[e.execution_id], e, artifacts[e.artifact_id]) for e in sorted(events, key=lambda e: e.execution_id)]


def _output(execution: Any, event: Any, artifact: Any) -> dict[str, Any]:
    return {
        "task": execution.custom_properties["task_name"].string_value,
        "state": pb.Execution.State.Name(execution.last_known_state),
        "output": event.path.steps[0].key,
        "type": artifact.type,
        "uri": artifact.uri,
        "properties": {key: json_format.MessageToDict(value) for key, value in artifact.custom_properties.items()},
        "artifact": artifact.id,
    }


if __name__ == "__main__":
    print(json.dumps(read(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
