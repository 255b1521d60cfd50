"""Starting a Run of a RunConfiguration by hand: the annotation is set, the operator makes the Run, and its name is known beforehand."""

import asyncio
import secrets
from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console

from kfp_operator.api.run import Run
from kfp_operator.api.run_configuration import MAX_OCCURRENCE, RunConfiguration, TriggerStatus
from kfp_operator.cli.exits import ExitCode
from kfp_operator.cli.progress import clean, length
from kfp_operator.cli.target import Target
from kfp_operator.cli.waiting import wait
from kfp_operator.errors import ClusterUnavailable, ConfigurationError, Conflict, NotFound
from kfp_operator.reconcile import run_configuration_manual as manual
from kfp_operator.reconcile.run_configuration_triggers import MANUAL
from kfp_operator.reconcile.starting import occurrence_name

PATIENCE = 10.0
"""Seconds that an earlier start gets to be taken up."""
TRIES = 10
_LOOK_AGAIN = 0.5


async def start(target: Target, name: str, parameters: Mapping[str, str]) -> tuple[str, str]:
    """Ask for a Run of the RunConfiguration. Returns its name, and the annotation that asks for it.

    Raises ClusterError; Conflict when an earlier start is not taken up, which this one would undo.
    """
    configuration = await _taken_up(target, name)
    for _ in range(TRIES):
        text = manual.write(manual.Start(secrets.token_hex(6), configuration.metadata.uid, parameters))
        if len(text) > MAX_OCCURRENCE:
            raise ConfigurationError(f"the parameters are longer than {MAX_OCCURRENCE} characters; write them into spec.run.parameters")
        patch = {"metadata": {"annotations": {target.names.start: text}}}
        version = configuration.metadata.resource_version
        try:
            await target.cluster.patch(target.kinds.run_configuration, name, patch, target.namespace, resource_version=version)
        except Conflict:
            configuration = await _taken_up(target, name)
            continue
        return occurrence_name(configuration, MANUAL, text), text
    raise Conflict(f"RunConfiguration {target.namespace}/{name} keeps changing; try again", status=409)


async def follow(target: Target, name: str, run: str, text: str, *, within: timedelta, console: Console) -> ExitCode:
    """Wait until the Run that was asked for by `text` exists, then follow it to its end."""
    loop = asyncio.get_running_loop()
    until, told = loop.time() + within.total_seconds(), ""
    while loop.time() < until:
        try:
            entry = _by_hand(await _configuration(target, name))  # before the Run: a Run that is there is found after it was noted
            if await _exists(target, run):
                left = timedelta(seconds=max(until - loop.time(), 1.0))
                return await wait(target, run, within=left, console=console)
        except ClusterUnavailable:
            entry = None
        if entry is not None and entry.baseline == text and text not in entry.pending:
            console.print(f"no run was started: {clean(entry.message)}", soft_wrap=True, markup=False, highlight=False)
            return ExitCode.FAILED
        message = clean(entry.message) if entry is not None and text in entry.pending else ""
        if message and message != told:
            console.print(f"not started yet: {message}", soft_wrap=True, markup=False, highlight=False)
            told = message
        await asyncio.sleep(_LOOK_AGAIN)
    after = length(within.total_seconds())
    console.print(f"Run {target.namespace}/{run} was not started within {after}: {told or 'is the operator running?'}", soft_wrap=True)
    return ExitCode.TIMEOUT


async def _taken_up(target: Target, name: str) -> RunConfiguration:
    """The RunConfiguration, once the operator has seen the start that stands in it."""
    until = asyncio.get_running_loop().time() + PATIENCE
    while True:
        configuration = await _configuration(target, name)
        before, entry = configuration.metadata.annotations.get(target.names.start, ""), _by_hand(configuration)
        if not before or (entry is not None and manual.baseline(before) == entry.baseline):
            return configuration
        if asyncio.get_running_loop().time() > until:
            message = f"an earlier start of RunConfiguration {target.namespace}/{name} is not taken up yet; is the operator running?"
            raise Conflict(message, status=409)
        await asyncio.sleep(_LOOK_AGAIN)


async def _configuration(target: Target, name: str) -> RunConfiguration:
    return RunConfiguration.parse(await target.cluster.get(target.kinds.run_configuration, name, target.namespace))


async def _exists(target: Target, run: str) -> Run | None:
    try:
        return await target.run(run)
    except NotFound:
        return None


def _by_hand(configuration: RunConfiguration) -> TriggerStatus | None:
    return next((entry for entry in configuration.status.triggers if entry.name == MANUAL), None)
