import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from kfp_operator.errors import ConfigurationError
from kfp_operator.events.senders import Senders
from kfp_operator.operator.senders_file import SendersFile
from tests.doubles.deliveries import SECRET
from tests.waiting import eventually_async

PROMPTLY = 10.0
HOOK = {"namespace": "team-a", "name": "penguins", "type": "github"}


def token(name: str) -> dict[str, object]:
    return {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "namespaces": ["team-a"]}


def write(path: Path, *names: str, hooks: tuple[dict[str, object], ...] = ()) -> Path:
    path.write_text(yaml.safe_dump({"tokens": [token(name) for name in names], "connections": list(hooks)}))
    return path


def names(file: SendersFile) -> list[str]:
    return [one.name for one in file.current.tokens]


@asynccontextmanager
async def following(file: SendersFile) -> AsyncIterator[None]:
    file.read()
    task = asyncio.create_task(file.follow(every=0.02))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_what_the_file_says_is_in_force(tmp_path: Path) -> None:
    heard: list[Senders] = []
    file = SendersFile(write(tmp_path / "senders.yaml", "one"), changed=heard.append)
    file.read()
    assert (names(file), heard, file.describe()) == (["one"], [file.current], "1 tokens, 0 connections")


def test_secrets_come_from_files_beside_it_or_from_variables(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    hooks = ({**HOOK, "secretFile": "secret"}, {**HOOK, "name": "other", "secretEnv": "OTHER"})
    file = SendersFile(write(tmp_path / "senders.yaml", hooks=hooks), {"OTHER": "the-secret-of-the-other"})
    file.read()
    assert file.current.secrets == {"/hooks/team-a/penguins": (SECRET,), "/hooks/team-a/other": ("the-secret-of-the-other",)}
    assert SECRET not in repr(file.current)


@pytest.mark.parametrize(
    ("hook", "told"),
    [
        ({**HOOK, "secretFile": "missing"}, "secretFile of /hooks/team-a/penguins: "),
        ({**HOOK, "secretFile": "."}, "Is a directory"),
        ({**HOOK, "secretEnv": "MISSING"}, "variable MISSING, secretEnv of /hooks/team-a/penguins, holds no secret"),
    ],
)
def test_a_secret_that_is_not_there_is_told(tmp_path: Path, hook: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SendersFile(write(tmp_path / "senders.yaml", hooks=(hook,)), {}).read()
    assert told in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"inbound.tokensFile: .*missing.yaml cannot be read: No such file"):
        SendersFile(tmp_path / "missing.yaml").read()


async def test_the_file_is_read_again_when_it_was_written(tmp_path: Path) -> None:
    file = SendersFile(write(tmp_path / "senders.yaml", "one"))
    async with following(file):
        write(tmp_path / "senders.yaml", "one", "two")
        await eventually_async(lambda: names(file) == ["one", "two"], PROMPTLY, "the new token is known")


async def test_the_file_is_read_again_when_it_was_swapped_behind_a_link(tmp_path: Path) -> None:
    """As Kubernetes updates the files of a Secret: senders.yaml -> ..data/senders.yaml, and ..data -> a new folder."""
    for folder, name in (("v1", "one"), ("v2", "two")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "senders.yaml", name)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "senders.yaml").symlink_to("..data/senders.yaml")
    file = SendersFile(tmp_path / "senders.yaml")
    async with following(file):
        (tmp_path / "new").symlink_to("v2")
        os.replace(tmp_path / "new", tmp_path / "..data")  # noqa: PTH105 -- as the kubelet does it, in one step
        await eventually_async(lambda: names(file) == ["two"], PROMPTLY, "the new file is in force")


async def test_a_secret_is_read_again_when_it_changes(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    file = SendersFile(write(tmp_path / "senders.yaml", hooks=({**HOOK, "secretFile": "secret"},)))
    async with following(file):
        (tmp_path / "secret").write_text(f"a-new-secret-of-ours\n{SECRET}")
        await eventually_async(
            lambda: file.current.secrets["/hooks/team-a/penguins"] == ("a-new-secret-of-ours", SECRET), PROMPTLY, "both secrets are good"
        )


async def test_what_cannot_be_used_changes_nothing_until_it_is_mended(tmp_path: Path) -> None:
    file = SendersFile(write(tmp_path / "senders.yaml", "one"))
    async with following(file):
        (tmp_path / "senders.yaml").write_text("tokens: {")
        await eventually_async(lambda: "is not YAML" in file.problem, PROMPTLY, "the problem is told")
        assert names(file) == ["one"]
        (tmp_path / "senders.yaml").unlink()
        await eventually_async(lambda: "cannot be read" in file.problem, PROMPTLY, "the problem is told")
        assert names(file) == ["one"]
        write(tmp_path / "senders.yaml", "two")
        await eventually_async(lambda: names(file) == ["two"] and not file.problem, PROMPTLY, "the mended file is in force")


async def test_a_secret_that_comes_later_completes_the_file(tmp_path: Path) -> None:
    file = SendersFile(write(tmp_path / "senders.yaml", "one"))
    async with following(file):
        write(tmp_path / "senders.yaml", "one", hooks=({**HOOK, "secretFile": "secret"},))
        await eventually_async(lambda: "secretFile" in file.problem, PROMPTLY, "the missing secret is told")
        (tmp_path / "secret").write_text(SECRET)
        await eventually_async(lambda: len(file.current.connections) == 1 and not file.problem, PROMPTLY, "the connection is known")
