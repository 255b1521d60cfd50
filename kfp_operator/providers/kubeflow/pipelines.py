"""Pipelines and their versions at the server: one pipeline per Pipeline resource, one version per version of it.

Both are found by name, so that whatever answer gets lost, the next try finds what the last one made. Versions are never changed, and
deleted only when nothing can use them. Deletion removes what we made and nothing else: what people add by hand to our pipeline keeps it.
"""

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Collection
from typing import Any, NamedTuple

from kfp_operator.errors import Permanent, Retryable
from kfp_operator.providers.kubeflow import naming
from kfp_operator.providers.kubeflow.api import Api, Document
from kfp_operator.providers.kubeflow.errors import Refusal
from kfp_operator.providers.kubeflow.template import render
from kfp_operator.providers.protocol import PipelineVersion

log = logging.getLogger(__name__)

REMEMBERED = 5_000
_UNAUTHORIZED = re.compile(r"authori[sz]ation|authenticat|unauthori[sz]ed|permission", re.IGNORECASE)
"""Upload handlers answer 400 for that too."""


class Reference(NamedTuple):
    """A version at the server."""

    pipeline_id: str
    version_id: str


class Pipelines:
    """What the provider keeps at the server. `caching`: what it imposes on every step; None: nothing."""

    def __init__(self, api: Api, *, caching: bool | None) -> None:
        self._api = api
        self._caching = caching
        self._known: OrderedDict[str, Reference] = OrderedDict()

    async def ensure(self, pipeline: PipelineVersion) -> Reference:
        """Make the version, and its pipeline, unless they are there."""
        name = naming.pipeline_name(pipeline.namespace, pipeline.name)
        made = await self._ensure_pipeline(pipeline.namespace, pipeline.name, name)
        pipeline_id = _id(made, "pipeline_id")
        version = self._version_name(pipeline)
        found = await self._api.version_named(pipeline_id, version)
        if found is None:
            shown = pipeline.version if "name" in made else ""  # before 2.14 there was one name only, the one that is shown
            found = await self._upload(pipeline, pipeline_id, version, shown)
        reference = Reference(pipeline_id, _id(found, "pipeline_version_id"))
        self._known[version] = reference
        self._known.move_to_end(version)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return reference

    async def present(self, pipeline: PipelineVersion) -> Reference:
        """The version as a run can name it now: known and still there, or made again."""
        known = self._known.get(self._version_name(pipeline))
        if known is not None and await self._api.version(known.pipeline_id, known.version_id) is not None:
            return known
        return await self.ensure(pipeline)

    def forget(self, pipeline: PipelineVersion) -> None:
        """The server says that it is not there."""
        self._known.pop(self._version_name(pipeline), None)

    async def prune(self, pipeline: PipelineVersion, keep: Collection[str]) -> None:
        """Delete our versions of the pipeline but the present one and those to keep."""
        found = await self._api.pipeline_named(naming.pipeline_name(pipeline.namespace, pipeline.name))
        if found is None:
            return
        kept = {pipeline.version, *keep}
        pipeline_id = _id(found, "pipeline_id")
        described = naming.pipeline_description(pipeline.namespace, pipeline.name)
        for version, told in await self._our_versions(pipeline_id, described):
            if told not in kept:
                await self._api.delete_version(pipeline_id, version)

    async def delete(self, provider_id: str) -> None:
        """Delete the pipeline with this id, or of the Pipeline "namespace/name", with our versions. Fine when it is gone."""
        namespace, slash, name = provider_id.partition("/")
        if slash:
            found = await self._api.pipeline_named(naming.pipeline_name(namespace, name))
        else:
            found = await self._api.pipeline(provider_id)
        if found is None:
            return
        described = str(found.get("description") or "")
        if not naming.described_pipeline(described):
            log.info("Pipeline %s at the server is not ours and is left there", provider_id)
            return
        pipeline_id = _id(found, "pipeline_id")
        for version, _ in await self._our_versions(pipeline_id, described):
            await self._api.delete_version(pipeline_id, version)
        try:
            await self._api.delete_pipeline(pipeline_id)
        except Refusal as error:
            if error.status != 400:
                raise
            log.info("Pipeline %s has versions that others made and is left at the server: %s", provider_id, error)
        self._known = OrderedDict((name, known) for name, known in self._known.items() if known.pipeline_id != pipeline_id)

    async def _ensure_pipeline(self, namespace: str, shown: str, name: str) -> Document:
        found = await self._api.pipeline_named(name)
        if found is None:
            try:
                found = await self._api.create_pipeline(name, f"{namespace}/{shown}", naming.pipeline_description(namespace, shown))
            except Refusal as error:
                if not error.exists:
                    raise
                found = await self._api.pipeline_named(name)
        if found is None:  # a store that answers from a cache
            raise Retryable(f"pipeline {name} was made and is not found yet", reason="NotFoundYet", after=2)
        return found

    async def _upload(self, pipeline: PipelineVersion, pipeline_id: str, name: str, shown: str) -> Document:
        content = await asyncio.to_thread(render, pipeline.spec, pipeline.platform_spec, caching=self._caching)
        told = naming.version_description(pipeline.namespace, pipeline.name, pipeline.version)
        try:
            return await self._api.upload_version(pipeline_id, name, shown, told, content)
        except Refusal as error:
            if not error.exists:
                await self._explain(error, pipeline_id)
                raise
        found = await self._api.version_named(pipeline_id, name)
        if found is None:
            raise Retryable(f"version {name} was made and is not found yet", reason="NotFoundYet", after=2)
        return found

    async def _explain(self, error: Refusal, pipeline_id: str) -> None:
        """Raise what a refused upload means, if it is not the refusal of the version."""
        if error.status == 400 and _UNAUTHORIZED.search(error.said):
            raise Retryable(f"{error}; see spec.parameters.authentication", reason="PermissionDenied") from error
        if await self._api.pipeline(pipeline_id) is None:
            raise Retryable(f"pipeline {pipeline_id} was deleted at the server, it is made again", reason="BackendObjectMissing") from error
        raise Permanent(f"Kubeflow Pipelines refuses the compiled pipeline: {error.said or error}", reason="PipelineRefused") from error

    async def _our_versions(self, pipeline_id: str, described: str) -> list[tuple[str, str]]:
        """Id and version of each that we made; read whole before anything is deleted, which would move the pages."""
        ours = []
        async for page in self._api.versions(pipeline_id):
            for row in page:
                told = naming.described_version(described, str(row.get("description") or ""))
                if told is not None:
                    ours.append((_id(row, "pipeline_version_id"), told))
        return ours

    def _version_name(self, pipeline: PipelineVersion) -> str:
        return naming.version_name(pipeline.namespace, pipeline.name, pipeline.version, caching=self._caching)


def _id(document: dict[str, Any], member: str) -> str:
    found = document.get(member)
    if not isinstance(found, str) or not found:
        raise Retryable(f"the server's answer has no {member}", reason="InvalidAnswer")
    return found
