"""KFP's protobuf messages (package kfp-pipeline-spec) without KFP.

The messages live in ``kfp.pipeline_spec``, so importing them runs ``kfp/__init__.py``. Where the SDK is installed too, that imports
all of it with a Kubernetes client: 50 MB and a second or two that an operator, which only checks documents, does not want. The
generated module needs none of it and is loaded from its file.
"""

import importlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_NAME = "kfp.pipeline_spec.pipeline_spec_pb2"


def _load() -> ModuleType:
    if loaded := sys.modules.get(_NAME):
        return loaded
    found = importlib.metadata.distribution("kfp-pipeline-spec").locate_file(f"{_NAME.replace('.', '/')}.py")
    spec = importlib.util.spec_from_file_location(f"{__name__}_pb2", str(found)) if Path(str(found)).is_file() else None
    if spec is None or spec.loader is None:  # packed in another way
        return importlib.import_module(_NAME)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


messages: Any = _load()
"""The generated module: PipelineSpec, PipelineDeploymentConfig, PlatformSpec, ParameterType."""
