"""A server in the event loop of the test, and what tests ask of it over HTTP."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar

import aiohttp
import kfp_server_api  # type: ignore[import-untyped]  # generated, without types
import yaml

from tests.builders import NOW
from tests.doubles.kfp_api import KfpApi, Options
from tests.integration.operator.harness import SCENARIO

P = ParamSpec("P")
T = TypeVar("T")
SPEC: dict[str, Any] = SCENARIO["spec"]["pipelineSpec"]


class Clock:
    """Time that stands still until the test moves it."""

    def __init__(self) -> None:
        self._time = NOW

    def __call__(self) -> datetime:
        return self._time

    def forward(self, seconds: float) -> None:
        self._time += timedelta(seconds=seconds)


def steps(*names: str, **parameters: Any) -> dict[str, Any]:
    """A pipeline of these tasks, one after the other, with parameters as they are declared."""
    spec = copy.deepcopy(SPEC)
    task = spec["root"]["dag"]["tasks"].pop("act")
    spec["root"].pop("inputDefinitions")
    before: list[str] = []
    for name in names:
        made = {"componentRef": task["componentRef"], "taskInfo": {"name": name}}
        spec["root"]["dag"]["tasks"][name] = made | ({"dependentTasks": list(before)} if before else {})
        before = [name]
    if parameters:
        spec["root"]["inputDefinitions"] = {"parameters": parameters}
    spec["pipelineInfo"] = {"name": "two-step"}
    return spec


TEXT = {"parameterType": "STRING", "isOptional": True, "defaultValue": "x"}
TWO_STEP = steps("prep", "train", n={"parameterType": "NUMBER_INTEGER"}, s=TEXT)


@dataclass(frozen=True)
class Answer:
    """Status and body: JSON, or text where it is none."""

    status: int
    body: Any
    text: str


class Site:
    """The server, its clock, and requests."""

    def __init__(self, kfp: KfpApi, clock: Clock, session: aiohttp.ClientSession, headers: Mapping[str, str]) -> None:
        self.kfp = kfp
        self.clock = clock
        self._session = session
        self._headers = dict(headers)

    def as_user(self, **headers: str) -> "Site":
        """The same, with other headers."""
        return Site(self.kfp, self.clock, self._session, headers)

    async def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Answer:
        """One request to a path below /apis/v2beta1."""
        data = json.dumps(body) if isinstance(body, dict) else body
        headers = {"Content-Type": "application/json", **self._headers} if isinstance(data, str) else self._headers
        async with self._session.request(
            method, f"{self.kfp.url}/apis/v2beta1{path}", data=data, params=query, headers=headers
        ) as response:
            text = await response.text()
            try:
                return Answer(response.status, json.loads(text), text)
            except ValueError:
                return Answer(response.status, None, text)

    async def upload(self, text: str | bytes | None = None, *, version: bool = False, file: str = "fromfile.yaml", **query: Any) -> Answer:
        """Upload YAML; by default a pipeline of two steps."""
        form = aiohttp.FormData()
        form.add_field("uploadfile", yaml.safe_dump(TWO_STEP) if text is None else text, filename=file)
        return await self.ask("POST", "/pipelines/upload_version" if version else "/pipelines/upload", form, **query)

    async def pipeline(self, name: str = "two-step", **query: Any) -> dict[str, str]:
        """A pipeline of two steps: the reference to its first version."""
        made = (await self.upload(name=name, **query)).body
        listed = (await self.ask("GET", f"/pipelines/{made['pipeline_id']}/versions")).body
        return {"pipeline_id": made["pipeline_id"], "pipeline_version_id": listed["pipeline_versions"][0]["pipeline_version_id"]}

    async def run(self, run_id: str, reference: Mapping[str, str], /, **changes: Any) -> Answer:
        """POST a run of a pipeline of two steps; `changes` replace members."""
        body = {"run_id": run_id, "pipeline_version_reference": dict(reference), "display_name": f"run {run_id[:4]}"}
        return await self.ask("POST", "/runs", body | {"runtime_config": {"parameters": {"n": 5}}} | changes)

    async def state(self, run_id: str) -> str:
        """The state of a run."""
        return str((await self.ask("GET", f"/runs/{run_id}")).body.get("state", ""))

    async def history(self, run_id: str) -> list[str]:
        """All states of a run."""
        return [c["state"] for c in (await self.ask("GET", f"/runs/{run_id}")).body["state_history"]]

    async def client(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the generated client, which blocks."""
        return await asyncio.to_thread(work, *args, **kwargs)

    def generated(self) -> kfp_server_api.ApiClient:
        """The generated client."""
        return kfp_server_api.ApiClient(kfp_server_api.Configuration(host=self.kfp.url))


@asynccontextmanager
async def site(**options: Any) -> AsyncIterator[Site]:
    """A server with these `Options`, whose clock is the test's."""
    clock = Clock()
    async with KfpApi(Options(**({"seconds": 10.0} | options)), now=clock) as kfp, aiohttp.ClientSession() as session:
        yield Site(kfp, clock, session, {})
