"""The Go operator's manifests on a real API server with our CRDs, and its objects after its CRDs were replaced by ours."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from kfp_operator.api import conditions
from kfp_operator.api.crd import KINDS, crd_files
from kfp_operator.api.meta import Model, Resource
from kfp_operator.api.names import DEFAULT_GROUP, GO_FINALIZER, GO_GROUP, Names
from kfp_operator.api.states import SyncState
from kfp_operator.operator.client import Cluster as Client
from kfp_operator.operator.credentials import load_credentials
from kfp_operator.operator.objects import ClusterObjects
from kfp_operator.operator.resources import Kinds
from kfp_operator.operator.store import Key
from tests.cluster import Cluster
from tests.integration.go_operator import MANIFESTS, STATUSES, moved_cluster, namespace_in, own_cluster

MODELS: dict[str, type[Resource]] = {kind.name: kind.model for kind in KINDS}


@pytest.fixture(scope="module")
def same_group(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with our CRDs under the Go operator's group."""
    folder = tmp_path_factory.mktemp("crds")
    for name, text in crd_files(GO_GROUP).items():
        (folder / name).write_text(text)
    with own_cluster(cluster, folder) as made:
        yield made


@pytest.fixture(scope="module")
def moved(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, str]]:
    """A cluster in which the Go operator ran and whose CRDs were replaced by ours, and the namespace of its objects."""
    with moved_cluster(cluster, tmp_path_factory.mktemp("crds")) as found:
        yield found


def read_all(cluster: Cluster, namespace: str, group: str) -> list[dict[str, Any]]:
    kinds = ",".join(f"{kind.plural}.{group}" for kind in KINDS)
    items: list[dict[str, Any]] = json.loads(cluster.kubectl("get", kinds, "-n", namespace, "-o", "json").stdout)["items"]
    return items


def contains(found: Any, given: Any) -> bool:
    """Whether all that was given is there; defaults may have been added."""
    match given:
        case dict():
            return isinstance(found, dict) and all(key in found and contains(found[key], value) for key, value in given.items())
        case list():
            return isinstance(found, list) and len(found) == len(given) and all(map(contains, found, given))
    return bool(found == given)


def taken(cluster: Cluster, namespace: str, text: str, group: str) -> None:
    cluster.kubectl("create", "-n", namespace, "--filename", "-", stdin=text)
    given = list(yaml.safe_load_all(text))
    stored = read_all(cluster, namespace, group)
    assert len(stored) == len(given)
    for document in given:
        [found] = [item for item in stored if item["kind"] == document["kind"] and contains(item["spec"], document["spec"])][:1] or [{}]
        assert found, document
        MODELS[document["kind"]].parse(found)


def test_the_go_operators_manifests_are_accepted_with_another_api_version(cluster: Cluster, namespace: str) -> None:
    text = MANIFESTS.replace(f"apiVersion: {GO_GROUP}/v1beta1", f"apiVersion: {DEFAULT_GROUP}/v1beta1")
    assert GO_GROUP not in text
    taken(cluster, namespace, text, DEFAULT_GROUP)


def test_the_go_operators_manifests_are_accepted_as_they_are_under_its_group(same_group: Cluster) -> None:
    taken(same_group, namespace_in(same_group), MANIFESTS, GO_GROUP)


def test_what_the_go_operator_left_is_read_with_the_ids_of_what_is_at_the_backend(moved: tuple[Cluster, str]) -> None:
    cluster, namespace = moved
    found = {(item["kind"], item["metadata"]["name"]): item for item in read_all(cluster, namespace, GO_GROUP)}
    assert len(found) == len(STATUSES)
    for left in STATUSES:
        model: Any = MODELS[left["kind"]].parse(found[left["kind"], left["name"]])
        provider = left["status"]["provider"]
        told = (model.status.provider, model.status.provider_id)
        assert told == ((provider["name"], provider["id"]) if isinstance(provider, dict) else (provider, ""))


@pytest.mark.parametrize("left", STATUSES, ids=lambda left: f"{left['kind']}-{left['name']}")
async def test_the_api_server_takes_what_we_write_to_objects_of_the_go_operator(moved: tuple[Cluster, str], left: dict[str, Any]) -> None:
    cluster, namespace = moved
    names, key = Names(GO_GROUP), Key(left["kind"], namespace, left["name"])
    async with Client(await load_credentials(str(cluster.kubeconfig))) as client:
        objects = ClusterObjects(client, Kinds(GO_GROUP), lambda: None)
        found: Any = await objects.get(key)
        held = await objects.patch_metadata(found, {"finalizers": [*names.released(found.metadata.finalizers), names.finalizer]})
        assert held.metadata.finalizers == [names.finalizer]
        wishes = conditions.progressing("Waiting", "waits")
        status: Model = held.status.model_copy(
            update={
                "synchronization_state": SyncState.CREATING,
                "conditions": conditions.apply(held.status.conditions, wishes, generation=1, now=held.metadata.creation_timestamp),
            }
        )
        written: Any = await objects.patch_status(held, status)
        assert written.status == status
        kind = {resource.kind: resource for resource in Kinds(GO_GROUP).all}[left["kind"]]
        stored = (await client.get(kind, key.name, namespace))["status"]
        for name, value in status.to_json().items():
            assert stored[name] == value or (name, stored[name]) == ("latestRuns", {"succeeded": {}})
        assert not stored.keys() - status.to_json().keys()
        await objects.patch_metadata(written, {"finalizers": [GO_FINALIZER]})
