import asyncio
from pathlib import Path

import pytest

from kfp_operator.providers.local import driver, logs
from kfp_operator.providers.local.driver import Log
from kfp_operator.providers.local.folder import RunFolder
from kfp_operator.providers.local.logs import LogReader


def new(tmp_path: Path, limit: int = 800) -> tuple[RunFolder, Log]:
    return RunFolder(tmp_path), Log(tmp_path / driver.LOG, limit)


def end(folder: RunFolder) -> None:
    driver.create_json(folder.path / driver.RESULT, {"state": "succeeded", "time": driver.now()})


async def read(folder: RunFolder, *, follow: bool = False) -> list[str]:
    return [line async for line in logs.lines(folder, follow=follow)]


async def test_lines_come_back_over_the_borders_of_files(tmp_path: Path) -> None:
    folder, log = new(tmp_path)
    log.write("".join(f"line {n} Grüße\n" for n in range(20)).encode())
    assert await read(folder) == [f"line {n} Grüße" for n in range(20)]


async def test_a_log_without_a_last_line_end_is_whole(tmp_path: Path) -> None:
    folder, log = new(tmp_path)
    log.write(b"one\r\n\ntwo")
    assert await read(folder) == ["one", "", "two"]


async def test_an_empty_log_has_no_lines(tmp_path: Path) -> None:
    folder, _ = new(tmp_path)
    assert await read(folder) == []


async def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    folder, log = new(tmp_path)
    log.write(b"\xff\xfe\n")
    assert await read(folder) == ["\ufffd\ufffd"]


async def test_the_gap_in_a_long_log_is_told_with_its_size(tmp_path: Path) -> None:
    folder, log = new(tmp_path)
    log.write(b"".join(b"%09d\n" % n for n in range(1000)))
    lines = await read(folder)
    assert lines[:40] == [f"{n:09d}" for n in range(40)]
    assert lines[40] == "[... 9200 bytes of log were not kept ...]"
    assert lines[41:] == [f"{n:09d}" for n in range(960, 1000)]


def test_a_reader_that_is_overtaken_learns_how_much_it_missed(tmp_path: Path) -> None:
    _, log = new(tmp_path)
    reader = LogReader(tmp_path / driver.LOG)
    log.write(b"x" * 450)
    seen = gone = 0
    while (step := reader.read())[1]:
        seen, gone = seen + len(step[1]), gone + step[0]
    assert (seen, gone) == (450, 0)
    log.write(b"y" * 10_000)
    while (step := reader.read())[1]:
        seen, gone = seen + len(step[1]), gone + step[0]
    assert seen + gone == 10_450
    assert gone > 0


async def test_a_line_without_end_comes_in_pieces(tmp_path: Path) -> None:
    folder, log = new(tmp_path, 8_000_000)
    log.write(b"x" * 3_000_000)
    lines = await read(folder)
    assert "".join(lines) == "x" * 3_000_000
    assert max(map(len, lines)) <= 65536


async def test_following_goes_on_until_the_run_has_ended(tmp_path: Path) -> None:
    folder, log = new(tmp_path)
    log.write(b"first\nsec")
    lines = logs.lines(folder, follow=True)
    assert await anext(lines) == "first"
    waiting = asyncio.ensure_future(anext(lines))
    log.write(b"ond\nthird")
    assert await waiting == "second"
    end(folder)
    assert await anext(lines) == "third"
    with pytest.raises(StopAsyncIteration):
        await anext(lines)
