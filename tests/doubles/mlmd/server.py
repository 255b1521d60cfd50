"""MLMD behind gRPC and its recorder behind HTTP: ``python server.py GRPC_PORT HTTP_PORT``, in the environment of `environment.py`.

The extension has one function per RPC, bytes in and bytes out, and its store is for one thread at a time.
"""

import http.server
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import struct_pb2
from ml_metadata.metadata_store.pywrap.metadata_store_extension import metadata_store as ext
from ml_metadata.proto import metadata_store_pb2 as pb
from ml_metadata.proto import metadata_store_service_pb2 as rpc

SERVICE = "/ml_metadata.MetadataStoreService"
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Store:
    """The engine, with a database in memory."""

    def __init__(self) -> None:
        config = pb.ConnectionConfig()
        config.fake_database.SetInParent()
        self._lock = threading.Lock()
        self._store = ext.CreateMetadataStore(config.SerializeToString(), pb.MigrationOptions().SerializeToString())

    def call(self, method: str, request: bytes) -> tuple[bytes, str, int]:
        """Answer, message and gRPC code of one RPC."""
        with self._lock:
            answer, message, code = getattr(ext, method)(self._store, request)
        return answer, message if isinstance(message, str) else message.decode(), code

    def do(self, method: str, **members: Any) -> Any:
        """One RPC, with its messages."""
        request = getattr(rpc, f"{method}Request")(**members)
        answer, message, code = self.call(method, request.SerializeToString())
        if code:
            raise RuntimeError(f"{method}: {message} ({code})")
        response = getattr(rpc, f"{method}Response")()
        response.ParseFromString(answer)
        return response


class Rpcs(grpc.GenericRpcHandler):
    """All RPCs of the service."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of a method."""
        service, _, method = handler_call_details.method.rpartition("/")
        if service != SERVICE or not hasattr(ext, method):
            return None

        def call(request: bytes, context: grpc.ServicerContext) -> bytes:
            answer, message, code = self._store.call(method, request)
            if code:
                context.abort(CODES[code], message)
            return answer

        return grpc.unary_unary_rpc_method_handler(call)


