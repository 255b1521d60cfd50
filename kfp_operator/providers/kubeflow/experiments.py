"""Experiments at the server, found by name: those of Experiment resources, those that people made, and the default."""

from kfp_operator.errors import Retryable
from kfp_operator.providers.kubeflow import naming
from kfp_operator.providers.kubeflow.api import Api
from kfp_operator.providers.kubeflow.errors import Refusal


class Experiments:
    """`default`: name of the experiment of runs that name none."""

    def __init__(self, api: Api, *, default: str) -> None:
        self._api = api
        self._default = default
        self._known: dict[str, str] = {}

    async def ensure(self, name: str, description: str) -> str:
        """The id of the experiment with this name, which is made if there is none.

        One that is there keeps its description: the server cannot update it.
        """
        found = await self._api.experiment_named(name)
        if found is None:
            try:
                found = await self._api.create_experiment(name, description)
            except Refusal as error:
                if not error.exists:
                    raise
                found = await self._api.experiment_named(name)
        if found is None or not found.get("experiment_id"):
            raise Retryable(f"experiment {name} was made and is not found yet", reason="NotFoundYet", after=2)
        return str(found["experiment_id"])

    async def of_run(self, namespace: str, name: str) -> str:
        """The id for a run: of the Experiment `name` in its namespace, else of one with that name at the server; "": the default.

        Retryable while there is neither: it may be made yet.
        """
        wanted = naming.experiment_name(namespace, name) if name else ""
        if wanted not in self._known:
            self._known[wanted] = await self._find(namespace, name, wanted)
        return self._known[wanted]

    def forget(self) -> None:
        """The server says that one is not there."""
        self._known.clear()

    async def delete(self, experiment_id: str) -> None:
        """Remove it, not its runs; fine when it is gone."""
        await self._api.delete_experiment(experiment_id)
        self.forget()

    async def _find(self, namespace: str, name: str, wanted: str) -> str:
        if not name:
            return await self.ensure(self._default, "Runs that name no experiment")
        for each in (wanted, name):
            found = await self._api.experiment_named(each)
            if found is not None and found.get("experiment_id"):
                return str(found["experiment_id"])
        raise Retryable(
            f"waits for experiment {name} (spec.experimentName): create Experiment {namespace}/{name}, or one named {name} at the server",
            reason="ExperimentNotFound",
        )
