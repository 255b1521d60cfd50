"""Pipelines and their versions: uploaded, found by name, renamed, deleted."""

import asyncio
import json
import re
from collections.abc import Iterable
from typing import Any

from aiohttp import BodyPartReader, web

from tests.doubles.kfp_api import shapes, templates
from tests.doubles.kfp_api.failures import PlainRefusal, Refusal, UploadRefusal, answer, invalid, not_found
from tests.doubles.kfp_api.listing import page
from tests.doubles.kfp_api.rows import Pipeline, Version
from tests.doubles.kfp_api.service import Service, body, boolean, tags_of

LONGEST_PIPELINE = 128
LONGEST_VERSION = 127
DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""What a custom resource can be called."""
PIPELINE_FIELDS = ("pipeline_id", "display_name", "name", "description", "created_at", "namespace", "error")
VERSION_FIELDS = (
    "pipeline_id",
    "pipeline_version_id",
    "display_name",
    "name",
    "description",
    "created_at",
    "package_url",
    "code_source_url",
    "pipeline_spec",
    "error",
)


class Pipelines:
    """The handlers of /pipelines."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[web.RouteDef]:
        """All paths; those that must not be taken for ids first."""
        one, version = "/pipelines/{id}", "/pipelines/{id}/versions/{version}"
        made = [
            web.post("/pipelines/upload", self.upload),
            web.post("/pipelines/upload_version", self.upload_version),
            web.get("/pipelines/names/{name}", self.get_by_name),
            web.post("/pipelines", self.create),
            web.get("/pipelines", self.list),
            web.get(one, self.get),
            web.delete(one, self.delete),
            web.get(one + "/versions", self.list_versions),
            web.get(version, self.get_version),
            web.delete(version, self.delete_version),
        ]
        if self._service.options.tags:
            made += [web.patch(one, self.update), web.patch(version, self.update_version)]
        return made

    # Uploads

    async def upload(self, request: web.Request) -> web.Response:
        """A pipeline and its first version, which share the name."""
        service, query = self._service, request.query
        namespace = self._namespace(query.get("namespace", ""))
        self._may_upload(request, query.get("namespace", ""))
        file, text = await self._file(request)
        name = query.get("name") or file
        if len(name) > LONGEST_PIPELINE:
            raise PlainRefusal(400, f"Invalid input error: Pipeline.Name length cannot exceed {LONGEST_PIPELINE}")
        spec = await self._spec(text)
        tags = self._tags(query.get("tags", ""))
        self._check_name(name, "Pipeline")
        if self._named(name, namespace) is not None:
            problem = f"Already exist error: Failed to create a new pipeline. The name {name} already exists. Please specify a new name"
            raise UploadRefusal(409, "Failed to create a pipeline and a pipeline version", problem)
        if len(name) > LONGEST_VERSION:
            raise UploadRefusal(500, "Failed to create a pipeline and a pipeline version", "Data too long for column 'Name' at row 1")
        now, shown = service.rows.now(), self._shown(query.get("display_name", ""), name)
        row = Pipeline(service.rows.new_id(), name, shown, now, namespace, query.get("description", ""), tags)
        first = Version(service.rows.new_id(), row.id, name, shown, now, spec, query.get("description", ""), {})
        service.rows.pipelines[row.id], service.rows.versions[first.id] = row, first
        return answer(self._shape(row))

    async def upload_version(self, request: web.Request) -> web.Response:
        """Another version of a pipeline."""
        service, query = self._service, request.query
        pipeline = service.rows.pipelines.get(query.get("pipelineid", ""))
        if pipeline is None:
            raise UploadRefusal(400, "Failed to upload pipeline version: please specify a valid pipeline id")
        self._may_upload(request, pipeline.namespace)
        file, text = await self._file(request)
        name = query.get("name") or file
        if len(name) > LONGEST_VERSION:
            raise PlainRefusal(400, f"Invalid input error: PipelineVersion.Name length cannot exceed {LONGEST_VERSION}")
        spec = await self._spec(text)
        tags = self._tags(query.get("tags", ""))
        self._check_name(name, "PipelineVersion")
        if any(v.name == name for v in self._beside(pipeline)):
            raise UploadRefusal(409, "Failed to create a pipeline version", f"Already exist error: The name {name} already exists")
        shown = self._shown(query.get("display_name", ""), name)
        row = Version(service.rows.new_id(), pipeline.id, name, shown, service.rows.now(), spec, query.get("description", ""), tags)
        service.rows.versions[row.id] = row
        return answer(self._version(row))

    def _shown(self, given: str, name: str) -> str:
        """The display name; older servers have one name for both."""
        return given if given and self._service.options.split_names else name

    def _beside(self, pipeline: Pipeline) -> Iterable[Version]:
        """Versions whose names must differ: before 2.17 a custom resource was named after the version alone."""
        rows = self._service.rows
        if not self._service.options.kubernetes_store or self._service.options.since(2, 17):
            return rows.versions_of(pipeline.id)
        return (v for v in rows.versions.values() if rows.pipelines[v.pipeline].namespace == pipeline.namespace)

    async def _file(self, request: web.Request) -> tuple[str, bytes]:
        if request.content_type.startswith("multipart/"):
            async for part in await request.multipart():
                if isinstance(part, BodyPartReader) and part.name == "uploadfile":
                    return part.filename or "", bytes(await part.read(decode=True))
        raise UploadRefusal(400, "Failed to read pipeline from file: http: no such file")

    async def _spec(self, text: bytes) -> dict[str, Any]:
        if not text:
            await asyncio.sleep(self._service.options.patience)
            raise UploadRefusal(500, "Failed to create a pipeline and a pipeline version", "empty pipeline spec manifest")
        try:
            return templates.parse(text)
        except templates.SyntaxErrorInFirst:
            self._service.wedged += 1
            await asyncio.Event().wait()  # as the real one, which also burns a core
            raise
        except templates.BadTemplate as error:
            raise UploadRefusal(400, str(error)) from None

    def _tags(self, text: str) -> dict[str, str]:
        if not text or not self._service.options.tags:
            return {}
        try:
            return tags_of(json.loads(text))
        except (ValueError, Refusal) as error:
            raise UploadRefusal(400, f"Invalid tags: {error}") from None

    def _may_upload(self, request: web.Request, namespace: str) -> None:
        """Shared pipelines need no identity at all."""
        if namespace:
            try:
                self._service.gate.check(request, namespace, "pipelines", "create")
            except Refusal as refusal:
                raise UploadRefusal(400, f"Authorization failure: {refusal.external}") from None

    def _check_name(self, name: str, kind: str) -> None:
        if self._service.options.kubernetes_store and not DNS_NAME.fullmatch(name):
            raise UploadRefusal(400, f"{kind}.pipelines.kubeflow.org {json.dumps(name)} is invalid: metadata.name: Invalid value")

    # Pipelines

    async def create(self, request: web.Request) -> web.Response:
        """A pipeline without versions."""
        known = [field for field in PIPELINE_FIELDS if field != "name" or self._service.options.split_names]
        given = await body(request, [*known, "tags"] if self._service.options.tags else known)
        namespace = self._namespace(str(given.get("namespace", "")))
        if given.get("namespace"):
            self._service.gate.check(request, namespace, "pipelines", "create")
        name = str(given.get("name") or given.get("display_name") or "")
        if not name:
            raise invalid("pipeline name cannot be empty").within("Failed to create a pipeline")
        if self._named(name, namespace) is not None:
            raise Refusal(
                6, f"Failed to create a pipeline: Already exist error: The name {name} already exists", f"The name {name} already exists"
            )
        rows = self._service.rows
        row = Pipeline(
            rows.new_id(),
            name,
            str(given.get("display_name") or name),
            rows.now(),
            namespace,
            str(given.get("description") or ""),
            tags_of(given.get("tags") or {}),
        )
        rows.pipelines[row.id] = row
        return answer(self._shape(row))

    async def list(self, request: web.Request) -> web.Response:
        """One page; without a namespace the shared ones."""
        namespace = request.query.get("namespace", "")
        if namespace:
            self._service.gate.check(request, namespace, "pipelines", "list")
        rows = [p for p in self._service.rows.pipelines.values() if not self._service.gate.multi_user or p.namespace == namespace]
        found = page(rows, self._service.kinds["pipelines"], request.query)
        listed = [self._shape(row) for row in found.rows]
        return answer(shapes.present(pipelines=listed, total_size=found.total, next_page_token=found.next))

    async def get(self, request: web.Request) -> web.Response:
        """One by its id."""
        return answer(self._shape(self._pipeline(request, "get")))

    async def get_by_name(self, request: web.Request) -> web.Response:
        """One by its name and namespace."""
        namespace = request.query.get("namespace", "")
        if namespace:
            self._service.gate.check(request, namespace, "pipelines", "get")
        name = request.match_info["name"]
        row = self._named(name, self._namespace(namespace))
        if row is None:
            raise not_found("Pipeline", name).within("Failed to get a pipeline by name and namespace")
        return answer(self._shape(row))

    async def delete(self, request: web.Request) -> web.Response:
        """Remove it; with versions only if the whole is asked for. Runs keep their dead reference."""
        row = self._pipeline(request, "delete")
        versions = self._service.rows.versions_of(row.id)
        cascade = boolean(request.query.get("cascade", "")) and self._service.options.split_names
        if versions and not cascade:
            told = f"pipeline {row.id} has existing pipeline versions (e.g. {versions[0].id}). Set cascade=true to delete all versions"
            raise Refusal(3, f"Failed to delete pipeline {row.id}: Invalid input error: {told}", told)
        for version in versions:
            del self._service.rows.versions[version.id]
        del self._service.rows.pipelines[row.id]
        return answer({})

    async def update(self, request: web.Request) -> web.Response:
        """Change display name and tags; a description is passed over."""
        row = self._pipeline(request, "update")
        self._change(row, await body(request, (*PIPELINE_FIELDS, "tags")))
        return answer(self._shape(row))

    # Versions

    async def list_versions(self, request: web.Request) -> web.Response:
        """One page of a pipeline's."""
        row = self._pipeline(request, "get")
        found = page(self._service.rows.versions_of(row.id), self._service.kinds["versions"], request.query)
        listed = [self._version(v) for v in found.rows]
        return answer(shapes.present(pipeline_versions=listed, total_size=found.total, next_page_token=found.next))

    async def get_version(self, request: web.Request) -> web.Response:
        """One by its id, whatever pipeline the path names."""
        return answer(self._version(self._version_row(request, "get")))

    async def delete_version(self, request: web.Request) -> web.Response:
        """Remove it; runs keep their dead reference."""
        row = self._version_row(request, "delete")
        del self._service.rows.versions[row.id]
        return answer({})

    async def update_version(self, request: web.Request) -> web.Response:
        """Change display name and tags."""
        row = self._version_row(request, "update")
        self._change(row, await body(request, (*VERSION_FIELDS, "tags")))
        return answer(self._version(row))

    def _change(self, row: Pipeline | Version, given: dict[str, Any]) -> None:
        tags = tags_of(given["tags"]) if "tags" in given else row.tags
        row.display_name, row.tags = str(given.get("display_name") or row.display_name), tags

    def _pipeline(self, request: web.Request, verb: str) -> Pipeline:
        row = self._service.rows.pipelines.get(request.match_info["id"])
        if row is None:
            raise not_found("Pipeline", request.match_info["id"]).within(f"Failed to {verb} a pipeline")
        if row.namespace:
            self._service.gate.check(request, row.namespace, "pipelines", verb)
        return row

    def _version_row(self, request: web.Request, verb: str) -> Version:
        row = self._service.rows.versions.get(request.match_info["version"])
        if row is None:
            raise not_found("PipelineVersion", request.match_info["version"]).within(f"Failed to {verb} a pipeline version")
        namespace = self._service.rows.pipelines[row.pipeline].namespace
        if namespace:
            self._service.gate.check(request, namespace, "pipelines", verb)
        return row

    def _named(self, name: str, namespace: str) -> Pipeline | None:
        return next((p for p in self._service.rows.pipelines.values() if (p.name, p.namespace) == (name, namespace)), None)

    def _namespace(self, given: str) -> str:
        """A single-user installation ignores it; custom resources are in one all the same."""
        if self._service.gate.multi_user:
            return given
        return self._service.options.namespace if self._service.options.kubernetes_store else ""

    def _shape(self, row: Pipeline) -> dict[str, Any]:
        return shapes.pipeline(row, split=self._service.options.split_names, tags=self._service.options.tags)

    def _version(self, row: Version) -> dict[str, Any]:
        return shapes.version(row, split=self._service.options.split_names, tags=self._service.options.tags)
