"""CustomResourceDefinitions, generated from the models: what stands in ``crds/`` and in the chart.

``kfp-operator crds`` prints or writes them; a test fails when the repository's differ. Under the Go operator's group they let its form
of `status.provider` pass, an object with name and id: the API server removes what a schema does not know when it reads an object, and
with it the only trace of what exists at the backend.
"""

from dataclasses import dataclass
from typing import Any

import yaml

from kfp_operator.api.experiment import Experiment
from kfp_operator.api.meta import Resource
from kfp_operator.api.names import DEFAULT_GROUP, GO_GROUP, VERSION
from kfp_operator.api.pipeline import Pipeline
from kfp_operator.api.provider import Provider
from kfp_operator.api.run import Run
from kfp_operator.api.run_configuration import RunConfiguration
from kfp_operator.api.run_schedule import RunSchedule
from kfp_operator.api.schema import PRESERVE, structural

HEADER = "# Generated from the models in kfp_operator/api by: kfp-operator crds --output crds\n"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of ``kubectl get``; priority 1 only with ``-o wide``."""

    name: str
    path: str
    description: str
    type: str = "string"
    priority: int = 0

    def to_json(self) -> dict[str, Any]:
        """As the CRD has it."""
        return {
            "name": self.name,
            "type": self.type,
            "description": self.description,
            "jsonPath": self.path,
            "priority": self.priority,
        }


@dataclass(frozen=True, slots=True)
class Kind:
    """One of our kinds, and how kubectl names and shows it."""

    model: type[Resource]
    plural: str
    short: str
    columns: tuple[Column, ...]
    selectable: tuple[str, ...]
    """Plain string fields that ``kubectl get --field-selector`` understands."""

    @property
    def name(self) -> str:
        """The kind, as Run."""
        return self.model.__name__


READY_REASON = Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Reason of condition Ready.")
SYNC_STATE = Column("State", ".status.synchronizationState", "Where it is on its way to the backend.")
AGE = Column("Age", ".metadata.creationTimestamp", "Time since its creation.", "date")
MESSAGE = Column("Message", ".status.message", "Why it waits or failed.", priority=1)

KINDS = (
    Kind(
        Provider,
        "providers",
        "mlprv",
        (
            Column("Type", ".spec.type", "The kind of backend."),
            SYNC_STATE,
            READY_REASON,
            AGE,
            MESSAGE,
        ),
        (".spec.type",),
    ),
    Kind(
        Pipeline,
        "pipelines",
        "mlp",
        (
            SYNC_STATE,
            READY_REASON,
            Column("Provider", ".spec.provider", "The Provider it runs on."),
            Column("Version", ".status.version", "The version that new runs use."),
            AGE,
            Column("ID", ".status.providerId", "The backend's id.", priority=1),
            MESSAGE,
        ),
        (".spec.provider", ".status.version"),
    ),
    Kind(
        Run,
        "runs",
        "mlr",
        (
            Column("State", ".status.state", "Where the run is."),
            READY_REASON,
            Column("Pipeline", ".spec.pipeline", "The Pipeline it runs."),
            Column("Provider", ".status.provider", "The Provider it runs on."),
            AGE,
            Column("ID", ".status.providerId", "The backend's id.", priority=1),
            Column("Version", ".status.pipelineVersion", "The version of the Pipeline.", priority=1),
            Column("Attempt", ".status.attempt", "Number of the attempt.", "integer", priority=1),
            Column("Ended", ".status.endTime", "Time since its end.", "date", priority=1),
            MESSAGE,
        ),
        (".spec.pipeline", ".spec.provider", ".status.state", ".status.provider"),
    ),
    Kind(
        Experiment,
        "experiments",
        "mlexp",
        (
            SYNC_STATE,
            READY_REASON,
            Column("Provider", ".spec.provider", "The Provider it exists at."),
            AGE,
            Column("ID", ".status.providerId", "The backend's id.", priority=1),
            MESSAGE,
        ),
        (".spec.provider",),
    ),
    Kind(
        RunConfiguration,
        "runconfigurations",
        "mlrc",
        (
            READY_REASON,
            Column("Suspend", ".spec.suspend", "Whether it starts nothing.", "boolean"),
            Column("Active", ".status.active[*].name", "The first of the Runs that have not ended.", priority=1),
            Column("Pipeline", ".spec.run.pipeline", "The Pipeline it runs."),
            Column("Last Success", ".status.lastSuccessfulTime", "Time since the last run that succeeded.", "date"),
            Column("Next Schedule", ".status.nextScheduleTime", "The next tick.", priority=1),
            AGE,
            MESSAGE,
        ),
        (".spec.run.pipeline", ".spec.run.provider"),
    ),
    Kind(
        RunSchedule,
        "runschedules",
        "mlrs",
        (
            Column("Schedule", ".spec.schedule.cronExpression", "The cron expression."),
            Column("Time Zone", ".spec.schedule.timeZone", "Its time zone.", priority=1),
            Column("Suspend", ".spec.suspend", "Whether it starts nothing.", "boolean"),
            READY_REASON,
            Column("Active", ".status.active[*].name", "The first of the Runs that have not ended.", priority=1),
            Column("Pipeline", ".spec.pipeline", "The Pipeline it runs."),
            Column("Last Schedule", ".status.lastScheduleTime", "Time since the last tick that started a Run.", "date"),
            Column("Next Schedule", ".status.nextScheduleTime", "The next tick.", priority=1),
            AGE,
            MESSAGE,
        ),
        (".spec.pipeline", ".spec.provider"),
    ),
)


def crds(group: str = DEFAULT_GROUP) -> list[dict[str, Any]]:
    """The CustomResourceDefinition documents of all kinds under an API group."""
    return [_crd(kind, group) for kind in KINDS]


def crd_files(group: str = DEFAULT_GROUP) -> dict[str, str]:
    """File name to YAML text, one file per kind."""
    return {f"{kind.plural}.yaml": HEADER + _yaml(_crd(kind, group)) for kind in KINDS}


def crd_yaml(group: str = DEFAULT_GROUP) -> str:
    """All kinds in one YAML stream, as ``kubectl apply -f -`` takes it."""
    return HEADER + "".join(f"---\n{_yaml(document)}" for document in crds(group))


def schema(model: type[Resource]) -> dict[str, Any]:
    """The structural schema of a kind."""
    parts = model.model_json_schema(by_alias=True)
    properties = {
        "apiVersion": {
            "type": "string",
            "description": "API group and version of this object.",
        },
        "kind": {"type": "string", "description": "Kind of this object."},
        "metadata": {"type": "object"},
    }
    for part in ("spec", "status"):
        properties[part] = structural({**parts["properties"][part], "$defs": parts["$defs"]}, defaults=part == "spec")
    whole = {"description": parts["description"], "type": "object", "required": ["spec"], "properties": properties}
    return whole | {"x-kubernetes-validations": [rule.to_json() for rule in model.rules]} if model.rules else whole


def _crd(kind: Kind, group: str) -> dict[str, Any]:
    whole, selectable = schema(kind.model), kind.selectable
    if group == GO_GROUP:
        status = whole["properties"]["status"]["properties"]
        status["provider"] = {"description": status["provider"]["description"], PRESERVE: True}
        selectable = tuple(path for path in selectable if path != ".status.provider")
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": ["mlops"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [column.to_json() for column in kind.columns],
                    "selectableFields": [{"jsonPath": path} for path in selectable],
                    "schema": {"openAPIV3Schema": whole},
                }
            ],
        },
    }


class _Dumper(yaml.SafeDumper):
    """No anchors: equal parts are written out, as people expect of a CRD."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=140, allow_unicode=True)
