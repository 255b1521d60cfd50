"""The operator's log, on standard error: lines for people, or JSON for machines.

The level that is set is that of our own loggers. Libraries speak from WARNING on, whatever it is: Kopf logs each object it handles,
aiohttp each request for /metrics, and the HTTP clients, at debug, whole requests with the tokens in them. What looks like a secret all
the same (a password in a URL, a bearer token, an nkey seed) is replaced in the finished line, tracebacks included.
"""

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from kfp_operator.settings import LogSettings

OURS = "kfp_operator"
_SECRETS = re.compile(
    r"""(?<=://)[^/@\s"']+(?=@)"""  # user:password in a URL
    r"""|(?<=\bBearer )[^\s"',]+"""
    r"""|\beyJ[\w-]+\.eyJ[\w-]+\.[\w-]*"""  # a JWT
    r"""|\bS[UAONCX][A-Z2-7]{56}\b"""  # an nkey seed
)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_KOPFS = frozenset({"settings", "k8s_skip"})  # what Kopf passes to its own handlers
_NO_NEWS = ("OS signals are ignored",)  # Kopf runs beside the main thread on purpose
_COLOURS = {logging.DEBUG: "2", logging.INFO: "32", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Log as `settings` say, to `stream` (default: standard error). May be called again; foreign handlers stay."""
    root, level = logging.getLogger(), getattr(logging, settings.level.upper())
    for handler in [one for one in root.handlers if isinstance(one, _Handler)]:
        root.removeHandler(handler)
    root.addHandler(_Handler(sys.stderr if stream is None else stream, settings.format))
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger(OURS).setLevel(level)
    logging.captureWarnings(capture=True)


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that `configure` finds it again."""

    def __init__(self, stream: TextIO, form: str) -> None:
        super().__init__(stream)
        colour = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.setFormatter(JsonLines() if form == "json" else Lines(colour=colour))
        self.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.name.startswith("kopf") and record.getMessage().startswith(_NO_NEWS))


class Lines(logging.Formatter):
    """``2026-03-01 12:00:00 WARNING  message``, in local time; a traceback follows, indented."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        level = f"{record.levelname:<8}"
        if self._colour:
            time, level = f"\x1b[2m{time}\x1b[0m", f"\x1b[{_COLOURS.get(record.levelno, '0')}m{level}\x1b[0m"
        who = "" if record.name.split(".")[0] == OURS else f"{record.name}: "
        text = _CONTROL.sub(_spelled, who + record.getMessage())
        for detail in _details(self, record).values():
            text += "\n  " + "\n  ".join(_CONTROL.sub(_spelled, line) for line in detail.split("\n"))
        return f"{time} {level} {_redacted(text)}"


class JsonLines(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, logger, message, exception or stack if any, and what the call gave as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        document: dict[str, Any] = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_details(self, record),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and name not in _KOPFS:
                document.setdefault("object" if name == "k8s_ref" else name, _plain(value))
        return _redacted(json.dumps(document))


def _details(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, str]:
    found = {}
    if record.exc_info and record.exc_info[0] is not None:
        found["exception"] = formatter.formatException(record.exc_info)
    elif record.exc_text:
        found["exception"] = record.exc_text
    if record.stack_info:
        found["stack"] = formatter.formatStack(record.stack_info)
    return found


def _plain(value: object) -> object:
    """A value that JSON can hold."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return str(value)
    return value


def _spelled(character: re.Match[str]) -> str:
    """A control character as an escape: what others wrote must not start a line of its own, nor steer a terminal."""
    return character[0].encode("unicode_escape").decode()


def _redacted(text: str) -> str:
    return _SECRETS.sub("...", text)
