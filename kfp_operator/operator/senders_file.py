"""The senders of events from outside, as their file says at this moment.

The file, and the files with secrets that it names, are looked at every few seconds and read again when one of them changed, however that
is done: written in place, replaced, or swapped behind a symbolic link, as Kubernetes does with Secrets. What cannot be used is reported
and changes nothing, so that a slip in the file does not lock everybody out.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from kfp_operator.errors import ConfigurationError
from kfp_operator.events import senders
from kfp_operator.events.senders import Senders
from kfp_operator.events.webhooks.connection import Connection

log = logging.getLogger(__name__)

EVERY = 2.0
"""Seconds between two looks."""
_LARGEST = 4 * 1024 * 1024

Signature = tuple[tuple[str, int, int, int], ...]


def look(paths: list[Path]) -> Signature:
    """What changes when one of the files does; a file that cannot be seen is one that has another state."""
    return tuple((str(path), *_state(path)) for path in paths)


class SendersFile:
    """Keeps `current` as the file is. `changed` is called when there is another one."""

    def __init__(
        self, path: Path, environ: Mapping[str, str] | None = None, *, changed: Callable[[Senders], None] = lambda _: None
    ) -> None:
        self._path = path.expanduser()
        self._environ = os.environ if environ is None else environ
        self._changed = changed
        self._seen: Signature = ()
        self._files = [self._path]
        self.current = Senders()
        """Who may send."""
        self.problem = ""
        """Why the file as it is now is not in force; empty when it is."""

    def read(self) -> None:
        """Read all files; ConfigurationError says what cannot be used, and nothing changes."""
        self._files, self._seen = [self._path], look([self._path])  # before reading: what changes meanwhile is seen next time
        tokens, connections = senders.parse(_text(self._path, "inbound.tokensFile"), str(self._path))
        files = [self._path, *(self._secret_file(one) for one in connections if one.secret_file is not None)]
        self._files, self._seen = files, look(files)
        self.current = Senders(tokens, {one.path: one for one in connections}, {one.path: self._secrets(one) for one in connections})
        self._changed(self.current)

    async def follow(self, every: float = EVERY) -> None:
        """Read again whenever it changed, for ever; `every`: seconds between two looks."""
        while True:
            await asyncio.sleep(every)
            if await asyncio.to_thread(look, self._files) != self._seen:
                self.reread()

    def reread(self) -> None:
        """Read again; `problem` says why what was read before stays in force."""
        try:
            self.read()
        except ConfigurationError as error:
            if self.problem != str(error):
                log.warning("%s; who could send before still can, and nobody else", error)
            self.problem = str(error)
            return
        except Exception as error:  # if this ended, tokens that are revoked later would stay good
            self.problem = f"{self._path}: unexpected {type(error).__name__}"
            log.exception("%s cannot be read; please report this", self._path)
            return
        self.problem = ""
        log.info("%s was read: %s", self._path, self.describe())

    def describe(self) -> str:
        """How many may send."""
        return f"{len(self.current.tokens)} tokens, {len(self.current.connections)} connections"

    def _secret_file(self, connection: Connection) -> Path:
        """Where its secret is; a relative path starts at the folder of the senders' file."""
        return self._path.parent / (connection.secret_file or Path()).expanduser()

    def _secrets(self, connection: Connection) -> tuple[str, ...]:
        if connection.secret_file is not None:
            file = self._secret_file(connection)
            return senders.parse_secrets(_text(file, f"secretFile of {connection.path}"), str(file))
        where = f"variable {connection.secret_env}, secretEnv of {connection.path},"
        return senders.parse_secrets(self._environ.get(connection.secret_env, ""), where)


def _text(path: Path, what: str) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigurationError(f"{what}: {path} is larger than {_LARGEST} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{what}: {path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error


def _state(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        return 0, 0, -(error.errno or 1)
    return found.st_ino, found.st_mtime_ns, found.st_size
