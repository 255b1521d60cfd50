"""Cuts a status to the bounds its CRD sets, so that a long message never makes a write fail."""

from typing import Any, TypeVar, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kfp_operator.api.schema import Enforced

M = TypeVar("M", bound=BaseModel)


def clip(model: M) -> M:
    """The model with every string, list and map (and those inside) cut to its declared maximum; itself when nothing is over."""
    update: dict[str, Any] = {}
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        cut = _clip_value(value, _limit(info))
        if cut is not value:
            update[name] = cut
    return model.model_copy(update=update) if update else model


def _clip_value(value: Any, limit: int | None) -> Any:
    if isinstance(value, BaseModel):
        return clip(value)
    if isinstance(value, str) and limit is not None and len(value) > limit:
        return value[: limit - 1] + "…"
    if isinstance(value, dict) and limit is not None and len(value) > limit:
        return {key: value[key] for key in list(value)[:limit]}
    if isinstance(value, list):
        items = [_clip_value(item, None) for item in (value[:limit] if limit is not None else value)]
        if len(items) != len(value) or any(a is not b for a, b in zip(items, value, strict=True)):
            return items
    return value


def _limit(info: FieldInfo) -> int | None:
    found = [*info.metadata]
    for choice in get_args(info.annotation):  # Annotated[...] | None
        found += getattr(choice, "__metadata__", ())
    limits = [
        limit for m in found if isinstance(m, Enforced) for limit in (m.max_length, m.max_items, m.max_properties) if limit is not None
    ]
    return min(limits, default=None)
