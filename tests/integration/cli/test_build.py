"""These start a child that imports kfp: one to two seconds each, so they are few."""

from pathlib import Path

import pytest
import yaml

from kfp_operator.cli.build import build_manifest, to_yaml
from kfp_operator.errors import InvalidSpec

PREAMBLE = '''\
from kfp import dsl
from names import GREETING

print("a file may print")


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def greet(name: str) -> str:
    """A comment.

    Of several lines."""
    return f"hello {name}"

'''
PIPELINE = """
@dsl.pipeline(name="{name}")
def {function}(who: str = GREETING):
    greet(name=who)

"""


def write(folder: Path, *pipelines: str, preamble: str = PREAMBLE) -> Path:
    (folder / "names.py").write_text('GREETING = "world"\n')
    path = folder / "pipeline.py"
    path.write_text(preamble + "".join(pipelines))
    return path


def pipeline(name: str, function: str) -> str:
    return PIPELINE.format(name=name, function=function)


def test_the_one_pipeline_of_a_file_becomes_a_manifest_that_survives_yaml(tmp_path: Path) -> None:
    manifest = build_manifest(write(tmp_path, pipeline("My Pipeline", "main")))
    assert (manifest["apiVersion"], manifest["kind"]) == ("kfp-operator.dev/v1beta1", "Pipeline")
    assert manifest["metadata"] == {"name": "my-pipeline"}
    assert manifest["spec"]["provider"] == "default/local"
    assert manifest["spec"]["pipelineSpec"]["root"]["inputDefinitions"]["parameters"]["who"]["defaultValue"] == "world"
    text = to_yaml(manifest)
    assert yaml.safe_load(text) == manifest
    assert any(line.strip() == '"""A comment.' for line in text.splitlines()), "code is block text"


def test_one_of_several_must_be_named_and_can_be(tmp_path: Path) -> None:
    path = write(tmp_path, pipeline("one", "first"), pipeline("two", "second"))
    with pytest.raises(InvalidSpec, match=r"defines 2 pipelines \(first, second\): say which, as pipeline.py:NAME"):
        build_manifest(path)
    manifest = build_manifest(path, "second", name="other", provider="mlops/kfp", api_group="pipelines.kubeflow.org")
    assert (manifest["metadata"]["name"], manifest["spec"]["provider"]) == ("other", "mlops/kfp")
    assert manifest["apiVersion"] == "pipelines.kubeflow.org/v1beta1"
    assert manifest["spec"]["pipelineSpec"]["pipelineInfo"]["name"] == "two"


def test_settings_for_the_platform_are_kept_beside_the_pipeline(tmp_path: Path) -> None:
    configured = pipeline("one", "first").replace(
        'name="one"', 'name="one", pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="5Gi"))'
    )
    spec = build_manifest(write(tmp_path, configured))["spec"]["pipelineSpec"]
    assert spec["pipelineSpec"]["pipelineInfo"]["name"] == "one"
    assert "5Gi" in str(spec["platformSpec"])


def test_a_name_that_is_no_pipeline_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="GREETING is not a pipeline; there are first"):
        build_manifest(write(tmp_path, pipeline("one", "first")), "GREETING")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('no data')\n", "ValueError: no data"),
        ("import os\nos._exit(3)\n", "ended Python with code 3"),
        ("import sys\nsys.exit(0)\n", "ended Python with code 0"),
        ("x = (\n", "SyntaxError"),
    ],
)
def test_a_file_that_cannot_be_run_is_told_with_its_reason(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        build_manifest(write(tmp_path, preamble=code))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"there is no file .*nothing\.py"):
        build_manifest(tmp_path / "nothing.py")
