from copy import deepcopy
from typing import Any

import pytest

from kfp_operator.errors import Permanent
from kfp_operator.providers.local.rewrite import MAX_TASKS, resolve, without_pip

PIP = '\nPIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet scikit-learn && "$0" "$@"\n'
EXECUTE = ["sh", "-ec", 'program_path=$(mktemp -d)\n_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main "$@"\n', "def train(): ..."]
ARGUMENTS = ["--executor_input", "{{$}}", "--function_to_execute", "train"]


def artifact(title: str) -> dict[str, Any]:
    return {"artifactType": {"schemaTitle": title, "schemaVersion": "0.0.1"}}


def ir(tasks: dict[str, str], components: dict[str, Any] | None = None, command: list[str] | None = None) -> dict[str, Any]:
    """A pipeline of `tasks` (name -> component); components without a definition run `command`."""
    defined = components or {}
    names = set(tasks.values()) - set(defined)
    return {
        "pipelineInfo": {"name": "p"},
        "schemaVersion": "2.1.0",
        "root": {"dag": {"tasks": {task: {"componentRef": {"name": name}} for task, name in tasks.items()}}},
        "components": {name: {"executorLabel": "exec-it"} for name in names} | defined,
        "deploymentSpec": {
            "executors": {"exec-it": {"container": {"image": "python:3.11", "command": command or EXECUTE, "args": ARGUMENTS}}}
        },
    }


def command_of(resolved: dict[str, Any], component: str) -> list[str]:
    label = resolved["components"][component]["executorLabel"]
    command: list[str] = resolved["deploymentSpec"]["executors"][label]["container"]["command"]
    return command


def test_the_shell_that_installs_packages_is_dropped() -> None:
    assert without_pip(["sh", "-c", PIP, *EXECUTE]) == EXECUTE


@pytest.mark.parametrize(
    "command",
    [
        EXECUTE,
        ["sh", "-c", 'echo hello && "$0" "$@"', *EXECUTE],
        ["sh", "-c", "pip install x; exec something", *EXECUTE],
        ["sh", "-c", PIP],
    ],
)
def test_any_other_command_stays(command: list[str]) -> None:
    assert without_pip(command) == command


def test_packages_install_keeps_pip() -> None:
    kept = command_of(resolve(ir({"train": "comp-train"}, command=["sh", "-c", PIP, *EXECUTE]), "install").ir, "comp-train")
    dropped = command_of(resolve(ir({"train": "comp-train"}, command=["sh", "-c", PIP, *EXECUTE]), "preinstalled").ir, "comp-train")
    assert kept[5:] == ["sh", "-c", PIP, *EXECUTE]
    assert dropped[5:] == EXECUTE


def test_a_step_runs_through_the_wrapper_that_knows_its_path_and_component() -> None:
    inner = {
        "comp-inner": {"dag": {"tasks": {"train": {"componentRef": {"name": "comp-train"}}}}},
        "comp-train": {"executorLabel": "exec-it"},
    }
    command = command_of(resolve(ir({"inner": "comp-inner"}, inner), "preinstalled").ir, "comp-train")
    assert command[:2] == ["sh", "-c"]
    assert command[3:] == ["inner/train", "train", *EXECUTE]


def test_no_element_that_kfp_rewrites_holds_a_path_of_this_machine() -> None:
    command = command_of(resolve(ir({"train": "comp-train"}), "preinstalled").ir, "comp-train")
    assert not any("python3" in part for part in command[:5])


def test_the_given_document_is_not_changed() -> None:
    document = ir({"a": "comp-a", "b": "comp-a"})
    before = deepcopy(document)
    resolve(document, "preinstalled")
    assert document == before


def test_two_tasks_of_one_component_get_one_each() -> None:
    resolved = resolve(ir({"a": "comp-add", "b": "comp-add"}), "preinstalled")
    tasks = resolved.ir["root"]["dag"]["tasks"]
    assert [task["componentRef"]["name"] for task in tasks.values()] == ["comp-add", "comp-add-2"]
    assert {name: step.task for name, step in resolved.steps.items()} == {"add": "a", "add-2": "b"}
    assert len(resolved.ir["deploymentSpec"]["executors"]) == 2


def test_a_copy_does_not_take_the_name_of_a_component_that_comes_later() -> None:
    resolved = resolve(ir({"a": "comp-add", "b": "comp-add", "c": "comp-add-2"}), "preinstalled")
    assert {name: step.task for name, step in resolved.steps.items()} == {"add": "a", "add-3": "b", "add-2": "c"}


