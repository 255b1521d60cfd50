"""Runs pipelines as processes on this machine, with ``kfp.local``: no cluster, no cloud.

`folder` is the state of a run, `statedir` of all of them; `driver` is the process that runs one, `worker` what runs below that,
`rewrite` makes the IR they run; `provider` decides what runs when, `process` is its side of processes, `feed` tells its watches;
`outputs` and `logs` are what comes out.
"""

from pydantic import BaseModel

from kfp_operator.errors import InvalidSpec
from kfp_operator.providers.local.parameters import LocalParameters
from kfp_operator.providers.local.provider import LocalProvider
from kfp_operator.providers.protocol import Provider, ProviderConfig


class LocalProviderType:
    """Entry point `local`."""

    parameters: type[BaseModel] = LocalParameters
    in_cluster = False

    def open(self, config: ProviderConfig) -> Provider:
        """A provider on `config.state_dir`. Raises InvalidSpec for a pipeline root that is no local folder."""
        if not isinstance(config.parameters, LocalParameters):
            raise InvalidSpec(f"parameters of another type: {type(config.parameters).__name__}", field="spec.parameters")
        return LocalProvider(config, config.parameters)


__all__ = ["LocalParameters", "LocalProvider", "LocalProviderType"]
