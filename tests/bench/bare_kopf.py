"""The least that Kopf can do: an empty handler for Runs, with the operator's settings of Kopf.

``python -m tests.bench.bare_kopf KUBECONFIG N`` prints the seconds from its start until it has seen N Runs, and then waits to be looked at,
until its standard input ends.
"""

import asyncio
import sys
import time
from typing import Any

began = time.monotonic()

from kfp_operator.api.names import Names  # noqa: E402 -- imports are part of a start
from kfp_operator.operator.credentials import load_credentials  # noqa: E402
from kfp_operator.operator.kopf_thread import kopf, kopf_settings  # noqa: E402


async def main(kubeconfig: str, wanted: int) -> None:
    """Watch until `wanted` Runs were seen."""
    credentials = await load_credentials(kubeconfig)
    registry, seen, all_seen = kopf.OperatorRegistry(), 0, asyncio.Event()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(aiohttp_session=credentials.session(limit=0), server=credentials.endpoint.server)

    @kopf.on.event(Names().group, "v1beta1", "runs", registry=registry)
    async def handle(**_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == wanted:
            all_seen.set()

    stop = asyncio.Event()
    operator = asyncio.create_task(kopf.operator(registry=registry, settings=kopf_settings(), clusterwide=True, stop_flag=stop))
    await all_seen.wait()
    print(f"{time.monotonic() - began:.3f}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    stop.set()
    await operator


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
