"""One step that behaves as its parameter says. Compile: kfp-operator pipelines build tests/data/pipelines/scenario.py > scenario.yaml."""

from kfp import dsl


@dsl.component(install_kfp_package=False)
def act(mode: str, wait_for: str, size: int, model: dsl.Output[dsl.Model]) -> str:
    """Succeed, raise, exit, hang until a file exists, or print."""
    import pathlib
    import sys
    import time

    if mode == "raise":
        raise ValueError("the data has no column island")
    if mode == "exit":
        sys.exit(7)
    if mode == "shout":
        for _ in range(size):
            sys.stdout.write("x" * 1023 + "\n")
    if mode in ("hang", "wait"):
        limit = time.monotonic() + 120
        while time.monotonic() < limit and not pathlib.Path(wait_for).exists():
            time.sleep(0.05)
    pathlib.Path(model.path).write_text("weights")
    model.metadata["accuracy"] = 0.93
    model.metadata["pushed"] = 1
    return mode


@dsl.pipeline(name="scenario")
def scenario(mode: str = "succeed", wait_for: str = "/nonexistent", size: int = 1):
    """Run the one step."""
    act(mode=mode, wait_for=wait_for, size=size)
