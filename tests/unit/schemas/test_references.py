import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfp_operator.schemas import Reference, RefType, V1EventKind, parse_reference
from kfp_operator.schemas.references import similar

UID = "5b0f2a4e-8c3d-4f0a-9a1b-0c2d4e6f8a10"


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("ops.train", Reference(RefType.OPS, "train")),
        ("{{ ops.train }}", Reference(RefType.OPS, "train")),
        ("{{ops.train}}", Reference(RefType.OPS, "train")),
        ("  ops.train ", Reference(RefType.OPS, "train")),
        ("ops.train\n", Reference(RefType.OPS, "train")),
        (" {{\tops.train\n}} ", Reference(RefType.OPS, "train")),
        ("OPS.train", Reference(RefType.OPS, "train")),
        ("ops.a.b", Reference(RefType.OPS, "a.b")),
        ("ops.upstream_operation_name", Reference(RefType.OPS, "upstream_operation_name")),
        ("runs.penguin-1", Reference(RefType.RUNS, "penguin-1")),
        (f"runs.{UID}", Reference(RefType.RUNS, UID)),
        (f"runs.{UID.upper()}", Reference(RefType.RUNS, UID)),
        ("runConfigurations.train", Reference(RefType.RUN_CONFIGURATIONS, "train")),
        ("runconfigurations.team-b/train.v2", Reference(RefType.RUN_CONFIGURATIONS, "train.v2", "team-b")),
        ("pipelines.penguin", Reference(RefType.PIPELINES, "penguin")),
        ("connections.git-repo-connection-name", Reference(RefType.CONNECTIONS, "git-repo-connection-name")),
        ("models.team/Penguin_v2", Reference(RefType.MODELS, "team/Penguin_v2")),
        ("projects.p", Reference(RefType.PROJECTS, "p")),
        ("orgs.acme", Reference(RefType.ORGS, "acme")),
        ("alerts.HighErrorRate", Reference(RefType.ALERTS, "HighErrorRate")),
    ],
)
def test_a_reference_is_understood_however_it_is_written(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "accepted: ops.NAME"),
        ("{{ }}", "accepted: ops.NAME"),
        ("train", "accepted: ops.NAME"),
        ("run.train", "did you mean runs.?"),
        ("dag.train", "accepted: ops.NAME"),
        ("ops", "'ops' names nothing; accepted: ops.NAME"),
        ("ops.", "'ops.' names nothing; accepted: ops.NAME"),
        ("{{ ops. }}", "names nothing; accepted: ops.NAME"),
        ("{{ {{ ops.a }} }}", "accepted: ops.NAME"),
        ("{{ ops.a", "accepted: ops.NAME"),
        ("ops.a b", "'a b' is not a name as in ops.NAME"),
        ("ops.-a", "is not a name"),
        ("ops." + "a" * 64, "of at most 63 characters"),
        ("runs.Penguin", "is not a name as in runs.NAME or runs.UID"),
        ("runs.a/b", "is not a name as in runs.NAME"),
        ("runs.a*", "is not a name"),
        ("runConfigurations./a", "is not a name as in runConfigurations.[NAMESPACE/]NAME"),
        ("runConfigurations.a/", "is not a name"),
        ("runConfigurations.a/b/c", "is not a name"),
        ("runConfigurations.a.b/c", "is not a name"),
        ("connections.a\u0000", "is not a name"),
        ("connections." + "a" * 254, "of at most 253 characters"),
    ],
)
def test_what_is_no_reference_is_refused_with_the_accepted_forms(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  what it says is checked
        parse_reference(text)
    assert said in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_either_understood_or_refused_and_what_is_understood_reads_the_same_again(text: str) -> None:
    try:
        found = parse_reference(text)
    except ValueError:
        return
    assert parse_reference(str(found)) == found
    assert parse_reference(f"{{{{ {found} }}}}") == found


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("ops.a", 23),
        ("runs.a", 23),
        ("pipelines.a", 23),
        ("runConfigurations.a", 23),
        ("connections.a", 3),
        ("alerts.a", 3),
        ("models.a", 1),
        ("projects.a", 1),
        ("orgs.a", 1),
    ],
)
def test_each_reference_has_its_kinds(text: str, kinds: int) -> None:
    reference = parse_reference(text)
    assert len(reference.type.kinds) == kinds
    reference.check_kinds(reference.type.kinds)


def test_every_kind_can_come_from_somewhere() -> None:
    assert {kind for ref in RefType for kind in ref.kinds} == set(V1EventKind)


def test_a_kind_that_can_never_come_is_refused_with_those_that_can() -> None:
    said = r"^run_status_running can never come from connections\.git; what can: connection_git_commit, connection_dataset_version, "
    with pytest.raises(ValueError, match=said):
        parse_reference("connections.git").check_kinds([V1EventKind.RUN_STATUS_RUNNING, V1EventKind.CONNECTION_GIT_COMMIT])


def test_a_reference_that_was_never_seen_has_similar_ones() -> None:
    seen = [parse_reference(text) for text in ("connections.git-repo", "connections.registry", "runConfigurations.train", "runs.train")]
    assert similar(parse_reference("connections.git-rep"), seen) == [seen[0]]
    assert similar(parse_reference("runConfigurations.trian"), seen) == [seen[2]]
    assert similar(parse_reference("alerts.x"), seen) == []
