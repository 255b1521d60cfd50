from io import StringIO

import pytest
from rich.console import Console

from kfp_operator.cli.report import Finding, fail, ok, show, warn


@pytest.mark.parametrize(
    ("finding", "line"),
    [
        (ok("NATS", "there"), "ok    NATS         there\n"),
        (warn("CRD", "old"), "warn  CRD          old\n"),
        (fail("CRD", "kind [Run] is missing", "apply\nit"), "FAIL  CRD          kind [Run] is missing. Remedy: apply it\n"),
    ],
)
def test_a_finding_is_one_line(finding: Finding, line: str) -> None:
    output = StringIO()
    show(finding, Console(file=output, width=20))
    assert output.getvalue() == line
