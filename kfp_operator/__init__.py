"""Kubeflow pipelines and runs as Kubernetes resources, and what happens to them as CloudEvents on NATS."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfp_operator.schemas import V1EventKind, V1EventTrigger

__all__ = ["V1EventKind", "V1EventTrigger", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what users ask for when they do: every command imports this package, and most need no pydantic."""
    if name in {"V1EventKind", "V1EventTrigger"}:
        from kfp_operator import schemas

        return getattr(schemas, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
