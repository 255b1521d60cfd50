import json

import pytest

from kfp_operator.cli.exits import ExitCode
from kfp_operator.events import schemas
from tests.unit.cli.invoking import invoke


def test_the_schema_of_an_event_is_printed_by_its_short_name_and_its_type() -> None:
    short = invoke("events", "schema", "run-completion")
    assert json.loads(short.stdout) == schemas.schema("run-completion")
    assert invoke("events", "schema", "org.kubeflow.pipelines.run-completion").stdout == short.stdout


def test_all_schemas_are_one_document_by_event_type() -> None:
    assert json.loads(invoke("events", "schema").stdout) == schemas.schemas()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--status-only", "--completions"], "exclude each other"),
        (["--since", "yesterday"], "is not new, all or a length of time"),
        (["--since", "5000000w"], "is not new, all or a length of time"),
        (["--count", "0"], "--count"),
        (["--output", "yaml"], "--output"),
        (["--nats", "http://x"], "nats"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(args: list[str], told: str) -> None:
    result = invoke("events", "watch", *args)
    assert result.exit_code == ExitCode.USAGE
    assert told in " ".join(result.stderr.split())
