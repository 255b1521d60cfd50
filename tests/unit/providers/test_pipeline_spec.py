"""The protobuf messages come without the KFP SDK, and get along with it."""

import subprocess
import sys


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_checking_a_pipeline_imports_neither_the_sdk_nor_a_kubernetes_client() -> None:
    assert python("import sys, kfp_operator.providers.ir; print({'kfp', 'kubernetes'} & set(sys.modules))") == "set()"
