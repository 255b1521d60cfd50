"""Labels and annotations under the API group, and names too long for a label."""

import dataclasses

import pytest

from kfp_operator.api.names import GO_FINALIZER, Names, label_value, labelled, name_in

LONG = "a-run-configuration-whose-name-is-longer-than-what-a-label-of-kubernetes-holds"


def test_every_name_is_under_the_group_and_differs_from_the_others() -> None:
    names = Names("pipelines.kubeflow.org")
    properties = [name for name, value in vars(Names).items() if isinstance(value, property) and name != "api_version"]
    values = [getattr(names, name) for name in properties]
    assert len(set(values)) == len(values) > 10
    assert all(value.startswith("pipelines.kubeflow.org/") and len(value.partition("/")[2]) <= 63 for value in values)


def test_the_group_is_the_only_thing_that_names_depend_on() -> None:
    assert [field.name for field in dataclasses.fields(Names)] == ["group"]


@pytest.mark.parametrize("name", ["penguin", LONG, f"{LONG}-2", "x" * 63, "x" * 64, ""])
def test_a_name_is_read_back_whole_from_labels_and_annotations(name: str) -> None:
    labels, annotations = labelled("k", name)
    assert len(labels["k"]) <= 63
    assert name_in("k", labels, annotations) == name


def test_a_name_that_a_label_holds_needs_no_annotation() -> None:
    assert labelled("k", "penguin") == ({"k": "penguin"}, {})


def test_an_annotation_that_does_not_belong_to_the_label_is_not_believed() -> None:
    labels, _ = labelled("k", LONG)
    assert name_in("k", labels, {"k": "another"}) == label_value(LONG)
    assert name_in("k", {}, {"k": "another"}) == ""
    assert name_in("k", {}, {}) == ""


def test_only_our_own_finalizer_is_ours() -> None:
    names = Names()
    others = [GO_FINALIZER, "kfp-operator.dev/other", "example.org/hold"]
    assert not names.held(others)
    assert names.held([*others, names.finalizer])
    assert names.released([others[0], names.finalizer, *others[1:]]) == others


def test_under_the_go_operators_group_its_finalizer_is_ours_too() -> None:
    names = Names("pipelines.kubeflow.org")
    assert names.held([GO_FINALIZER])
    assert names.released(["example.org/hold", GO_FINALIZER, names.finalizer]) == ["example.org/hold"]
