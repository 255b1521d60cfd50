import io
import json
import logging
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

import pytest

from kfp_operator.operator.logging import JsonLines, Lines, configure
from kfp_operator.settings import LogSettings

ours = logging.getLogger("kfp_operator.operator.something")
Level = Literal["debug", "info", "warning", "error"]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root, package = logging.getLogger(), logging.getLogger("kfp_operator")
    handlers, levels = list(root.handlers), (root.level, package.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    package.setLevel(levels[1])
    logging.captureWarnings(capture=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def to(stream: io.StringIO, form: Literal["text", "json"] = "text", level: Level = "info") -> io.StringIO:
    configure(LogSettings(format=form, level=level), stream)
    return stream


def documents(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail(text: str) -> None:
    raise ValueError(text)


def test_a_line_for_people_is_time_level_message() -> None:
    out = to(io.StringIO())
    ours.warning("Run %s waits", "team/a")
    day, time, rest = out.getvalue().split(" ", 2)
    assert datetime.fromisoformat(f"{day} {time}").year >= 2024
    assert rest == "WARNING  Run team/a waits\n"


def test_colours_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    out = to(Terminal())
    ours.error("red")
    assert "\x1b[31mERROR" in out.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    for plain in (to(io.StringIO()), to(Terminal())):
        ours.error("not red")
        assert "\x1b" not in plain.getvalue()


def test_json_has_time_level_logger_message_and_extras() -> None:
    out = to(io.StringIO(), "json")
    ours.info("Run %s started", "team/a", extra={"run": "team/a", "attempt": 2, "odd": {1}, "nan": float("nan"), "time": "mine"})
    (document,) = documents(out)
    time = document.pop("time")
    assert time.endswith("Z")
    assert datetime.fromisoformat(time).tzinfo is not None
    assert document == {
        "level": "info",
        "logger": "kfp_operator.operator.something",
        "message": "Run team/a started",
        "run": "team/a",
        "attempt": 2,
        "odd": "{1}",
        "nan": "nan",
    }


def test_exceptions_are_shown_in_both_forms() -> None:
    out, text = to(io.StringIO(), "json"), io.StringIO()
    for _ in range(2):
        try:
            fail("broken\nin two lines")
        except ValueError:
            ours.exception("it failed")
        to(text)
    (document,) = documents(out)
    assert document["exception"].startswith("Traceback")
    assert document["exception"].endswith("ValueError: broken\nin two lines")
    first, *rest = text.getvalue().splitlines()
    assert first.endswith("ERROR    it failed")
    assert all(line.startswith("  ") for line in rest)
    assert "  ValueError: broken" in rest


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_others_wrote_is_one_line_and_steers_no_terminal(form: Literal["text", "json"]) -> None:
    out = to(io.StringIO(), form)
    ours.info("state\n2026-01-01 00:00:00 ERROR forged \x1b[2J \u2028 \x9b \udc80")
    assert len(out.getvalue().splitlines()) == 1
    assert not set("\x1b\u2028\x9b") & set(out.getvalue())


@pytest.mark.parametrize("level", ["debug", "info"])
@pytest.mark.parametrize(
    "name",
    ["kopf.objects", "kopf._core.reactor.queueing", "aiohttp.access", "kubernetes.client.rest", "urllib3", "nats.aio.client", "asyncio"],
)
def test_libraries_speak_from_warning_on(name: str, level: Level) -> None:
    out = to(io.StringIO(), "json", level)
    library = logging.getLogger(name)
    library.debug("noise")
    library.info("noise")
    library.warning("a problem")
    assert [document["message"] for document in documents(out)] == ["a problem"]


def test_a_line_for_people_names_the_library_that_speaks() -> None:
    out = to(io.StringIO())
    logging.getLogger("aiohttp.server").error("a problem")
    assert out.getvalue().endswith("ERROR    aiohttp.server: a problem\n")


def test_what_kopf_warns_of_and_is_so_on_purpose_is_left_out() -> None:
    out = to(io.StringIO())
    logging.getLogger("kopf._core.reactor.running").warning("OS signals are ignored: running not in the main thread.")
    assert out.getvalue() == ""


@pytest.mark.parametrize(("level", "seen"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_holds_for_our_own_log(level: Level, seen: int) -> None:
    out = to(io.StringIO(), "text", level)
    for say in (ours.debug, ours.info, ours.warning, ours.error):
        say("x")
    assert len(out.getvalue().splitlines()) == seen


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "secret",
    [
        "nats://operator:hunter2secret@nats:4222",
        "Authorization: Bearer hunter2secret",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.hunter2secret",
        "SUAMLK2ZNL35WSMW37E7UD4VZ7ELPKW7DHC3BWBSD2GCZ7IUQQXZIORRBU",
    ],
)
def test_secrets_are_not_repeated(form: Literal["text", "json"], secret: str) -> None:
    out = to(io.StringIO(), form)
    try:
        fail(secret)
    except ValueError:
        ours.exception("cannot use %s", secret, extra={"given": {"value": secret}})
    assert "hunter2secret" not in out.getvalue()
    assert "SUAMLK" not in out.getvalue()
    assert "cannot use" in out.getvalue()


def test_configuring_again_replaces_our_handler_and_leaves_others() -> None:
    foreign = logging.NullHandler()
    logging.getLogger().addHandler(foreign)
    first, second = to(io.StringIO()), to(io.StringIO())
    ours.info("once")
    assert (len(first.getvalue()), second.getvalue().count("once")) == (0, 1)
    assert foreign in logging.getLogger().handlers


def test_warnings_of_python_are_in_the_log_too() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        out = to(io.StringIO(), "json")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    (document,) = documents(out)
    assert (document["logger"], "old ways" in document["message"]) == ("py.warnings", True)


def test_formatters_serve_any_handler() -> None:
    record = logging.makeLogRecord({"name": "kfp_operator", "msg": "x", "levelname": "INFO", "levelno": logging.INFO, "created": 0.0})
    assert JsonLines().format(record).startswith('{"time": "1970-01-01T00:00:00.000Z"')
    assert Lines().format(record).endswith("INFO     x")
