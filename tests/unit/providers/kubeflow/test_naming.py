import itertools

import pytest

from kfp_operator.providers.kubeflow import naming
from kfp_operator.providers.kubeflow.naming import Mark


def test_names_of_different_objects_never_meet() -> None:
    long = "x" * 200
    objects = [("a-b", "c"), ("a", "b-c"), ("a", "b.c"), ("a", f"{long}-1"), ("a", f"{long}-2"), ("a", long)]
    # a name that spells out what another one was shortened to
    objects.append(("a", naming.pipeline_name("a", long).removeprefix("a.")))
    for make in (naming.pipeline_name, naming.experiment_name):
        names = [make(namespace, name) for namespace, name in objects]
        assert len(set(names)) == len(objects)
    versions = [naming.version_name(*one, version) for one, version in itertools.product(objects, ("49e208", "49e209"))]
    assert len(set(versions)) == 2 * len(objects)


@pytest.mark.parametrize("name", ["train", "x" * 253, "a." * 126 + "a", "a-" * 126 + "a"])
def test_names_fit_and_are_names_of_kubernetes_objects(name: str) -> None:
    for made in (naming.pipeline_name("n" * 63, name), naming.version_name("n" * 63, name, "49e208", caching=False)):
        assert len(made) <= naming.LONGEST
        assert all(part[0].isalnum() and part[-1].isalnum() for part in made.split("."))
    assert len(naming.experiment_name("n" * 63, name)) <= naming.LONGEST
    assert len(naming.run_name("n" * 63, name, 12)) <= naming.LONGEST_RUN


def test_short_names_are_what_people_expect() -> None:
    assert naming.pipeline_name("team-a", "train") == "team-a.train"
    assert naming.version_name("team-a", "train", "49e208") == "team-a.train.49e208"
    assert naming.experiment_name("team-a", "penguin") == "team-a/penguin"
    assert naming.run_name("team-a", "train-1", 1) == "team-a/train-1"
    assert naming.run_name("team-a", "train-1", 2) == "team-a/train-1 (attempt 2)"


def test_what_a_provider_imposes_on_the_spec_makes_another_version() -> None:
    made = {naming.version_name("a", "b", "49e208", caching=caching) for caching in (None, True, False)}
    assert len(made) == 3


def test_a_version_is_known_as_ours_by_its_description() -> None:
    told, pipeline = naming.version_description("team-a", "train", "49e208"), naming.pipeline_description("team-a", "train")
    assert naming.described_version(pipeline, told) == "49e208"
    assert naming.described_pipeline(pipeline) == "team-a/train"
    for other, text in ((naming.pipeline_description("team-a", "other"), told), (pipeline, "my own"), (pipeline, ""), ("my own", told)):
        assert naming.described_version(other, text) is None


def test_a_runs_mark_says_whose_it_is() -> None:
    mark = Mark("mlops/kfp", "0b9c", "team-a/train-1", "uid-1", 2)
    assert Mark.parse(str(mark)) == mark
    assert Mark.parse(f"cloned: {mark}") == mark
    assert Mark.parse("my own run") is None
    assert naming.mark_of("mlops/kfp") in str(mark)
    assert naming.mark_of("mlops/kf") not in str(mark)


def test_descriptions_fit_however_long_names_are() -> None:
    long, uid = "x" * 253, "5b0f2a4e-8c3d-4f0a-9a1b-0c2d4e6f8a10"
    mark = Mark(f"{'n' * 63}/{long}", uid, f"{'n' * 63}/{long}", uid, 9999)
    assert len(str(mark)) <= naming.LONGEST_DESCRIPTION
    found = Mark.parse(str(mark))
    assert found is not None
    assert (found.run_id, found.uid, found.attempt) == (uid, uid, 9999)
    assert found.belongs_to(mark.provider)
    assert not found.belongs_to(f"{'n' * 63}/{'x' * 252}")
    assert naming.mark_of(mark.provider) in str(mark)
    described = naming.pipeline_description("n" * 63, long)
    told = naming.version_description("n" * 63, long, "49e208")
    assert len(told) <= naming.LONGEST_DESCRIPTION
    assert naming.described_version(described, told) == "49e208"
    assert naming.described_version(naming.pipeline_description("n" * 63, "x" * 252), told) is None
    assert len(naming.description("y" * 9999)) == naming.LONGEST_DESCRIPTION
