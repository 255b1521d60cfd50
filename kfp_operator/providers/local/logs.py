"""Reading a run's log while it grows and while its middle is thrown away (see `driver.Log`)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from kfp_operator.providers.local import driver
from kfp_operator.providers.local.folder import RunFolder

_MAX_LINE = 65536
_POLL = 0.2


class LogReader:
    """Reads on from where it was. `skipped` counts bytes that were gone before they were read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._position = 0

    def read(self, limit: int = 1 << 20) -> tuple[int, bytes]:
        """Bytes that are gone for good, and those after them, at most `limit`; empty at the present end."""
        starts = sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())
        for index, start in enumerate(starts):
            following = starts[index + 1] if index + 1 < len(starts) else None
            try:
                with (self._folder / f"{start:020d}").open("rb") as file:
                    if self._position < start:
                        gone, self._position = start - self._position, start
                    else:
                        gone = 0
                    file.seek(self._position - start)
                    data = file.read(limit)
            except FileNotFoundError:
                continue  # thrown away just now: the next one tells how much
            self._position += len(data)
            if gone or data:
                return gone, data
            if following is None:
                break
        return 0, b""


async def lines(folder: RunFolder, *, follow: bool) -> AsyncIterator[str]:
    """The run's log by lines, without line ends; with `follow` until the run has ended. Bytes that are not UTF-8 become U+FFFD."""
    reader = LogReader(folder.path / driver.LOG)
    rest = b""
    while True:
        ended = not follow or folder.result() is not None  # before the read: what comes after it is in the read
        gone, data = await asyncio.to_thread(reader.read)
        if gone:
            if rest:
                yield rest.decode(errors="replace")
            rest = b""
            yield f"[... {gone} bytes of log were not kept ...]"
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            for begin in range(0, max(len(line), 1), _MAX_LINE):
                yield line[begin : begin + _MAX_LINE].decode(errors="replace").rstrip("\r")
        while len(rest) > _MAX_LINE:
            yield rest[:_MAX_LINE].decode(errors="replace")
            rest = rest[_MAX_LINE:]
        if not data:
            if ended:
                break
            await asyncio.sleep(_POLL)
    if rest:
        yield rest.decode(errors="replace")
