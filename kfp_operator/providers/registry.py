"""Finds the provider types that are installed: entry points of group ``kfp_operator.providers``, named after `spec.type`.

A package adds a type by an entry point to an object that meets `protocol.ProviderType`; nothing else is needed, and a type is imported only
when a Provider asks for it.
"""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kfp_operator.errors import InvalidSpec
from kfp_operator.providers.protocol import ProviderType

GROUP = "kfp_operator.providers"
_FIELD = "spec.parameters"


def find(type_: str, *, enabled: Collection[str] = (), in_cluster: bool, installed: Iterable[EntryPoint] | None = None) -> ProviderType:
    """The provider type of that name.

    Args:
        type_: `spec.type` of a Provider.
        enabled: The setting `providers.enabled`.
        in_cluster: Whether this process runs in a pod.
        installed: Entry points to choose from; default: those of the installed packages.

    Raises:
        InvalidSpec: No package offers the type, its package cannot be imported, or it may not run in a cluster.

    """
    known = {point.name: point for point in (entry_points(group=GROUP) if installed is None else installed)}
    if type_ not in known:
        names = ", ".join(sorted(known)) or "none"
        raise InvalidSpec(
            f"{type_!r} is not a provider type that is installed here ({names}){_nearest(type_, known)}",
            field="spec.type",
            reason="UnknownProviderType",
        )
    provider_type = _load(known[type_])
    if in_cluster and not provider_type.in_cluster and type_ not in enabled:
        raise InvalidSpec(
            f"type {type_} runs the code of pipelines beside the operator, with its rights in the cluster; "
            f"whoever wants that all the same adds {type_!r} to the operator's setting providers.enabled",
            field="spec.type",
            reason="ProviderTypeNotEnabled",
        )
    return provider_type


def _load(point: EntryPoint) -> ProviderType:
    try:
        loaded = point.load()
    except (ImportError, AttributeError) as error:
        package = point.dist.name if point.dist is not None else point.value
        extras = (point.dist.metadata.get_all("Provides-Extra") or []) if point.dist is not None else []
        remedy = f"; pip install '{package}[{point.name}]' installs what it needs" if point.name in extras else ""
        raise InvalidSpec(
            f"type {point.name} of package {package} cannot be imported: {error}{remedy}",
            field="spec.type",
            reason="ProviderTypeBroken",
        ) from error
    return cast("ProviderType", loaded() if isinstance(loaded, type) else loaded)


def parse_parameters(provider_type: ProviderType, parameters: Mapping[str, Any]) -> BaseModel:
    """`spec.parameters` as the type's own model.

    Raises:
        InvalidSpec: Names every wrong member with its path, what is wrong, and for an unknown one those that exist.

    """
    try:
        return provider_type.parameters.model_validate(dict(parameters))
    except ValidationError as error:
        problems = [_problem(detail, provider_type.parameters) for detail in error.errors(include_url=False)]
        raise InvalidSpec("; ".join(problems), field=_FIELD, reason="InvalidParameters") from None


def _problem(detail: ErrorDetails, model: type[BaseModel]) -> str:
    path = _path(detail["loc"])
    if detail["type"] != "extra_forbidden":
        own = detail["type"] == "value_error"
        message = detail["msg"].removeprefix("Value error, ") if own else detail["msg"][:1].lower() + detail["msg"][1:]
        return f"{path}: {message}" if path else message
    if len(detail["loc"]) > 1:
        return f"{path}: there is no such parameter"
    accepted = sorted(field.alias or name for name, field in model.model_fields.items())
    return f"{path}: there is no such parameter (there are {', '.join(accepted)}){_nearest(str(detail['loc'][-1]), accepted)}"


def _path(location: Sequence[int | str]) -> str:
    """As in a manifest: ``a.b[0].c``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _nearest(name: str, known: Iterable[str]) -> str:
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower().replace("_", ""), by_lower, n=1)
    return f", did you mean {by_lower[near[0]]}?" if near else ""
