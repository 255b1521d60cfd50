"""The table of parameters in docs/providers.md is that of the model."""

from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from kfp_operator.providers.kubeflow.parameters import Authentication, KubeflowParameters, SecretKey

DOCUMENT = Path(__file__).parents[4] / "docs" / "providers.md"


def model_in(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a member that has members of its own."""
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def default_of(field: FieldInfo) -> str:
    value: Any = field.default
    if value is PydanticUndefined:
        return "required" if field.default_factory is None else ""
    if value in (None, ""):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def rows(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for field in model.model_fields.values():
        name = f"{prefix}{field.alias}"
        inner = model_in(field)
        found.append(f"| `{name}` | {default_of(field)} | {field.description} |".replace("|  |", "| |"))
        if inner is not None and inner is not SecretKey and issubclass(inner, Authentication.__mro__[1]):
            found += rows(inner, f"{name}.")
    return found


def test_every_parameter_is_documented_as_it_is() -> None:
    table = "\n".join(rows(KubeflowParameters))
    assert table in DOCUMENT.read_text(), f"docs/providers.md must contain\n{table}"