def test_a_pipeline_used_twice_is_copied_with_all_its_tasks() -> None:
    inner = {
        "comp-inner": {"dag": {"tasks": {"train": {"componentRef": {"name": "comp-train"}}}}},
        "comp-train": {"executorLabel": "exec-it"},
    }
    resolved = resolve(ir({"x": "comp-inner", "y": "comp-inner"}, inner), "preinstalled")
    assert set(resolved.ir["components"]) == {"comp-inner", "comp-inner-2", "comp-train", "comp-train-2"}
    assert command_of(resolved.ir, "comp-train-2")[3] == "y/train"


def test_a_component_without_the_usual_prefix_gets_it() -> None:
    assert set(resolve(ir({"a": "train"}), "preinstalled").steps) == {"train"}
    assert set(resolve(ir({"a": "train"}), "preinstalled").ir["components"]) == {"comp-train"}


def test_outputs_are_known_by_their_schema_title() -> None:
    component = {"executorLabel": "exec-it", "outputDefinitions": {"artifacts": {"model": artifact("system.Model"), "m": artifact("x.Y")}}}
    steps = resolve(ir({"train": "comp-train"}, {"comp-train": component}), "preinstalled").steps
    assert steps["train"].outputs == {"model": "system.Model", "m": "x.Y"}


@pytest.mark.parametrize(
    ("inputs", "outputs", "trains"),
    [({}, {"m": "system.Model"}, True), ({"m": "system.Model"}, {"n": "system.Model"}, False), ({}, {"d": "system.Dataset"}, False)],
)
def test_a_step_trains_if_it_makes_a_model_and_takes_none(inputs: dict[str, str], outputs: dict[str, str], trains: bool) -> None:
    component = {
        "executorLabel": "exec-it",
        "inputDefinitions": {"artifacts": {key: artifact(title) for key, title in inputs.items()}},
        "outputDefinitions": {"artifacts": {key: artifact(title) for key, title in outputs.items()}},
    }
    assert resolve(ir({"t": "comp-t"}, {"comp-t": component}), "preinstalled").steps["t"].trains is trains


def test_importers_stay_as_they_are() -> None:
    document = ir({"import": "comp-import"})
    document["deploymentSpec"]["executors"]["exec-it"] = {"importer": {"artifactUri": {"constant": "/data"}}}
    resolved = resolve(document, "preinstalled")
    assert resolved.ir["deploymentSpec"]["executors"]["comp-import"] == {"importer": {"artifactUri": {"constant": "/data"}}}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "root is missing"),
        ({"root": {}}, "dag is missing"),
        (ir({"a": "comp-a"}) | {"components": {}}, "component comp-a of task a is missing"),
        (ir({"a": "comp-a"}) | {"deploymentSpec": {}}, "executor exec-it of task a is missing"),
        (ir({"a": "comp-a"}, command=["echo", "hello"]), "task a is a container component"),
        (ir({"a": "comp-a"}, command=["python3", "-m", "kfp.dsl.executor_main"]), "task a is a containerized Python component"),
        (ir({"a": "comp-a"}, {"comp-a": {"dag": {"tasks": {"b": {"componentRef": {"name": "comp-a"}}}}}}), "contain themselves"),
    ],
)
def test_what_cannot_run_here_is_refused_by_name(document: dict[str, Any], message: str) -> None:
    with pytest.raises(Permanent, match=message):
        resolve(document, "preinstalled")


def test_a_pipeline_that_takes_artifacts_is_refused() -> None:
    document = ir({"a": "comp-a"})
    document["root"]["inputDefinitions"] = {"artifacts": {"data": artifact("system.Dataset")}}
    with pytest.raises(Permanent, match=r"takes artifacts \(data\)"):
        resolve(document, "preinstalled")


def test_an_expansion_that_explodes_is_refused() -> None:
    levels = {
        f"comp-{n}": {"dag": {"tasks": {t: {"componentRef": {"name": f"comp-{n + 1}"}} for t in ("a", "b", "c", "d")}}} for n in range(12)
    }
    with pytest.raises(Permanent, match=f"more than {MAX_TASKS} tasks"):
        resolve(ir({"x": "comp-0"}, levels | {"comp-12": {"executorLabel": "exec-it"}}), "preinstalled")
