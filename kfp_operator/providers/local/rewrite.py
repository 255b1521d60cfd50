"""The IR as this provider runs it, made from the IR as the user wrote it.

``kfp.local`` runs each step as ``sh -c 'pip install ... && "$0" "$@"' sh -ec '... python3 -m kfp.dsl.executor_main ...' SOURCE``. Here

- that first shell with pip is dropped (0.6 s per step, and a network), unless the Provider says ``packages: install``;
- the rest is led through the step wrapper of `worker`, which reports begin and end. It is found through variables of the environment, since
  kfp replaces every ``python3`` in a command, even within a path;
- every task gets a component of its own: kfp names the folder of a step's outputs after its component, so that two tasks of one component
  would overwrite each other. (The KFP compiler makes them so; other writers of IR need not.)

What SubprocessRunner cannot do is refused here, before anything runs, with a name.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

from kfp_operator.errors import Permanent

MAX_TASKS = 5000
MAX_DEPTH = 50
_EXECUTOR = "kfp.dsl.executor_main"
_CONTAINERIZED = ["python3", "-m", _EXECUTOR]
_WRAPPER = 'exec "$KFP_RUN_PYTHON" -I -S "$KFP_RUN_WORKER" step "$0" "$@"'

Packages = Literal["preinstalled", "install"]


@dataclass(frozen=True, slots=True)
class Step:
    """One executor of the resolved IR, and what its outputs are."""

    task: str
    """The task's name in the IR."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Schema title by output key."""
    trains: bool = False
    """Whether it makes a model and takes none: its time counts as training."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The IR to run, and its steps by the name of their component."""

    ir: dict[str, Any]
    steps: Mapping[str, Step]


def resolve(ir: Mapping[str, Any], packages: Packages) -> Resolved:
    """The IR that is run, from the PipelineSpec document `ir`, which stays as it is.

    Raises Permanent for what cannot run in local processes: container components, containerized Python components, input artifacts of the
    pipeline, a graph without end or with more than `MAX_TASKS` tasks.
    """
    root = _mapping(ir.get("root"), "root")
    artifacts = _mapping(root.get("inputDefinitions", {}), "root.inputDefinitions").get("artifacts")
    if artifacts:
        raise Permanent(f"the pipeline takes artifacts ({', '.join(artifacts)}); type local can run pipelines that take parameters only")
    resolved: dict[str, Any] = {key: deepcopy(value) for key, value in ir.items() if key not in ("components", "deploymentSpec")}
    builder = _Builder(ir, packages)
    builder.expand(resolved["root"], "", 0)
    deployment = deepcopy(dict(_mapping(ir.get("deploymentSpec", {}), "deploymentSpec")))
    deployment["executors"] = builder.executors
    return Resolved({**resolved, "components": builder.components, "deploymentSpec": deployment}, builder.steps)


class _Builder:
    """Walks the tasks from the root and copies components and executors, each for one task."""

    def __init__(self, ir: Mapping[str, Any], packages: Packages) -> None:
        self._source = _mapping(ir.get("components", {}), "components")
        self._executors = _mapping(
            _mapping(ir.get("deploymentSpec", {}), "deploymentSpec").get("executors", {}), "deploymentSpec.executors"
        )
        self._packages = packages
        self.components: dict[str, Any] = {}
        self.executors: dict[str, Any] = {}
        self.steps: dict[str, Step] = {}
        self._copies: dict[str, int] = {}

    def expand(self, component: dict[str, Any], path: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Permanent(f"the pipeline's components are nested more than {MAX_DEPTH} deep, or contain themselves")
        for name, task in _tasks(component):
            reference = _mapping(task.get("componentRef"), f"componentRef of task {name}")
            copy = deepcopy(
                dict(_mapping(self._source.get(str(reference.get("name"))), f"component {reference.get('name')} of task {name}"))
            )
            unique = self._unique(str(reference["name"]))
            task["componentRef"] = {"name": unique}
            self.components[unique] = copy
            if "dag" in copy:
                self.expand(copy, f"{path}{name}/", depth + 1)
            else:
                self._step(name, f"{path}{name}", unique, copy)

    def _unique(self, name: str) -> str:
        if len(self.components) >= MAX_TASKS:
            raise Permanent(f"the pipeline has more than {MAX_TASKS} tasks")
        name = name if name.startswith("comp-") else f"comp-{name}"  # kfp takes the folder's name from after this prefix
        if name not in self.components:
            return name
        number = self._copies.get(name, 1) + 1
        while (unique := f"{name}-{number}") in self.components or unique in self._source:
            number += 1
        self._copies[name] = number
        return unique

    def _step(self, name: str, path: str, unique: str, component: dict[str, Any]) -> None:
        label = str(component.get("executorLabel"))
        executor = deepcopy(dict(_mapping(self._executors.get(label), f"executor {label} of task {name}")))
        if "container" in executor:
            container = dict(_mapping(executor["container"], f"container of task {name}"))
            command = _strings(container, "command", name)
            _refuse_containers(name, command + _strings(container, "args", name))
            if self._packages == "preinstalled":
                command = without_pip(command)
            executor["container"] = {**container, "command": ["sh", "-c", _WRAPPER, path, unique.removeprefix("comp-"), *command]}
        component["executorLabel"] = unique
        self.executors[unique] = executor
        outputs, inputs = _artifacts(component, "outputDefinitions"), _artifacts(component, "inputDefinitions")
        makes, takes = (any(title.endswith("Model") for title in titles.values()) for titles in (outputs, inputs))
        self.steps[unique.removeprefix("comp-")] = Step(name, outputs, makes and not takes)


def without_pip(command: list[str]) -> list[str]:
    """The command without the shell that installs packages and then runs the rest (``sh -c '... pip install ... && "$0" "$@"'``)."""
    if len(command) > 3 and command[:2] == ["sh", "-c"] and "pip install" in command[2] and command[2].rstrip().endswith('"$0" "$@"'):
        return command[3:]
    return command


def _refuse_containers(name: str, command: list[str]) -> None:
    if not any(_EXECUTOR in part for part in command):
        raise Permanent(f"task {name} is a container component; type local runs Python components only (use a Provider of another type)")
    if command[:3] == _CONTAINERIZED:
        raise Permanent(
            f"task {name} is a containerized Python component, whose code is in its image; type local runs lightweight ones only"
        )


def _tasks(component: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    dag = _mapping(component.get("dag"), "dag")
    for name, task in _mapping(dag.get("tasks", {}), "dag.tasks").items():
        if not isinstance(task, dict):
            raise Permanent(f"the pipeline's task {name} is not an object")
        yield name, task


def _artifacts(component: Mapping[str, Any], side: str) -> dict[str, str]:
    definitions = _mapping(_mapping(component.get(side, {}), side).get("artifacts", {}), f"{side}.artifacts")
    titles = {key: _mapping(value, key).get("artifactType", {}) for key, value in definitions.items()}
    return {key: str(_mapping(title, key).get("schemaTitle", "")) for key, title in titles.items()}


def _strings(container: Mapping[str, Any], key: str, task: str) -> list[str]:
    value = container.get(key, [])
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise Permanent(f"{key} of task {task} is not a list of strings")
    return value


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Permanent(f"the pipeline's {what} is missing or not an object")
    return value
