"""The calls of the v2beta1 API that are needed, each one request (lists: one per page), documents in and out.

Differences between server versions end here: names beside display names came with 2.14, and a server that does not know them refuses the
request, which is then made without. Nothing is taken from the version that a server says it has: that is an echo of its environment.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from kfp_operator.providers.kubeflow.client import AnswerTooLarge, Client, part
from kfp_operator.providers.kubeflow.errors import Failure, Refusal

Document = dict[str, Any]
PAGE = 100
"""Rows of a page; the server gives 200 at most, and a row of a run holds all of its tasks."""
MOST_PAGES = 10_000
CREATE_TIMEOUT = 60.0
"""Seconds that starting a run gets: the server's own client makes five objects per second, whatever is asked of it."""
TERMINATE_TIMEOUT = 30.0
"""Seconds that stopping a run gets: the server takes up to 15 to find out that the Workflow is gone."""
UPLOAD_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Health:
    """What a server says of itself."""

    version: str
    multi_user: bool
    kubernetes_store: bool


def equals(key: str, value: str) -> Document:
    """A condition on text."""
    return {"operation": "EQUALS", "key": key, "string_value": value}


def contains(key: str, value: str) -> Document:
    """A condition on a part of a text: a LIKE pattern, in which % and _ are wildcards."""
    return {"operation": "IS_SUBSTRING", "key": key, "string_value": value}


def at(key: str, moment: datetime) -> Document:
    """A condition on a time, to the second."""
    return _time("EQUALS", key, moment)


def since(key: str, moment: datetime) -> Document:
    """A condition on a time: then or later."""
    return _time("GREATER_THAN_EQUALS", key, moment)


def _time(operation: str, key: str, moment: datetime) -> Document:
    # as string_value it would be compared as text with a number, and match everything
    return {"operation": operation, "key": key, "timestamp_value": moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}


def _filter(predicates: Sequence[Document]) -> str:
    """As a query parameter: the server decodes it once more after it was decoded, so it is encoded once more."""
    return quote(json.dumps({"predicates": list(predicates)}, separators=(",", ":")), safe="") if predicates else ""


