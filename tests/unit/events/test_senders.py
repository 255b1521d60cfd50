import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_operator.errors import ConfigurationError
from kfp_operator.events.inbound import KINDS
from kfp_operator.events.senders import Senders, Token, burst, parse, parse_secrets

EXAMPLE = Path(__file__).parents[3] / "examples" / "inbound" / "senders.yaml"
HASH = hashlib.sha256(b"a-token").hexdigest()
TOKEN = {"name": "ci", "sha256": HASH, "namespaces": ["team-a"]}
HOOK = {"namespace": "team-a", "name": "penguins", "type": "github", "secretFile": "/secrets/penguins"}


def dump(tokens: Any = (), connections: Any = ()) -> str:
    return yaml.safe_dump({"tokens": list(tokens), "connections": list(connections)})


def refused(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "senders.yaml")
    return str(caught.value)


def test_the_example_names_senders_of_every_type() -> None:
    tokens, connections = parse(EXAMPLE.read_text(), "senders.yaml")
    assert [token.name for token in tokens] == ["data-lake", "argo-events"]
    assert {connection.path: getattr(connection, "type", "") for connection in connections} == {
        "/hooks/team-a/penguins": "github",
        "/hooks/team-a/penguins-gitlab": "gitlab",
        "/hooks/team-a/registry": "oci-registry",
        "/hooks/team-a/alertmanager": "alertmanager",
        "/hooks/team-a/harbor": "generic",
    }


@pytest.mark.parametrize("text", ["", "{}", "tokens: []", "# nothing"])
def test_an_empty_file_lets_nobody_send(text: str) -> None:
    assert parse(text, "senders.yaml") == ((), ())


def test_a_token_is_good_for_what_it_names() -> None:
    ((token,), _) = parse(dump([TOKEN | {"kinds": ["alert_info"], "eventsPerSecond": 2}]), "senders.yaml")
    assert (token.only_namespace, [kind.value for kind in token.kinds], token.events_per_second) == ("team-a", ["alert_info"], 2)
    assert token.permits("team-a")
    assert not token.permits("team-b")


def test_by_default_a_token_may_send_every_kind_that_can_come_from_outside() -> None:
    assert Token.model_validate(TOKEN).kinds == list(KINDS)


def test_a_token_for_several_namespaces_has_no_only_one() -> None:
    several, every = (Token.model_validate(TOKEN | {"namespaces": names}) for names in (["a", "b"], ["*"]))
    assert (several.only_namespace, several.permits("b"), several.permits("c")) == ("", True, False)
    assert (every.only_namespace, every.permits("c")) == ("", True)


def test_a_token_is_known_by_its_hash_alone() -> None:
    senders = Senders((Token.model_validate(TOKEN | {"name": "other", "sha256": "0" * 64}), Token.model_validate(TOKEN)))
    found = senders.token("a-token")
    assert found is not None
    assert found.name == "ci"
    assert [senders.token(wrong) for wrong in ("", "A-token", "a-token ", HASH, "\udcff")] == [None] * 5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (dump([TOKEN | {"sha256": HASH.upper()}]), "senders.yaml: tokens[0].sha256: String should match"),
        (dump([TOKEN | {"namespaces": []}]), "tokens[0].namespaces"),
        (dump([TOKEN | {"namespaces": ["team-*"]}]), "tokens[0].namespaces[0]"),
        (dump([TOKEN | {"kinds": ["run_status_done"]}]), "run_status_done cannot come from outside; what can: connection_git_commit"),
        (dump([TOKEN | {"kinds": []}]), "tokens[0].kinds"),
        (dump([TOKEN | {"token": "x"}]), "tokens[0].token: Extra inputs are not permitted"),
        (dump([TOKEN, TOKEN | {"sha256": "0" * 64}]), "token name ci is there twice"),
        (dump([TOKEN, TOKEN | {"name": "other"}]), f"token with sha256 {HASH} is there twice"),
        (dump([TOKEN] * 1001), "tokens: List should have at most 1000 items"),
        (dump([], [HOOK | {"type": "svn"}]), "connections[0]: Input tag 'svn'"),
        (dump([], [HOOK | {"secret": "x"}]), "connections[0].github.secret: Extra inputs"),
        (dump([], [HOOK | {"ref": "alerts.x"}]), "connection_git_commit can never come from alerts.x"),
        (dump([], [HOOK, HOOK | {"type": "gitlab"}]), "connection /hooks/team-a/penguins is there twice"),
        ("tokens: {}", "tokens: Input should be a valid list"),
        ("users: []", "users: Extra inputs are not permitted"),
        ("[]", "senders.yaml: Input should be"),
        ("a: 1\nb: [secret-in-it", "senders.yaml is not YAML, see line 2"),
        ("[" * 5000, "senders.yaml is not YAML"),
        ("a: 2026-13-32", "senders.yaml is not YAML"),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_wrong_with_the_file_is_told_with_its_place(text: str, told: str) -> None:
    message = refused(text)
    assert told in message
    assert "secret-in-it" not in message


def test_all_problems_are_told_at_once() -> None:
    message = refused(dump([TOKEN | {"sha256": "x"}, TOKEN | {"name": "-"}]))
    assert "tokens[0].sha256" in message
    assert "tokens[1].name" in message


def test_secrets_stand_on_lines_of_their_own() -> None:
    assert parse_secrets("the-new-secret-here\n\n  the-old-secret-here \n", "secrets/x") == ("the-new-secret-here", "the-old-secret-here")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "secrets/x holds no secret"),
        (" \n", "secrets/x holds no secret"),
        ("not-long", "secrets/x: secret 1 is shorter than 16 characters"),
        ("long-enough-to-be-one\nshort", "secrets/x: secret 2 is shorter"),
        ("whsec_!!!!!!!!!!!!!!", "secrets/x: secret 1: what follows whsec_ is not base64"),
    ],
    ids=lambda text: text[:40],
)
def test_a_secret_that_is_no_good_is_refused_without_being_told(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_secrets(text, "secrets/x")
    assert told in str(caught.value)
    assert not text.strip() or text.strip() not in str(caught.value)


def test_a_batch_can_always_come_at_once() -> None:
    assert [burst(rate) for rate in (0.1, 50, 200)] == [100, 100, 400]


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=200))
def test_any_text_is_senders_or_a_problem(text: str) -> None:
    try:
        tokens, connections = parse(text, "senders.yaml")
    except ConfigurationError:
        return
    assert (tokens, connections) == ((), ())
