"""The pipelines that the tests of type local run. As a program it compiles them all into a folder: kfp stays out of the tests' process."""

import sys
from pathlib import Path

from kfp import dsl
from kfp.compiler import Compiler
from kfp.dsl import Dataset, ExitHandler, If, Input, Model, Output, ParallelFor
from kfp.dsl.graph_component import GraphComponent


def component(function):
    return dsl.component(function, base_image="python:3.11", packages_to_install=["no-such-package-anywhere"])


@component
def load(rows: int, data: Output[Dataset]):
    data.metadata["rows"] = rows


@component
def train(data: Input[Dataset], model: Output[Model]):
    import json
    import os
    import sys
    from pathlib import Path

    Path(model.path).write_text(json.dumps({"environment": dict(os.environ), "folder": str(Path.cwd()), "stdin": sys.stdin.read()}))
    model.metadata.update(accuracy=0.97, serving=True, nested={"classes": ["a", "b"]})


@component
def push(trained: Input[Model], model: Output[Model]):
    model.metadata["pushed"] = 1


@component
def elsewhere(model: Output[Model], kept: Output[Model]):
    model.uri = "/etc/hostname"


@component
def count(file: str):
    """Note that it ran."""
    from pathlib import Path

    with Path(file).open("a") as marks:
        marks.write("ran\n")


@component
def fail(how: str):
    import os
    import sys

    print("about to fail")
    if how == "raise":
        raise ValueError("column 'kind' is\nnot in the data")
    if how == "exit":
        sys.exit(3)
    if how == "kill":
        os.kill(os.getpid(), 9)
    if how == "import":
        import no_such_module  # noqa: F401


@component
def gate(file: str):
    """Wait until the file is there: the test opens the gate."""
    import time
    from pathlib import Path

    print("at the gate")
    deadline = time.monotonic() + 60
    while not Path(file).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    print("through the gate")


@component
def stubborn(file: str):
    """Ignore SIGTERM, with a daemon that left the process group and one that closed all it had."""
    import os
    import signal
    import subprocess
    import time
    from pathlib import Path

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 300"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        os.closerange(0, 100)
        if os.fork() == 0:
            time.sleep(300)
        os._exit(0)
    Path(file).touch()
    time.sleep(300)


@component
def leave_daemon():
    import subprocess

    subprocess.Popen(["sleep", "300"], start_new_session=True)


@component
def chatter(lines: int, line: str):
    import sys

    sys.stdout.write("first words\n")
    for _ in range(lines):
        sys.stdout.write(line)
    sys.stdout.buffer.write(b"\xff no text\nlast words\n")


@component
def flaky(file: str):
    from pathlib import Path

    if not Path(file).exists():
        Path(file).touch()
        raise RuntimeError("not yet")


@component
def item(n: int, model: Output[Model]) -> int:
    model.metadata["n"] = n
    return n


@dsl.pipeline
def good(rows: int = 3):
    loaded = load(rows=rows)
    trained = train(data=loaded.output)
    push(trained=trained.output)


@dsl.pipeline
def outside():
    elsewhere()


@dsl.pipeline
def counted(file: str, gate_file: str = "/"):
    gate(file=gate_file).after(count(file=file))


@dsl.pipeline
def failing(how: str):
    fail(how=how).after(load(rows=1))


@dsl.pipeline
def unstoppable(file: str):
    stubborn(file=file)


@dsl.pipeline
def daemon():
    leave_daemon()


@dsl.pipeline
def talking(lines: int, line: str):
    chatter(lines=lines, line=line)


@dsl.pipeline
def inner(n: int) -> int:
    return item(n=n).outputs["Output"]


@dsl.pipeline
def shapes(file: str):
    with ExitHandler(count(file=file)):
        with ParallelFor([1, 2]) as n:
            item(n=n)
        with If(inner(n=5).output == 5):
            item(n=6)
        with If(inner(n=7).output == 8):
            item(n=8)
        flaky(file=file).set_retry(1)


@dsl.pipeline
def failing_inside(file: str):
    with ExitHandler(count(file=file)), ParallelFor(["raise"]) as how:
        fail(how=how)


def main(folder: Path) -> None:
    for name, value in list(globals().items()):
        if isinstance(value, GraphComponent) and value is not inner:
            Compiler().compile(value, str(folder / f"{name}.yaml"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
