"""The messages of ML Metadata's gRPC service that are needed, described here field by field.

Their numbers are those of ml_metadata/proto/metadata_store.proto and metadata_store_service.proto (package ml_metadata, proto2), which
change only compatibly. Described in a pool of their own, they neither need the package ml-metadata, which wants an old protobuf, nor
clash with it where it is installed. Fields that are left out here protobuf passes over; enums are numbers on the wire.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

SERVICE = "/ml_metadata.MetadataStoreService/"
_PACKAGE = "kfp_operator_mlmd"
_TYPES: Mapping[str, int] = {
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
}

# name -> (number, type[, "repeated" | "map" | "oneof"])
_Field = tuple[int, str] | tuple[int, str, str]
_MESSAGES: Mapping[str, Mapping[str, _Field]] = {
    "Value": {
        "int_value": (1, "int64", "oneof"),
        "double_value": (2, "double", "oneof"),
        "string_value": (3, "string", "oneof"),
        "struct_value": (4, "google.protobuf.Struct", "oneof"),
        "bool_value": (6, "bool", "oneof"),
    },
    "Artifact": {
        "id": (1, "int64"),
        "type_id": (2, "int64"),
        "uri": (3, "string"),
        "properties": (4, "Value", "map"),
        "custom_properties": (5, "Value", "map"),
        "type": (8, "string"),
    },
    "Execution": {
        "id": (1, "int64"),
        "type_id": (2, "int64"),
        "last_known_state": (3, "int32"),
        "custom_properties": (5, "Value", "map"),
    },
    "Context": {"id": (1, "int64"), "name": (3, "string")},
    "Step": {"index": (1, "int64", "oneof"), "key": (2, "string", "oneof")},
    "Path": {"steps": (1, "Step", "repeated")},
    "Event": {"artifact_id": (1, "int64"), "execution_id": (2, "int64"), "path": (3, "Path"), "type": (4, "int32")},
    "GetContextByTypeAndNameRequest": {"type_name": (1, "string"), "context_name": (2, "string")},
    "GetContextByTypeAndNameResponse": {"context": (1, "Context")},
    "GetExecutionsByContextRequest": {"context_id": (1, "int64")},
    "GetExecutionsByContextResponse": {"executions": (1, "Execution", "repeated")},
    "GetEventsByExecutionIDsRequest": {"execution_ids": (1, "int64", "repeated")},
    "GetEventsByExecutionIDsResponse": {"events": (1, "Event", "repeated")},
    "GetArtifactsByIDRequest": {"artifact_ids": (1, "int64", "repeated")},
    "GetArtifactsByIDResponse": {"artifacts": (1, "Artifact", "repeated")},
}

OUTPUTS = frozenset({1, 4})
"""Event.Type: DECLARED_OUTPUT and OUTPUT."""
SUCCESSFUL = frozenset({3, 5})
"""Execution.State: COMPLETE and CACHED."""


def _build() -> Mapping[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2", dependency=["google/protobuf/struct.proto"]
    )
    for name, fields in _MESSAGES.items():
        _describe(file.message_type.add(name=name), name, fields)
    pool = descriptor_pool.DescriptorPool()
    struct = descriptor_pb2.FileDescriptorProto()
    struct_pb2.DESCRIPTOR.CopyToProto(struct)
    pool.Add(struct)
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES}


def _describe(message: Any, name: str, fields: Mapping[str, Sequence[Any]]) -> None:
    for field, (number, kind, *how) in fields.items():
        added = message.field.add(name=field, number=number, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
        if how == ["map"]:
            entry = message.nested_type.add(name="".join(part.capitalize() for part in field.split("_")) + "Entry")
            entry.options.map_entry = True
            _describe(entry, name, {"key": (1, "string"), "value": (2, kind)})
            added.type_name = f".{_PACKAGE}.{name}.{entry.name}"
        elif kind in _TYPES:
            added.type = _TYPES[kind]
        else:
            added.type_name = f".{kind}" if kind.startswith("google.") else f".{_PACKAGE}.{kind}"
        if how in (["map"], ["repeated"]):
            added.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
        if not added.type:
            added.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
        if how == ["oneof"]:
            if not message.oneof_decl:
                message.oneof_decl.add(name="value")
            added.oneof_index = 0


messages: Mapping[str, Any] = _build()
"""Message classes by name."""