class Recorder:
    """Writes runs as KFP's driver and launcher do."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._executions: dict[tuple[str, str], int] = {}
        self._artifacts: dict[str, int] = {}

    def record(self, run: dict[str, Any]) -> None:
        """Contexts, executions, artifacts and events of a run."""
        session = json.dumps({"Provider": "minio", "Params": {"endpoint": "minio-service.kubeflow:9000"}})
        pipeline = self._context("system.Pipeline", run["pipeline"], {})
        root = f"{run['pipeline_root']}/{run['pipeline']}/{run['run_id']}"
        metadata = {"namespace": run["namespace"], "resource_name": "run-resource", "pipeline_root": root, "store_session_info": session}
        context, parent = self._context("system.PipelineRun", run["run_id"], metadata), pipeline
        known = self._store.do("GetParentContextsByContext", context_id=context.id).contexts
        if not known:
            self._store.do("PutParentContexts", parent_contexts=[pb.ParentContext(child_id=context.id, parent_id=parent.id)])
        for execution in run["executions"]:
            self._execution(run, execution, [pipeline, context], session)

    def _context(self, kind: str, name: str, metadata: dict[str, Any]) -> Any:
        type_id = self._store.do("PutContextType", context_type=pb.ContextType(name=kind)).type_id
        found = self._store.do("GetContextByTypeAndName", type_name=kind, context_name=name)
        if not found.HasField("context"):
            made = pb.Context(name=name, type_id=type_id)
            for key, text in metadata.items():
                made.custom_properties[key].string_value = text
            self._store.do("PutContexts", contexts=[made])
            found = self._store.do("GetContextByTypeAndName", type_name=kind, context_name=name)
        return found.context

    def _execution(self, run: dict[str, Any], given: dict[str, Any], contexts: list[Any], session: str) -> None:
        type_id = self._store.do("PutExecutionType", execution_type=pb.ExecutionType(name=given["type"])).type_id
        key = (run["run_id"], given["key"] or given["task"])
        execution = pb.Execution(type_id=type_id, last_known_state=pb.Execution.State.Value(given["state"]))
        if key in self._executions:
            execution.id = self._executions[key]
        if not given["parent"]:
            execution.name = f"run/{run['run_id']}"
        properties = execution.custom_properties
        properties["task_name"].string_value = given["task"]
        properties["display_name"].string_value = given["task"]
        if given["parent"]:
            properties["parent_dag_id"].int_value = self._executions[run["run_id"], given["parent"]]
        if given["iteration"] is not None:
            properties["iteration_index"].int_value = given["iteration"]
        if given["type"] == "system.ContainerExecution":
            properties["pod_name"].string_value = f"{run['pipeline']}-pod"
            properties["namespace"].string_value = run["namespace"]
            properties["image"].string_value = "python:3.11"
        if given["state"] == "CACHED":
            properties["cached_execution_id"].string_value = "1"
        if given["parameters"]:
            properties["outputs"].struct_value.update(given["parameters"])
        pairs = [self._pair(a, pb.Event.OUTPUT, session) for a in given["outputs"]]
        pairs += [self._pair(a, pb.Event.INPUT, session) for a in given["inputs"]]
        answer = self._store.do("PutExecution", execution=execution, contexts=contexts, artifact_event_pairs=pairs)
        self._executions[key] = answer.execution_id
        for artifact, number in zip([*given["outputs"], *given["inputs"]], answer.artifact_ids, strict=True):
            if artifact["key"]:
                self._artifacts[artifact["key"]] = number

    def _pair(self, given: dict[str, Any], kind: int, session: str) -> Any:
        event = pb.Event(type=kind, path=pb.Event.Path(steps=[pb.Event.Path.Step(key=given["output"])]))
        known = self._artifacts.get(given["key"]) if given["key"] else None
        if known is not None:
            event.artifact_id = known
            return rpc.PutExecutionRequest.ArtifactAndEvent(event=event)
        type_id = self._store.do("PutArtifactType", artifact_type=pb.ArtifactType(name=given["type"])).type_id
        artifact = pb.Artifact(type_id=type_id, uri=given["uri"], state=pb.Artifact.LIVE)
        artifact.custom_properties["display_name"].string_value = given["output"]
        artifact.custom_properties["store_session_info"].string_value = session
        for name, value in given["metadata"].items():
            artifact.custom_properties[name].CopyFrom(encoded(value))
        return rpc.PutExecutionRequest.ArtifactAndEvent(artifact=artifact, event=event)


def encoded(value: Any) -> Any:
    """A value of metadata as the launcher writes it: booleans as 0 and 1, lists and mappings inside a struct."""
    made = pb.Value()
    if isinstance(value, bool):
        made.int_value = int(value)
    elif isinstance(value, int | float):
        made.double_value = value
    elif isinstance(value, str):
        made.string_value = value
    else:
        wrapped = struct_pb2.Struct()
        wrapped.update({"list" if isinstance(value, list) else "struct": value})
        made.struct_value.CopyFrom(wrapped)
    return made


def serve(grpc_port: int, http_port: int) -> None:
    """Answer until killed."""
    store = Store()
    server = grpc.server(ThreadPoolExecutor(max_workers=4), handlers=[Rpcs(store)], options=[("grpc.so_reuseport", 0)])
    if not server.add_insecure_port(f"127.0.0.1:{grpc_port}"):
        sys.exit(f"port {grpc_port} is in use")
    server.start()
    recorder = Recorder(store)

    class Handler(http.server.BaseHTTPRequestHandler):
        """GET: it runs; POST: a run to record."""

        def do_GET(self) -> None:
            """Say that it runs."""
            self._answer(200, "ready")

        def do_POST(self) -> None:
            """Record a run."""
            try:
                recorder.record(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            except (RuntimeError, LookupError, ValueError, TypeError) as error:
                self._answer(400, f"{type(error).__name__}: {error}")
            else:
                self._answer(200, "recorded")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Say nothing."""

        def _answer(self, code: int, text: str) -> None:
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    http.server.HTTPServer(("127.0.0.1", http_port), Handler).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
