"""From a Python file with a KFP pipeline to a Pipeline manifest.

The file is run in a process of its own: it is the user's code, it may print and exit, and kfp takes half a second and 80 MB to import.
"""

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import yaml

from kfp_operator.api.names import DEFAULT_GROUP, VERSION
from kfp_operator.errors import ConfigurationError, InvalidSpec

DEFAULT_PROVIDER = "default/local"
TIMEOUT = 300.0
"""Seconds that the file may take."""
_STDERR = 2


def build_manifest(
    path: Path, function: str | None = None, *, name: str | None = None, provider: str | None = None, api_group: str = DEFAULT_GROUP
) -> dict[str, Any]:
    """A Pipeline manifest with the compiled IR inline.

    Args:
        path: The Python file. Modules beside it can be imported, as if it were run as a script.
        function: The pipeline's name in the file; may be None when there is one.
        name: `metadata.name`; default: the pipeline's own name, as far as Kubernetes allows it.
        provider: `spec.provider`, as namespace/name; default: `DEFAULT_PROVIDER`.
        api_group: The setting `apiGroup`.

    Raises:
        InvalidSpec: The file cannot be run, or does not define that pipeline, or more than one and `function` says not which.
        ConfigurationError: kfp is not installed.

    """
    if not path.is_file():
        raise InvalidSpec(f"there is no file {path}")
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", __name__, str(path.resolve()), function or "", str(answer)]
        try:
            code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=_STDERR, timeout=TIMEOUT, check=False).returncode
        except subprocess.TimeoutExpired:
            raise InvalidSpec(f"{path} did not finish within {TIMEOUT:.0f} s") from None
        if not answer.exists():
            raise InvalidSpec(f"{path} ended Python with code {code} before its pipeline could be compiled")
        document = json.loads(answer.read_text(encoding="utf-8"))
    if "missing" in document:
        raise ConfigurationError("kfp is needed to compile pipelines: pip install 'kfp-operator[local]'")
    if "error" in document:
        raise InvalidSpec(f"{path}: {document['error']}")
    spec, *platform = document["documents"]
    return {
        "apiVersion": f"{api_group}/{VERSION}",
        "kind": "Pipeline",
        "metadata": {"name": name or _resource_name(spec["pipelineInfo"]["name"])},
        "spec": {
            "provider": provider or DEFAULT_PROVIDER,
            "pipelineSpec": {"pipelineSpec": spec, "platformSpec": platform[0]} if platform else spec,
        },
    }


def to_yaml(manifest: dict[str, Any]) -> str:
    """The manifest as text, with code as block text that people can read and diff."""
    return yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    pass


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _resource_name(name: str) -> str:
    """The nearest DNS subdomain: kfp allows any text."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:253] or "pipeline"


def _compile(path: Path, function: str) -> dict[str, Any]:
    """In the child: the compiled documents, or why there are none."""
    try:
        from kfp.compiler import Compiler
        from kfp.dsl import base_component, graph_component
    except ImportError:
        return {"missing": "kfp"}
    sys.path[0] = str(path.parent)
    sys.argv = [str(path)]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        return {"error": "is not a Python file"}
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
        pipelines = {
            key: value
            for key, value in vars(module).items()
            if isinstance(value, graph_component.GraphComponent) and value.pipeline_func.__module__ == path.stem
        }
        if function:
            pipeline = getattr(module, function, None)
            if not isinstance(pipeline, base_component.BaseComponent):
                return {"error": f"{function} is not a pipeline; there are {', '.join(pipelines) or 'none'} (functions with @dsl.pipeline)"}
        elif len(pipelines) != 1:
            return {"error": f"defines {len(pipelines)} pipelines ({', '.join(pipelines)}): say which, as {path.name}:NAME"}
        else:
            pipeline = next(iter(pipelines.values()))
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder) / "pipeline.yaml"
            Compiler().compile(pipeline, str(package))
            return {"documents": list(yaml.safe_load_all(package.read_text(encoding="utf-8")))}
    except Exception as error:  # noqa: BLE001 - whatever the user's code or the compiler raise is told, with its traceback
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    Path(sys.argv[3]).write_text(json.dumps(_compile(Path(sys.argv[1]), sys.argv[2])), encoding="utf-8")
