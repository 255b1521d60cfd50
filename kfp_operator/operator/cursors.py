"""How far consumers got, kept where it outlives both this process and a consumer that somebody deletes.

With leader election it stands in the Lease, which every process sees that may lead. Without, there is one process and no Lease: a file
in its state folder. What is lost costs reading again what is stored, which every consumer must bear.
"""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from kfp_operator.events.bus import Cursor

log = logging.getLogger(__name__)

NAME = "cursors.json"


class Cursors(Protocol):
    """Cursors of durable consumers, by name."""

    def get(self, durable: str) -> Cursor | None:
        """The one kept last."""

    def keep(self, durable: str, cursor: Cursor) -> None:
        """Keep it; soon, if not at once."""


class LeaseCursors:
    """In annotations of the Lease, written with its next renewal. `group`: the API group, their prefix."""

    def __init__(self, read: Callable[[], Mapping[str, str]], write: Callable[[Mapping[str, str | None]], None], group: str) -> None:
        self._read = read
        self._write = write
        self._group = group

    def get(self, durable: str) -> Cursor | None:
        """See `Cursors`."""
        return _parsed(self._read().get(self._name(durable), ""))

    def keep(self, durable: str, cursor: Cursor) -> None:
        """See `Cursors`."""
        self._write({self._name(durable): json.dumps(_document(cursor))})

    def _name(self, durable: str) -> str:
        return f"{self._group}/cursor-{durable}"


class FileCursors:
    """In a file of `folder`, replaced as a whole. One that cannot be written is as good as none, and said once."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._kept: dict[str, Cursor] | None = None
        self._trouble = ""

    def get(self, durable: str) -> Cursor | None:
        """See `Cursors`."""
        return self._all().get(durable)

    def keep(self, durable: str, cursor: Cursor) -> None:
        """See `Cursors`."""
        kept = self._all()
        kept[durable] = cursor
        fresh = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps({name: _document(each) for name, each in kept.items()}))
            fresh.replace(self._path)
        except OSError as error:
            if str(error) != self._trouble:
                log.warning("%s cannot be written, so a consumer that is deleted reads all events again: %s", self._path, error)
            self._trouble = str(error)
        else:
            self._trouble = ""

    def _all(self) -> dict[str, Cursor]:
        if self._kept is None:
            try:
                text = self._path.read_text()
            except OSError:
                text = ""
            try:
                found = json.loads(text or "{}")
            except ValueError:
                found = {}
            documents = found.items() if isinstance(found, dict) else ()
            parsed = {name: _parsed(json.dumps(document)) for name, document in documents}
            self._kept = {name: cursor for name, cursor in parsed.items() if cursor is not None}
        return self._kept


def _document(cursor: Cursor) -> dict[str, str | int]:
    return {"created": cursor.created, "sequence": cursor.sequence}


def _parsed(text: str) -> Cursor | None:
    """None for anything that is no cursor: people edit Leases and files."""
    try:
        kept = json.loads(text)
        return Cursor(created=str(kept["created"]), sequence=int(kept["sequence"]))
    except (KeyError, ValueError, TypeError):
        return None
