"""The protobuf messages come without the KFP SDK, and get along with it."""

import subprocess
import sys


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_checking_a_pipeline_imports_neither_the_sdk_nor_a_kubernetes_client() -> None:
    assert python("import sys, kfp_operator.providers.ir; print({'kfp', 'kubernetes'} & set(sys.modules))") == "set()"


def test_the_sdk_may_be_imported_before_or_after() -> None:
    sdk = "from kfp.pipeline_spec import pipeline_spec_pb2 as theirs"
    ours = "from kfp_operator.providers.pipeline_spec import messages as ours"
    same = "print(ours.PipelineSpec.FromString(theirs.PipelineSpec(schema_version='2.1.0').SerializeToString()).schema_version)"
    assert python(f"{ours}; {sdk}; {same}") == python(f"{sdk}; {ours}; {same}") == "2.1.0"
