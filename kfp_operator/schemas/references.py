"""What triggers refer to: ``runConfigurations.train``, ``ops.trainer``, ``connections.git``, parsed once into what they mean.

A reference is written bare or as a template, ``{{ runConfigurations.train }}``; both mean the same and are kept bare. The first dot
separates the type from the name, so names may hold dots.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from kfp_operator.schemas.kinds import ORDER, V1EventKind

MAX_REFERENCE = 400
"""Characters of a reference as written: a type, "namespace/name", braces and some spaces."""
MAX_NAME = 253
MAX_OPERATION = 63

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_UID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
OBJECT_NAME = _SUBDOMAIN
CONFIGURATION_NAME = rf"({_LABEL}/)?{_SUBDOMAIN}"
OPERATION_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
EXTERNAL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"


class RefType(StrEnum):
    """What a reference names: its first word."""

    OPS = "ops"
    RUNS = "runs"
    RUN_CONFIGURATIONS = "runConfigurations"
    PIPELINES = "pipelines"
    CONNECTIONS = "connections"
    MODELS = "models"
    PROJECTS = "projects"
    ORGS = "orgs"
    ALERTS = "alerts"

    @property
    def prefix(self) -> str:
        """What the kinds begin with that can come from such a reference."""
        return _PREFIXES.get(self, "run_")

    @property
    def form(self) -> str:
        """How it is written."""
        return f"{self.value}.{_NAMES[self][1]}"

    @property
    def pattern(self) -> str:
        """RE2 pattern of the name."""
        return _NAMES[self][0]

    @property
    def kinds(self) -> tuple[V1EventKind, ...]:
        """The kinds that can come from such a reference."""
        return tuple(kind for kind in ORDER if kind.value.startswith(self.prefix))


_PREFIXES = {
    RefType.CONNECTIONS: "connection_",
    RefType.MODELS: "model_",
    RefType.PROJECTS: "project_",
    RefType.ORGS: "org_",
    RefType.ALERTS: "alert_",
}
_NAMES = {
    RefType.OPS: (OPERATION_NAME, "NAME (an operation, in a Dag)"),
    RefType.RUNS: (OBJECT_NAME, "NAME or runs.UID"),
    RefType.RUN_CONFIGURATIONS: (CONFIGURATION_NAME, "[NAMESPACE/]NAME"),
    RefType.PIPELINES: (OBJECT_NAME, "NAME"),
    **dict.fromkeys(_PREFIXES, (EXTERNAL_NAME, "NAME")),
}
_BY_WORD = {kind.value.lower(): kind for kind in RefType}
FORMS = ", ".join(kind.form for kind in RefType)
"""All accepted forms, for messages."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference that was understood. `namespace` is set only where one was written."""

    type: RefType
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.type.value}.{self.namespace}/{self.name}" if self.namespace else f"{self.type.value}.{self.name}"

    def check_kinds(self, kinds: Iterable[V1EventKind]) -> None:
        """Raise ValueError for kinds that can never come from this reference; it names those that can."""
        strangers = [kind.value for kind in kinds if not kind.startswith(self.type.prefix)]
        if strangers:
            accepted = ", ".join(kind.value for kind in self.type.kinds)
            raise ValueError(f"{', '.join(strangers)} can never come from {self}; what can: {accepted}")


def parse_reference(text: str) -> Reference:
    """Understand a reference, bare or as a template.

    ValueError names the accepted forms.
    """
    word = bare(text)
    kind_word, _, name = word.partition(".")
    kind = _BY_WORD.get(kind_word.lower())
    if kind is None:
        raise ValueError(f"{_quoted(text)} is not a reference; accepted: {FORMS}, each also as {{{{ ... }}}}{_meant(kind_word)}")
    if not name:
        raise ValueError(f"{_quoted(text)} names nothing; accepted: {kind.form}")
    if kind is RefType.RUNS and _UID.fullmatch(name):
        name = name.lower()
    namespace, _, rest = name.rpartition("/") if kind is RefType.RUN_CONFIGURATIONS else ("", "", name)
    longest = MAX_OPERATION if kind is RefType.OPS else MAX_NAME
    if len(rest) > longest or len(namespace) > MAX_OPERATION or not re.fullmatch(kind.pattern, name):
        raise ValueError(f"{_quoted(text)}: {_quoted(name)} is not a name as in {kind.form} of at most {longest} characters")
    return Reference(kind, rest, namespace)


def bare(text: str) -> str:
    """Without spaces around and without one pair of braces: ``ops.a`` for ``{{ ops.a }}``."""
    word = text.strip()
    if word.startswith("{{") and word.endswith("}}") and len(word) >= 4:
        word = word[2:-2].strip()
    return word


def similar(reference: Reference, seen: Iterable[Reference], limit: int = 3) -> list[Reference]:
    """Those of the references seen that are spelt most like this one, the best first: for "never seen; did you mean ...?"."""
    named: dict[str, Reference] = {str(one): one for one in seen}
    return [named[word] for word in difflib.get_close_matches(str(reference), named, n=limit, cutoff=0.75)]


def _meant(word: str) -> str:
    close = difflib.get_close_matches(word.lower(), _BY_WORD, n=1)
    return f"; did you mean {_BY_WORD[close[0]].value}.?" if close and word else ""


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")
