"""``python -m tests.doubles.kfp_api``: the server in a process of its own, on the real clock.

It prints its URL, answers until it is told to end, and is controlled over HTTP (`control`). With ``--kubeconfig`` its Workflows are
custom resources on that API server, whose CustomResourceDefinition it applies.
"""

import argparse
import asyncio
import contextlib
import json
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

from kfp_operator.errors import AlreadyExists
from kfp_operator.operator.client import Cluster
from kfp_operator.operator.credentials import load_credentials
from kfp_operator.operator.resources import CUSTOM_RESOURCE_DEFINITIONS, WORKFLOWS
from tests.doubles.kfp_api.cluster import CRD, ClusterWorkflows
from tests.doubles.kfp_api.control import ControlledKfpApi
from tests.doubles.kfp_api.identity import Identities
from tests.doubles.kfp_api.service import Options
from tests.waiting import eventually_async

SERVED_WITHIN = 30.0
NAMES = 10_000_000
"""Workflows of earlier servers may still be in the cluster: names begin anywhere below."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.doubles.kfp_api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--kubeconfig", type=Path, help="where Workflows are kept; nothing: nowhere")
    parser.add_argument("--recorder", default="", help="URL of the recorder of an ML Metadata store")
    parser.add_argument("--options", type=json.loads, default={}, help="members of `Options` as JSON; identities: tokens and rights")
    return parser.parse_args(arguments)


@contextlib.asynccontextmanager
async def workflows(kubeconfig: Path | None) -> AsyncIterator[ClusterWorkflows | None]:
    """Where Workflows are kept, with their kind made known there."""
    if kubeconfig is None:
        yield None
        return
    async with Cluster(await load_credentials(kubeconfig)) as client:
        with contextlib.suppress(AlreadyExists):
            await client.create(CUSTOM_RESOURCE_DEFINITIONS, CRD)
        served: bool = await eventually_async(partial(client.serves, WORKFLOWS), SERVED_WITHIN, "the API server serves Workflows")
        assert served
        async with ClusterWorkflows(client) as kept:
            yield kept


async def serve(arguments: argparse.Namespace) -> None:
    """Answer until told to end."""
    given = dict(arguments.options)
    if "identities" in given:
        given["identities"] = Identities(**given["identities"])
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with workflows(arguments.kubeconfig) as kept:
        first = 1 + secrets.randbelow(NAMES) if kept is not None else 1
        server = ControlledKfpApi(
            Options(**given), workflows=kept, recorder=arguments.recorder, host=arguments.host, port=arguments.port, first=first
        )
        async with server:
            print(server.url, flush=True)
            await ended.wait()


if __name__ == "__main__":
    asyncio.run(serve(parse(sys.argv[1:])))
