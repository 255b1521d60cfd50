"""Where artifacts are read: from ML Metadata, or from the server where that has replaced it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from kfp_operator.api.states import RunState
from kfp_operator.errors import Permanent, Retryable
from kfp_operator.providers.kubeflow import artifact_api
from kfp_operator.providers.kubeflow.api import Api
from kfp_operator.providers.kubeflow.authentication import read_secret
from kfp_operator.providers.kubeflow.mlmd import MetadataStore
from kfp_operator.providers.kubeflow.parameters import KubeflowParameters
from kfp_operator.providers.kubeflow.states import STATES
from kfp_operator.providers.protocol import ComponentArtifact, Secrets


class Artifacts:
    """The source that the parameters choose; with Auto the server is asked once what it has."""

    def __init__(self, parameters: KubeflowParameters, api: Api, secrets: Secrets | None) -> None:
        self._parameters = parameters
        self._api = api
        self._secrets = secrets
        self._by_api: bool | None = {"ArtifactApi": True, "MetadataStore": False}.get(parameters.artifact_source)
        self._store: MetadataStore | None = None
        self._checked = False

    async def check(self) -> None:
        """Return when artifacts can be read. Once they could, an outage of ML Metadata is no reason to start no runs."""
        if self._checked or self._parameters.artifact_source == "None":
            return
        if not await self._from_server():
            store = await self._open()
            try:
                await store.check()
            except Retryable as error:
                raise Retryable(f"{error}; spec.parameters.artifactSource: None does without artifacts", reason=error.reason) from error
        self._checked = True

    async def close(self) -> None:
        """Close connections."""
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    async def of(self, run_id: str) -> Sequence[ComponentArtifact]:
        """What an ended run produced. Retryable while a succeeded run's are not there."""
        if self._parameters.artifact_source == "None":
            return ()
        found = await (artifact_api.artifacts(self._api, run_id) if await self._from_server() else self._recorded(run_id))
        if found is not None:
            return found
        run = await self._api.run(run_id)
        if run is not None and STATES.get(str(run.get("state") or "")) is RunState.SUCCEEDED:
            where = f"ML Metadata at {self._store.address}" if self._store is not None else "the server"
            message = f"{where} does not know run {run_id}, which succeeded; does it belong to this Kubeflow Pipelines"
            raise Retryable(f"{message} (spec.parameters.metadataEndpoint)?", reason="ArtifactsMissing")
        return ()  # it died before it began

    async def _recorded(self, run_id: str) -> Sequence[ComponentArtifact] | None:
        return await (await self._open()).artifacts(run_id)

    async def _from_server(self) -> bool:
        if self._by_api is None:
            self._by_api = await artifact_api.available(self._api)
        return self._by_api

    async def _open(self) -> MetadataStore:
        if self._store is None:
            address = self._parameters.metadata_address
            if not address:
                raise Permanent(
                    "where ML Metadata is cannot be told from spec.parameters.endpoint: set spec.parameters.metadataEndpoint, "
                    "as metadata-grpc-service.kubeflow:8080, or artifactSource: None",
                    reason="MetadataEndpointMissing",
                )
            self._store = MetadataStore(address, authorities=await self._authorities())
        return self._store

    async def _authorities(self) -> bytes | None:
        parameters = self._parameters
        if parameters.ca_file is not None:
            path = Path(parameters.ca_file)
            try:
                return await asyncio.to_thread(path.read_bytes)
            except OSError as error:
                raise Retryable(
                    f"spec.parameters.caFile {path} cannot be read: {error.strerror}", reason="AuthoritiesUnreadable"
                ) from error
        if parameters.ca_secret_key_ref is not None:
            ref = parameters.ca_secret_key_ref
            return await read_secret(self._secrets, ref.name, ref.key, "spec.parameters.caSecretKeyRef")
        return None
