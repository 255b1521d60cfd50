import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from kfp_operator.errors import Retryable
from kfp_operator.providers.local import LocalParameters, LocalProvider
from kfp_operator.providers.protocol import ProviderConfig
from tests.integration.local.harness import DEADLINE, Pipelines
from tests.waiting import eventually_async


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Pipelines:
    """The compiled pipelines by name."""
    folder = tmp_path_factory.mktemp("pipelines")
    subprocess.run([sys.executable, "-W", "ignore", Path(__file__).parent / "pipelines.py", folder], check=True)
    return {path.stem: yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")}


Open = Callable[..., LocalProvider]


@pytest.fixture
async def open_provider(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens providers on one state folder; they are closed, and what still runs is stopped, after the test."""
    opened: list[LocalProvider] = []

    def open_(*, slots: int | None = None, root: str = "", **parameters: Any) -> LocalProvider:
        given = LocalParameters(**{"termination_grace_period_seconds": 0.3} | parameters)
        config = ProviderConfig("team", "laptop", given, pipeline_root=root, max_active_runs=slots, state_dir=tmp_path / "state")
        opened.append(LocalProvider(config, given))
        return opened[-1]

    yield open_
    for provider in opened:
        await provider.close()
    last = open_()
    runs = [folder.name for folder in (tmp_path / "state" / "runs").glob("[!.]*")]
    for run in runs:  # a driver that was being started holds the lock of the state folder until it runs its own program
        await eventually_async(partial(_cancelled, last, run), DEADLINE, "the state folder is free", ignoring=(Retryable,))
    for run in runs:
        await eventually_async(partial(_over, last, run), DEADLINE, f"run {run} is over")
    await last.close()


async def _cancelled(provider: LocalProvider, run: str) -> bool:
    await provider.cancel_run(run)
    return True


async def _over(provider: LocalProvider, run: str) -> bool:
    update = await provider.get_run(run)
    return update is not None and update.state.final
