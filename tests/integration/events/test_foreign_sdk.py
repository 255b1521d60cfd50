"""The JavaScript SDK of CloudEvents decodes what we publish: it shares no code with ours."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kfp_operator.events.binding import ContentMode, encode
from kfp_operator.events.envelope import RunEvent, build
from tests.doubles.events import completion, status

pytestmark = pytest.mark.slow

_SDK = "cloudevents@10"
_SCRIPT = Path(__file__).with_name("decode.mjs")


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the SDK is installed."""
    if not (shutil.which("node") and (npm := shutil.which("npm"))):
        pytest.skip("needs node and npm")
    folder = tmp_path_factory.mktemp("sdk")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), _SDK]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {_SDK} within two minutes")
    if done.returncode:
        pytest.skip(f"npm cannot install {_SDK}: {done.stderr.strip()[-200:]}")
    return folder


def decode(sdk: Path, *messages: tuple[RunEvent, ContentMode]) -> list[dict[str, Any]]:
    sent = []
    for data, mode in messages:
        wire = encode(build(data), mode)
        sent.append({"headers": wire.headers, "body": wire.body.decode()})
    done = subprocess.run(["node", str(_SCRIPT), str(sdk)], input=json.dumps(sent), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    events: list[dict[str, Any]] = json.loads(done.stdout)
    return events


MODES: list[ContentMode] = ["structured", "binary", "compatible"]


@pytest.mark.parametrize(
    "data", [completion(), completion(pipeline_name="team-a/ünïcode 100%"), status()], ids=["completion", "text", "status"]
)
def test_a_foreign_sdk_reads_every_mode(sdk: Path, data: RunEvent) -> None:
    event = build(data)
    attributes = event.get_attributes()
    for mode, decoded in zip(MODES, decode(sdk, *((data, mode) for mode in MODES)), strict=True):
        assert decoded["valid"] is True, mode
        for name in ("id", "specversion", "source", "type", "subject", "dataschema", "datacontenttype", "status", "provider"):
            assert decoded[name] == attributes[name], (mode, name)
        assert decoded["time"].startswith(attributes["time"].strftime("%Y-%m-%dT%H:%M:%S")), mode
        inner = decoded["data"]["data"] if mode == "compatible" else decoded["data"]
        assert inner == event.get_data(), mode
