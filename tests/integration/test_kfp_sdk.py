"""What the KFP SDK makes is taken, and both get along in one process."""

import subprocess
import sys
from pathlib import Path

import pytest

from kfp_operator.api.run import Parameter
from kfp_operator.providers.ir import bind_parameters, parse_text


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_the_sdk_may_be_imported_before_or_after() -> None:
    sdk = "from kfp.pipeline_spec import pipeline_spec_pb2 as theirs"
    ours = "from kfp_operator.providers.pipeline_spec import messages as ours"
    same = "print(ours.PipelineSpec.FromString(theirs.PipelineSpec(schema_version='2.1.0').SerializeToString()).schema_version)"
    assert python(f"{ours}; {sdk}; {same}") == python(f"{sdk}; {ours}; {same}") == "2.1.0"


def test_what_the_kfp_compiler_writes_is_taken(tmp_path: Path) -> None:
    dsl = pytest.importorskip("kfp.dsl")
    compiler = pytest.importorskip("kfp.compiler")

    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def train(runs: int, rate: float) -> str:
        return f"{runs} {rate}"

    @dsl.pipeline(name="penguin-pipeline")
    def penguin(runs: int, rate: float = 0.5) -> None:
        train(runs=runs, rate=rate)

    compiler.Compiler().compile(penguin, str(tmp_path / "pipeline.yaml"))
    ir = parse_text((tmp_path / "pipeline.yaml").read_text())
    assert (ir.name, sorted(ir.parameters), ir.parameters["rate"].required) == ("penguin-pipeline", ["rate", "runs"], False)
    assert bind_parameters(ir, [Parameter(name="runs", value="3")]) == {"runs": 3}
