import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_operator.errors import ConfigurationError, EventError
from kfp_operator.events.subjects import ROLES, Address, InboundAddress, Kind, Subjects, decode_token, encode_token
from tests.doubles.events import UID

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("penguin-x7k2p", "penguin-x7k2p"),
        ("a.b", "a%2Eb"),
        ("*", "%2A"),
        (">", "%3E"),
        ("two words", "two%20words"),
        ("100%", "100%25"),
        ("naïve", "na%C3%AFve"),
        ("€", "%E2%82%AC"),
        ("a/b", "a%2Fb"),
        ("\r\n", "%0D%0A"),
    ],
)
def test_a_token_has_nothing_that_means_something_to_nats(name: str, token: str) -> None:
    assert encode_token(name) == token
    assert decode_token(token) == name


@settings(deadline=None)
@given(text)
def test_every_name_comes_back_from_its_token(name: str) -> None:
    token = encode_token(name)
    assert not set(token) & set(".*> \t\r\n")
    assert token.isascii()
    assert decode_token(token) == name


@pytest.mark.parametrize("token", ["", "a%2eb", "%41", "a b", "%C0%A0", "%zz", "€", "*", "a/b"])
def test_a_token_in_any_other_spelling_is_refused(token: str) -> None:
    with pytest.raises(EventError):
        decode_token(token)


@pytest.mark.parametrize("name", ["", "\ud800"])
def test_a_name_that_has_no_token_is_refused(name: str) -> None:
    with pytest.raises(EventError):
        encode_token(name)


def test_subjects_follow_the_documented_table() -> None:
    subjects = Subjects()
    assert subjects.run_completion("team-a", "penguin.v2", UID, 1) == f"events.run-completion.team-a.penguin%2Ev2.{UID}.1"
    assert subjects.run_status("team-a", "p", UID, 3) == f"events.run-status.team-a.p.{UID}.3"
    assert subjects.documented("team-a", "p", UID, 2) == f"events.documented.team-a.p.{UID}.2"
    assert subjects.dag_completion("team-a", "d.e", UID, 1) == f"events.dag-completion.team-a.d%2Ee.{UID}.1"
    assert subjects.dag_status("team-a", "d", UID, 3) == f"events.dag-status.team-a.d.{UID}.3"
    assert subjects.inbound("team-a", "alert_info") == "events.inbound.team-a.alert_info"
    assert subjects.inbound("team-a", "alert_info", "9f3a") == "events.inbound.team-a.alert_info.9f3a"
    assert subjects.provider("mlops", "vertex") == "events.provider.mlops.vertex"
    assert subjects.dead_letter("kfp-operator-runs", 7) == "events.dead-letter.kfp-operator-runs.7"


@settings(deadline=None)
@given(namespace=text, name=text, uid=text, number=st.integers(1, 10**9))
def test_a_subject_parses_to_what_it_was_made_of(namespace: str, name: str, uid: str, number: int) -> None:
    subjects = Subjects("mlops")
    assert subjects.parse(subjects.run_status(namespace, name, uid, number)) == Address(Kind.RUN_STATUS, namespace, name, uid, number)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "events",
        "events.run-completion.a.b.c",
        "events.run-completion.a.b.c.1.x",
        "events.run-completion.a.b.c.0",
        "events.run-completion.a.b.c.01",
        "events.run-completion.a.b.c.-1",
        "events.run-completion.a.b.c.\u0661",
        "events.run-completion.a.b.c.1111111111111111111111",
        "events.run-completion.a..c.1",
        "events.unknown.a.b.c.1",
        "events.inbound.a.b.c.1",
        "other.run-completion.a.b.c.1",
    ],
)
def test_a_subject_of_anything_else_is_refused(subject: str) -> None:
    with pytest.raises(EventError):
        Subjects().parse(subject)


@settings(deadline=None)
@given(namespace=text, kind=text, digest=st.one_of(st.just(""), text))
def test_an_inbound_subject_parses_to_what_it_was_made_of(namespace: str, kind: str, digest: str) -> None:
    subjects = Subjects("mlops")
    assert subjects.parse_inbound(subjects.inbound(namespace, kind, digest)) == InboundAddress(namespace, kind, digest)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "events.inbound.a",
        "events.inbound.a.b.c.d",
        "events.inbound.a.",
        "events.inbound.a.b.",
        "mlops.inbound.a.b",
        "events.provider.a.b",
    ],
)
def test_a_subject_that_nobody_publishes_on_is_refused(subject: str) -> None:
    with pytest.raises(EventError):
        Subjects().parse_inbound(subject)


def test_patterns_select_by_namespace_and_name() -> None:
    subjects = Subjects()
    assert subjects.pattern(Kind.RUN_STATUS) == "events.run-status.>"
    assert subjects.pattern(Kind.RUN_STATUS, "team-a") == "events.run-status.team-a.>"
    assert subjects.pattern(Kind.RUN_STATUS, "team-a", "p.q") == "events.run-status.team-a.p%2Eq.>"
    assert subjects.pattern(Kind.RUN_STATUS, "", "p") == "events.run-status.*.p.>"


def test_streams_do_not_share_subjects() -> None:
    subjects = Subjects()
    stored = [subject for role in ROLES for subject in subjects.stored_by(role)]
    assert sorted(stored) == sorted({f"events.{kind}.>" for kind in Kind})


def test_stream_names_differ_between_prefixes() -> None:
    assert Subjects().stream("runs") == "kfp-operator-runs"
    assert Subjects("mlops").stream("runs") == "kfp-operator-mlops-runs"


@pytest.mark.parametrize("prefix", ["", "a.b", "a b", ">", "*", "é", "x" * 64])
def test_a_prefix_that_is_not_one_plain_token_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match=r"events\.prefix"):
        Subjects(prefix)
