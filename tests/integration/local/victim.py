"""An operator, as far as type local can tell: it submits the runs it is told, and dies by SIGKILL at the point it is told.

    python -m tests.integration.local.victim STATE IR POINT GATE MARKS...

One run per MARKS file. Points are those of `LocalProvider`'s `faults`; `running` is reached when a step runs.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

import yaml

from kfp_operator.api.states import RunState
from kfp_operator.providers.local import LocalParameters, LocalProvider
from kfp_operator.providers.protocol import ProviderConfig
from tests.integration.local.harness import Pipelines, submission


async def main(state: Path, pipelines: Pipelines, point: str, gate: str, marks: list[str]) -> None:
    def die_at(here: str) -> None:
        if here == point:
            os.kill(os.getpid(), signal.SIGKILL)

    parameters = LocalParameters(termination_grace_period_seconds=0.3)
    provider = LocalProvider(ProviderConfig("team", "laptop", parameters, max_active_runs=1, state_dir=state), parameters, faults=die_at)
    jobs = [submission(pipelines, "counted", number, file=file, gate_file=gate) for number, file in enumerate(marks, 1)]
    for job in jobs:
        await provider.submit_run(job)
    async for update in provider.watch_runs():
        if any(task.name == "gate" and task.state is RunState.RUNNING for task in update.tasks):
            if point == "cancel":
                await provider.cancel_run(jobs[0].id)
            die_at("running")


if __name__ == "__main__":
    documents = {"counted": yaml.safe_load(Path(sys.argv[2]).read_text())}
    asyncio.run(main(Path(sys.argv[1]), documents, sys.argv[3], sys.argv[4], sys.argv[5:]))
