"""`spec.parameters` of a Provider of type local."""

import re
import sys
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = frozenset({"HOME", "TMPDIR"})


def _environment(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of an environment variable")
        if name in _RESERVED or name.startswith("KFP_RUN_"):
            raise ValueError(f"{name} is set by the provider for each run")
        if "\0" in text:
            raise ValueError(f"the value of {name} has a null byte")
    return value


class LocalParameters(BaseModel):
    """How runs are executed on this machine. Every member has a default; unknown ones are errors."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    packages: Literal["preinstalled", "install"] = Field(
        "preinstalled",
        description="preinstalled: steps use what the interpreter has; their packages_to_install are ignored. "
        "install: each step gets a virtual environment of its own, made with pip; needs a network and some ten seconds per step. "
        "pip is configured by the machine (/etc/pip.conf) or by PIP_* in environment.",
    )
    python: str = Field(
        default_factory=lambda: sys.executable,
        description="Absolute path of the Python (3.11 or later) that has kfp and the packages of steps. Default: the operator's.",
        pattern="^/",
        max_length=4096,
    )
    environment: Annotated[dict[str, str], AfterValidator(_environment)] = Field(
        default_factory=dict,
        description="Environment variables for steps, besides the few that are passed on (PATH, LANG, TZ, certificates). "
        "Not for secrets: everyone who may read Providers can read them.",
        max_length=256,
    )
    max_log_bytes: int = Field(
        64 * 1024 * 1024,
        description="Bytes of log kept per run: the first half, and the last part of what came after.",
        ge=8192,
        le=1 << 40,
    )
    termination_grace_period_seconds: float = Field(
        10, description="Seconds that a run has to stop after SIGTERM, before SIGKILL.", ge=0, le=3600
    )
