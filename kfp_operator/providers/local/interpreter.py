"""Whether an interpreter can run pipelines: asked of itself, in the environment that runs get."""

import asyncio
import os
from pathlib import Path

from kfp_operator.errors import Permanent, Retryable
from kfp_operator.providers.local.process import run_environment

_QUESTION = "import sys, importlib.metadata as m; print(sys.version_info >= (3, 11), m.version('kfp'))"
_DEADLINE = 20.0


async def kfp_version(python: str, state: Path) -> str:
    """The version of kfp that the interpreter has. It is not imported, here or there.

    Raises:
        Permanent: It cannot be executed, is too old, or has no kfp; the message says what to do.
        Retryable: It does not answer.

    """
    try:
        process = await asyncio.create_subprocess_exec(
            python,
            "-I",
            "-c",
            _QUESTION,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=run_environment(state, python, {}, os.environ, state),
        )
    except OSError as error:
        raise Permanent(f"spec.parameters.python: {python} cannot be executed: {error.strerror}", reason="NoInterpreter") from None
    try:
        async with asyncio.timeout(_DEADLINE):
            output, _ = await process.communicate()
    except TimeoutError:
        raise Retryable(f"{python} did not answer within {_DEADLINE:.0f} s", reason="InterpreterSlow") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    recent, _, version = output.decode(errors="replace").strip().partition(" ")
    if process.returncode != 0 or not version:
        remedy = "pip install 'kfp-operator[local]', or set spec.parameters.python to an interpreter that has kfp"
        raise Permanent(f"{python} has no kfp, which type local needs: {remedy}", reason="KfpMissing")
    if recent != "True":
        raise Permanent(f"spec.parameters.python: {python} is older than Python 3.11", reason="InterpreterTooOld")
    return version
