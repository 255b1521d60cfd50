"""What runs below the driver, in the interpreter that has kfp: the pipeline, and around each of its steps a small wrapper.

``python -I worker.py pipeline FOLDER`` runs the resolved IR of a run folder with ``kfp.local``. The commands in that IR lead
through ``python -I worker.py step PATH COMPONENT COMMAND...`` (see `rewrite`), which writes the begin and the end of the step to
the run's events, sends what it prints straight to the driver's log (kfp would read it line by line into memory, and fail on bytes
that are not UTF-8) and keeps the end of its stderr to tell why it failed. Needs the standard library and, for the first part, kfp;
copied into each run folder like the driver.
"""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

_KEPT = 16384
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def _driver(folder: Path) -> Any:
    """The copy of the driver next to this file: isolated mode keeps the script's folder out of sys.path."""
    spec = importlib.util.spec_from_file_location("driver", folder / "driver.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "driver.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Plain:
    """Standard output without what kfp writes for a terminal, whether there is one or not: colours, rules, headings, empty lines."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            plain = _ANSI.sub("", line).rstrip()
            if plain.strip(" -") and not plain.endswith(" - INFO - Streamed logs:"):
                self._stream.write(plain + "\n")
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def run_pipeline(folder: Path) -> int:
    """Run the pipeline; 0 when it succeeded, else 1 and an event that says why."""
    driver = _driver(folder)
    submission = json.loads((folder / driver.SUBMISSION).read_text(encoding="utf-8"))
    options = submission["options"]
    os.chdir(folder / driver.WORK)
    sys.stdout = _Plain(sys.stdout)
    try:
        from kfp import components, local

        local.init(
            local.SubprocessRunner(use_venv=options["packages"] == "install"),
            pipeline_root=options["root"],
            workspace_root=str(folder / driver.TEMPORARY / "workspace"),
            raise_on_error=True,
        )
        pipeline = components.load_component_from_file(str(folder / driver.PIPELINE))
        pipeline(**submission["parameters"])
    except Exception as error:  # noqa: BLE001 - whatever kfp or the IR raise is the run's failure, told in its result
        if type(error) is RuntimeError and "Inner task failed" in str(error):  # kfp's way to say that a step failed
            message = str(error)
            print(message)
        else:
            message = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        driver.append_event(folder, event="error", message=driver.plain(message))
        return 1
    return 0


def run_step(folder: Path, path: str, component: str, command: Sequence[str]) -> int:
    """Run one step's command; its exit code. A step that cannot reach the driver's log does not start: the driver is gone."""
    driver = _driver(folder)
    log = os.open(folder / driver.FIFO, os.O_WRONLY | os.O_NONBLOCK)
    os.set_blocking(log, True)
    root = _output_folder(command)
    event = {"path": with_iterations(path, root), "component": component, "root": root}
    signal.signal(signal.SIGTERM, lambda *_: None)  # stay to the step's end; a handler, unlike SIG_IGN, is not inherited
    driver.append_event(folder, event="start", **event)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.PIPE) as process:
        tail = _Tail(process.stderr, log)
        code = process.wait()
        stderr = tail.end()
        message = (raised(stderr) or f"it {driver.describe_exit(code)}{last_line(stderr)}") if code else ""
        driver.append_event(folder, event="end", code=code, message=driver.plain(message), **event)
        # a process that the step left behind may hold its stderr: do not wait for it
        os._exit(code if code >= 0 else 128 - code)


class _Tail:
    """Passes a stream on to the log in a thread and keeps its last bytes."""

    def __init__(self, stream: IO[bytes] | None, log: int) -> None:
        self._descriptor = stream.fileno() if stream else -1
        self._log = log
        self._kept = b""
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        while data := os.read(self._descriptor, 65536):
            self._kept = (self._kept + data)[-_KEPT:]
            os.write(self._log, data)

    def end(self) -> str:
        """The last of it, once the writer has ended."""
        self._thread.join(0.5)
        return self._kept.decode(errors="replace")


def _output_folder(command: Sequence[str]) -> str:
    """Where kfp wants the step's outputs, from the executor input on its command line; empty when there is none."""
    with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
        document = json.loads(command[command.index("--executor_input") + 1])
        return str(Path(document["outputs"]["outputFile"]).parent)
    return ""


def with_iterations(path: str, root: str) -> str:
    """The step's path in the IR with the numbers of the loop iterations, which kfp puts before the output folder."""
    loops = [part for part in root.split("/") if re.search(r"-iteration-\d+$", part)]
    parts = path.split("/")
    for loop in loops:
        name = loop.rpartition("-iteration-")[0]
        parts = [loop if part == name else part for part in parts]
    return "/".join(parts)


def raised(stderr: str) -> str:
    """The exception at the end of the last traceback, up to eight lines of it; empty without one."""
    lines = _lines(stderr)
    for begin in range(len(lines) - 1, -1, -1):
        if "Traceback (most recent call last)" in lines[begin]:
            rest = lines[begin + 1 :]
            first = next((index for index, line in enumerate(rest) if not line.startswith((" ", "|", "+"))), len(rest))
            return "\n".join(rest[first : first + 8])
    return ""


def last_line(stderr: str) -> str:
    """The last line, to stand after another word; empty without one."""
    return f": {lines[-1].strip()}" if (lines := _lines(stderr)) else ""


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in _ANSI.sub("", text).splitlines() if line.strip()]


def main(arguments: Sequence[str]) -> int:
    """`pipeline FOLDER` or `step PATH COMPONENT COMMAND...` (the folder is in the environment)."""
    if arguments[0] == "pipeline":
        return run_pipeline(Path(arguments[1]))
    return run_step(Path(os.environ["KFP_RUN_FOLDER"]), arguments[1], arguments[2], arguments[3:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
