import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_operator.errors import EventError
from kfp_operator.events.webhooks.connection import Delivery, Reading
from kfp_operator.events.webhooks.git import GitHub, GitLab
from kfp_operator.events.webhooks.signatures import NotAuthentic
from tests.doubles.deliveries import SECRET, SIGNING_TOKEN, delivery, github_headers, gitlab_headers, payload, standard_headers

GITHUB = GitHub(type="github", namespace="team-a", name="penguins", secret_env="X")
GITLAB = GitLab(type="gitlab", namespace="team-a", name="penguins", secret_env="X")
ZEROS = "0" * 40


def github(body: bytes, **headers: str) -> Reading:
    """What becomes of a delivery by GitHub, once it is known to be authentic."""
    given = delivery(body, github_headers(body) | headers)
    GITHUB.authenticate(given, [SECRET])
    return GITHUB.events(given)


def gitlab(body: bytes, **headers: str) -> Reading:
    given = delivery(body, gitlab_headers() | headers)
    GITLAB.authenticate(given, [SECRET])
    return GITLAB.events(given)


def only(reading: Reading) -> Any:
    """The data of the one event."""
    (event,) = reading.events
    assert reading.ignored == []
    assert (event.namespace, event.source) == ("team-a", "/hooks/team-a/penguins")
    return event.event.get_data()


def test_a_push_at_github_is_a_commit() -> None:
    reading = github(payload("github-push"))
    assert only(reading) == {
        "kind": "connection_git_commit",
        "ref": "connections.penguins",
        "repository": "octo-org/penguins",
        "url": "https://github.com/octo-org/penguins",
        "branch": "main",
        "tag": "",
        "commit": "9b2e7f4c1d3a5b6c7d8e9f0a1b2c3d4e5f607182",
        "before": "4d1c0a3b5e6f708192a3b4c5d6e7f8091a2b3c4d",
        "author": "Ada Lovelace",
        "authorEmail": "ada@example.org",
        "message": "Train on flipper length too\n\nIt tells Gentoo from the others.",
        "pusher": "ada",
        "paths": ["README.md", "docs/measurements.md", "training/old.py", "training/pipeline.py"],
        "pathsComplete": True,
    }
    assert reading.events[0].event.get_time() == datetime(2026, 3, 1, 16, 0, 9, tzinfo=UTC)


def test_a_push_at_gitlab_is_a_commit() -> None:
    reading = gitlab(payload("gitlab-push"))
    assert only(reading) == {
        "kind": "connection_git_commit",
        "ref": "connections.penguins",
        "repository": "vision/penguins",
        "url": "https://gitlab.example.org/vision/penguins",
        "branch": "main",
        "tag": "",
        "commit": "da1560886d4f094c3e6c9ef40349f7d38b5d27d7",
        "before": "95790bf891e76fee5e1747ab589903a6a1f80f22",
        "author": "Ada Lovelace",
        "authorEmail": "ada@example.org",
        "message": "Train on flipper length too\n",
        "pusher": "ada",
        "paths": ["docs/measurements.md", "training/pipeline.py"],
        "pathsComplete": True,
    }
    assert reading.events[0].id == "f5e5f430-f57b-4e6e-9fac-d9128cd7232f"


def test_the_commit_of_a_tag_is_the_one_that_is_tagged() -> None:
    data = only(gitlab(payload("gitlab-tag-push")))
    assert (data["branch"], data["tag"], data["commit"], data["before"]) == (
        "",
        "v1.0.0",
        "da1560886d4f094c3e6c9ef40349f7d38b5d27d7",
        "",
    )
    data = only(github(payload("github-push", ref="refs/tags/v1", after="1" * 40, before=ZEROS)))
    assert (data["branch"], data["tag"], data["commit"], data["before"]) == ("", "v1", "9b2e7f4c1d3a5b6c7d8e9f0a1b2c3d4e5f607182", "")


def test_a_branch_may_have_slashes() -> None:
    assert only(github(payload("github-push", ref="refs/heads/feature/x")))["branch"] == "feature/x"


def test_github_sends_forms_unless_told_otherwise() -> None:
    body = urlencode({"payload": payload("github-push").decode()}).encode()
    reading = github(body, **{"Content-Type": "application/x-www-form-urlencoded"})
    assert only(reading)["commit"] == "9b2e7f4c1d3a5b6c7d8e9f0a1b2c3d4e5f607182"
    assert reading.events[0].id == github(payload("github-push")).events[0].id


@pytest.mark.parametrize(
    ("body", "event", "why"),
    [
        (b'{"zen": "Keep it logically awesome."}', "ping", "event 'ping': only push becomes an event"),
        (b"{}", "pull_request", "event 'pull_request'"),
        (payload("github-push", deleted=True, after=ZEROS, head_commit=None), "push", "refs/heads/main was deleted"),
        (payload("github-push", after="0" * 64), "push", "refs/heads/main was deleted"),
    ],
)
def test_what_is_no_new_commit_at_github_is_ignored(body: bytes, event: str, why: str) -> None:
    reading = github(body, **{"X-GitHub-Event": event})
    assert reading.events == []
    assert why in reading.ignored[0]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"object_kind": "merge_request"}', "event 'merge_request': only push and tag_push"),
        (payload("gitlab-push", after=ZEROS, checkout_sha=None), "refs/heads/main was deleted"),
    ],
)
def test_what_is_no_new_commit_at_gitlab_is_ignored(body: bytes, why: str) -> None:
    reading = gitlab(body)
    assert reading.events == []
    assert why in reading.ignored[0]