class Api:
    """One server, in one namespace; "": a server that has none."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._display_names_only = False

    # The server

    async def health(self) -> Health:
        """What it says of itself. Failure for what is no such server."""
        found = await self._client.get("/healthz", what="look at the server")
        if not found.keys() & {"multi_user", "tag_name", "commit_sha", "pipeline_store"} and found:
            message = f"spec.parameters.endpoint {self._client.endpoint} is not an API server of Kubeflow Pipelines 2"
            raise Failure(message, status=200, said="", reason="InvalidAnswer")
        return Health(str(found.get("tag_name", "")), bool(found.get("multi_user")), found.get("pipeline_store") == "kubernetes")

    # Runs

    async def run(self, run_id: str) -> Document | None:
        """The run; None: the server does not know it."""
        return await self._found(f"/runs/{part(run_id)}", what=f"get run {run_id}")

    async def create_run(self, body: Mapping[str, Any]) -> Document:
        """Start a run. Never call it again for the same id without looking: each call starts a Workflow."""
        return await self._client.post("/runs", body, what=f"create run {body['run_id']}", at_least=CREATE_TIMEOUT)

    async def terminate_run(self, run_id: str) -> None:
        """Have it stopped."""
        await self._client.post(f"/runs/{part(run_id)}:terminate", what=f"stop run {run_id}", at_least=TERMINATE_TIMEOUT)

    async def runs(self, predicates: Sequence[Document], *, sort: str = "", most_pages: int = MOST_PAGES) -> AsyncIterator[list[Document]]:
        """Runs page by page."""
        query = {"namespace": self._namespace, "sort_by": sort, "filter": _filter(predicates)}
        async for page in self._pages("/runs", "runs", query, what="list runs", most=most_pages):
            yield page

    async def look_at_runs(self) -> None:
        """Return when runs can be listed: the server lets us in, and has its database. Its health says neither."""
        await self._client.get("/runs", {"namespace": self._namespace, "page_size": 1}, what="list runs")

    # Pipelines

    async def pipeline(self, pipeline_id: str) -> Document | None:
        """The pipeline with this id."""
        return await self._found(f"/pipelines/{part(pipeline_id)}", what=f"get pipeline {pipeline_id}")

    async def pipeline_named(self, name: str) -> Document | None:
        """The pipeline with this name."""
        return await self._found(f"/pipelines/names/{part(name)}", {"namespace": self._namespace}, what=f"get pipeline {name}")

    async def create_pipeline(self, name: str, display_name: str, description: str) -> Document:
        """A pipeline without versions. Refusal that `exists`."""
        what = f"create pipeline {name}"
        body = {"display_name": name, "description": description} | ({"namespace": self._namespace} if self._namespace else {})
        if self._display_names_only:
            return await self._client.post("/pipelines", body, what=what)
        try:
            return await self._client.post("/pipelines", body | {"name": name, "display_name": display_name}, what=what)
        except Refusal as error:
            if error.status != 400 or 'unknown field "name"' not in error.said:
                raise
            self._display_names_only = True
        return await self._client.post("/pipelines", body, what=what)

    async def delete_pipeline(self, pipeline_id: str) -> None:
        """Remove a pipeline without versions. Refusal with status 400 while it has some; fine when it is gone."""
        await self._gone(f"/pipelines/{part(pipeline_id)}", what=f"delete pipeline {pipeline_id}")

    async def version(self, pipeline_id: str, version_id: str) -> Document | None:
        """The version with this id. The server does not look whose it is."""
        path = f"/pipelines/{part(pipeline_id)}/versions/{part(version_id)}"
        return await self._found(path, what=f"get version {version_id}")

    async def version_named(self, pipeline_id: str, name: str) -> Document | None:
        """The pipeline's version with this name."""
        query = {"filter": _filter([equals("name", name)])}
        async for page in self._pages(f"/pipelines/{part(pipeline_id)}/versions", "pipeline_versions", query, what=f"find version {name}"):
            for found in page:
                if name in (found.get("name"), found.get("display_name")):
                    return found
        return None

    async def versions(self, pipeline_id: str) -> AsyncIterator[list[Document]]:
        """All versions of a pipeline, page by page."""
        path, what = f"/pipelines/{part(pipeline_id)}/versions", f"list versions of pipeline {pipeline_id}"
        async for page in self._pages(path, "pipeline_versions", {}, what=what):
            yield page

    async def upload_version(self, pipeline_id: str, name: str, display_name: str, description: str, content: bytes) -> Document:
        """Another version. Refusal that `exists`; with status 400 and no cause when the pipeline is gone."""
        query = {"pipelineid": pipeline_id, "name": name, "display_name": display_name, "description": description}
        return await self._client.upload("/pipelines/upload_version", content, query, what=f"upload version {name}")

    async def delete_version(self, pipeline_id: str, version_id: str) -> None:
        """Remove a version; fine when it is gone."""
        await self._gone(f"/pipelines/{part(pipeline_id)}/versions/{part(version_id)}", what=f"delete version {version_id}")

    # Experiments

    async def experiment(self, experiment_id: str) -> Document | None:
        """The experiment with this id."""
        return await self._found(f"/experiments/{part(experiment_id)}", what=f"get experiment {experiment_id}")

    async def experiment_named(self, name: str) -> Document | None:
        """The experiment with this name."""
        query = {"namespace": self._namespace, "filter": _filter([equals("display_name", name)])}
        async for page in self._pages("/experiments", "experiments", query, what=f"find experiment {name}"):
            for found in page:
                if found.get("display_name") == name:
                    return found
        return None

    async def create_experiment(self, name: str, description: str) -> Document:
        """A new one. Refusal that `exists`."""
        body = {"display_name": name, "description": description} | ({"namespace": self._namespace} if self._namespace else {})
        return await self._client.post("/experiments", body, what=f"create experiment {name}")

    async def delete_experiment(self, experiment_id: str) -> None:
        """Remove it, not its runs; fine when it is gone."""
        await self._gone(f"/experiments/{part(experiment_id)}", what=f"delete experiment {experiment_id}")

    # The API of artifacts, which servers with ML Metadata do not have

    async def artifact_tasks(self, run_id: str) -> Document:
        """Whether it is there: Refusal or Failure with status 404 or 501 where it is not."""
        return await self._client.get("/artifact_tasks", {"run_ids": run_id, "page_size": 1}, what=f"look for artifacts of run {run_id}")

    async def whole_run(self, run_id: str) -> Document | None:
        """The run with its tasks and what they made."""
        return await self._found(f"/runs/{part(run_id)}", {"view": "FULL"}, what=f"get run {run_id}")

    async def _found(self, path: str, query: Mapping[str, str | int] | None = None, *, what: str) -> Document | None:
        try:
            return await self._client.get(path, query, what=what)
        except Refusal as error:
            if error.absent:
                return None
            raise

    async def _gone(self, path: str, *, what: str) -> None:
        try:
            await self._client.delete(path, what=what)
        except Refusal as error:
            if not error.absent:
                raise

    async def _pages(
        self, path: str, member: str, query: Mapping[str, str | int], *, what: str, most: int = MOST_PAGES
    ) -> AsyncIterator[list[Document]]:
        size, token = PAGE, ""
        for _ in range(most):
            while True:
                try:
                    found = await self._client.get(path, {**query, "page_size": size, "page_token": token}, what=what)
                except AnswerTooLarge:
                    if size == 1:
                        raise
                    size = max(size // 4, 1)
                else:
                    break
            rows = found.get(member) or []
            yield [row for row in rows if isinstance(row, dict)]
            token = str(found.get("next_page_token") or "")
            if not token:
                return
