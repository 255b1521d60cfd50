from pathlib import Path

import pytest

from kfp_operator.cli.feed import private_server_file, servers
from kfp_operator.errors import ConfigurationError
from kfp_operator.settings import NatsSettings, Settings


def write_url(settings: Settings, url: str) -> None:
    file = private_server_file(settings)
    file.parent.mkdir(parents=True)
    file.write_text(url + "\n")


def test_a_server_that_is_set_beats_the_private_one(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, nats=NatsSettings(servers=["nats://a:4222"]))
    write_url(settings, "nats://b:4222")
    assert servers(settings).servers == ["nats://a:4222"]


def test_the_private_server_is_taken_when_none_is_set(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    write_url(settings, "nats://127.0.0.1:4222")
    assert servers(settings).servers == ["nats://127.0.0.1:4222"]


def test_without_either_the_message_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--nats URL, or set nats.servers \(KFPOP_NATS__SERVERS\)"):
        servers(Settings(state_dir=tmp_path))


def test_an_address_that_cannot_be_read_is_told_from_one_that_is_missing(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    private_server_file(settings).mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="cannot read the address"):
        servers(settings)