def test_a_system_hook_of_gitlab_names_its_event_otherwise() -> None:
    assert only(gitlab(payload("gitlab-push", object_kind=None)))["branch"] == "main"


def test_a_push_that_github_delivers_again_is_the_same_event() -> None:
    first = github(payload("github-push")).events[0]
    again = github(payload("github-push"), **{"X-GitHub-Delivery": "another"}).events[0]
    assert again.id == first.id  # the header is not signed: whoever replays a delivery could change it


@pytest.mark.parametrize(
    "changes", [{"after": "1" * 40}, {"before": "1" * 40}, {"ref": "refs/heads/dev"}, {"repository": {"pushed_at": 5}}]
)
def test_another_push_at_github_is_another_event(changes: dict[str, Any]) -> None:
    assert github(payload("github-push", **changes)).events[0].id != github(payload("github-push")).events[0].id


def test_a_retry_by_gitlab_is_the_same_event_and_another_delivery_is_not() -> None:
    ids = [gitlab(payload("gitlab-push"), **{"Idempotency-Key": key}).events[0].id for key in ("a", "a", "b")]
    assert ids == ["a", "a", "b"]


def test_an_older_gitlab_is_known_by_what_it_pushes() -> None:
    def id_(**changes: Any) -> str:
        return gitlab(payload("gitlab-push", **changes), **{"Idempotency-Key": ""}).events[0].id

    assert id_() == id_() != id_(after="1" * 40)


def test_a_signing_token_of_gitlab_is_checked_as_a_signature() -> None:
    body = payload("gitlab-push")
    signed = delivery(body, gitlab_headers(secret="") | standard_headers(body))
    GITLAB.authenticate(signed, [SIGNING_TOKEN])
    GITLAB.authenticate(signed, [SECRET, SIGNING_TOKEN])
    assert GITLAB.events(signed).events[0].id == "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"


@pytest.mark.parametrize(
    ("headers", "secrets"),
    [
        (gitlab_headers(), [SIGNING_TOKEN]),
        (gitlab_headers(secret=SIGNING_TOKEN), [SIGNING_TOKEN]),
        (gitlab_headers(secret="another"), [SECRET]),
        (gitlab_headers(secret=""), [SECRET]),
        (gitlab_headers() | standard_headers(b"other"), [SIGNING_TOKEN, SECRET]),
    ],
    ids=["token", "token-as-secret", "other", "empty", "bad-signature"],
)
def test_what_gitlab_did_not_send_is_not_authentic(headers: dict[str, str], secrets: list[str]) -> None:
    with pytest.raises(NotAuthentic):
        GITLAB.authenticate(delivery(payload("gitlab-push"), headers), secrets)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"{}", payload("github-push", ref=None), payload("github-push", after=None, head_commit=None)]
)
def test_what_is_no_push_at_all_is_an_error(body: bytes) -> None:
    with pytest.raises(EventError):
        github(body)


@pytest.mark.parametrize("form", [b"", b"other=1", b"payload=x", b"payload=[]", b"payload=%ff", b"a&b", "payload=é".encode()])
def test_a_form_without_a_payload_is_an_error(form: bytes) -> None:
    with pytest.raises(EventError):
        github(form, **{"Content-Type": "application/x-www-form-urlencoded"})


def commits(count: int, path: str = "{}") -> list[dict[str, Any]]:
    return [{"id": str(n), "added": [path.format(n)], "modified": [], "removed": []} for n in range(count)]


def test_many_paths_are_cut_and_it_is_said() -> None:
    data = only(github(payload("github-push", commits=commits(600))))
    assert (len(data["paths"]), data["pathsComplete"]) == (500, False)
    data = only(github(payload("github-push", commits=commits(400, "p" * 100 + "{}"))))
    assert 0 < sum(map(len, data["paths"])) <= 24 * 1024
    assert data["pathsComplete"] is False


def test_commits_that_the_sender_left_out_make_the_paths_incomplete() -> None:
    assert only(gitlab(payload("gitlab-push", total_commits_count=21)))["pathsComplete"] is False
    assert only(github(payload("github-push", commits=commits(2048, "same"))))["pathsComplete"] is False


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)
MEMBERS = ["ref", "before", "after", "repository", "head_commit", "commits", "pusher", "project", "total_commits_count", "object_kind"]


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from(MEMBERS), json_values, max_size=4))
def test_a_push_with_anything_in_it_becomes_an_event_or_an_error(changes: dict[str, Any]) -> None:
    for connection, name, headers in ((GITHUB, "github-push", {"x-github-event": "push"}), (GITLAB, "gitlab-push", {})):
        body = json.dumps(json.loads(payload(name)) | changes).encode()
        try:
            reading = connection.events(Delivery(headers, body, datetime(2026, 1, 1, tzinfo=UTC)))
        except EventError:
            continue
        assert len(reading.events) + len(reading.ignored) == 1
