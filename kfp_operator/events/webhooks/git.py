"""Pushes to Git repositories at GitHub and GitLab: ``connection_git_commit``.

One event per push to a branch or tag, about its newest commit; a deleted branch gives none. Members of the data:

=============  =======================================================================
repository     as ``octo-org/penguins``
url            its page
branch, tag    the one that was pushed to, the other is empty
commit         the newest commit; before: what was there, empty for a new branch
author         of that commit, with authorEmail; message: the commit's
pusher         who pushed
paths          files that were added, changed or removed, as far as the sender lists them
pathsComplete  whether these are all
=============  =======================================================================
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import parse_qs

from kfp_operator.errors import EventError
from kfp_operator.events.http_binding import media_type, read_json
from kfp_operator.events.webhooks import signatures
from kfp_operator.events.webhooks.connection import Connection, Delivery, Fact, Told, computed_id, member, objects, text
from kfp_operator.schemas import V1EventKind

_MOST_PATHS = 500
_PATHS_CHARACTERS = 24 * 1024
_GITHUB_COMMITS = 2048
_GITLAB_IDS = ("webhook-id", "idempotency-key")  # the same on each retry, from GitLab 17.4 on


class GitHub(Connection):
    """GitHub.

    The id is computed from what is signed. ``X-GitHub-Delivery`` is not: who gets hold of a delivery could send it again under another
    one. A push that GitHub delivers again has the same content.
    """

    type: Literal["github"]

    @property
    def kinds(self) -> tuple[V1EventKind, ...]:
        """Commits."""
        return (V1EventKind.CONNECTION_GIT_COMMIT,)

    def authenticate(self, delivery: Delivery, secrets: Sequence[str]) -> None:
        """Check ``X-Hub-Signature-256``."""
        signatures.hmac_sha256(delivery.headers, "X-Hub-Signature-256", delivery.body, secrets, prefix="sha256=", encoding="hex")

    def read(self, delivery: Delivery) -> Told:
        """The push; other events are ignored, the ping that GitHub begins with among them."""
        event = delivery.headers.get("x-github-event", "")
        if event != "push":
            return Told(ignored=[f"event {event[:50]!r}: only push becomes an event"])
        document = _github_document(delivery)
        branch, tag = _branch_and_tag(text(document, "ref"))
        after = text(document, "after")
        if document.get("deleted") is True or _is_null(after):
            return Told(ignored=[f"{text(document, 'ref')} was deleted"])
        pushed = member(document, "repository", "pushed_at")
        commits = objects(document, "commits")
        payload = {
            "repository": text(document, "repository", "full_name"),
            "url": text(document, "repository", "html_url"),
            "branch": branch,
            "tag": tag,
            "commit": _required(text(document, "head_commit", "id") or after),
            "before": _present(text(document, "before")),
            "author": text(document, "head_commit", "author", "name"),
            "authorEmail": text(document, "head_commit", "author", "email"),
            "message": text(document, "head_commit", "message"),
            "pusher": text(document, "pusher", "name"),
            **_paths(commits, complete=len(commits) < _GITHUB_COMMITS),
        }
        id_ = computed_id(member(document, "repository", "id"), text(document, "ref"), text(document, "before"), after, pushed)
        return Told([Fact(V1EventKind.CONNECTION_GIT_COMMIT, id_, payload, time=_epoch(pushed))])


class GitLab(Connection):
    """GitLab. A secret that begins with ``whsec_`` is a signing token, any other one a secret token."""

    type: Literal["gitlab"]

    @property
    def kinds(self) -> tuple[V1EventKind, ...]:
        """Commits."""
        return (V1EventKind.CONNECTION_GIT_COMMIT,)

    def authenticate(self, delivery: Delivery, secrets: Sequence[str]) -> None:
        """Check ``webhook-signature`` or ``X-Gitlab-Token``, depending on the secret."""
        signing = [secret for secret in secrets if secret.startswith(signatures.STANDARD_PREFIX)]
        plain = [secret for secret in secrets if not secret.startswith(signatures.STANDARD_PREFIX)]
        if signing and (not plain or "webhook-signature" in delivery.headers):
            signatures.standard(delivery.headers, delivery.body, signing, delivery.received)
        else:
            signatures.header(delivery.headers, "X-Gitlab-Token", plain)

    def read(self, delivery: Delivery) -> Told:
        """The push, to a branch or of a tag; other events are ignored."""
        document = delivery.document()
        event = text(document, "object_kind") or text(document, "event_name")
        if event not in ("push", "tag_push"):
            return Told(ignored=[f"event {event[:50]!r}: only push and tag_push become events"])
        branch, tag = _branch_and_tag(text(document, "ref"))
        after = text(document, "after")
        if _is_null(after):
            return Told(ignored=[f"{text(document, 'ref')} was deleted"])
        commit = _required(text(document, "checkout_sha") or after)
        commits = objects(document, "commits")
        newest = next((one for one in commits if text(one, "id") == commit), {})
        count = document.get("total_commits_count")
        payload = {
            "repository": text(document, "project", "path_with_namespace"),
            "url": text(document, "project", "web_url"),
            "branch": branch,
            "tag": tag,
            "commit": commit,
            "before": _present(text(document, "before")),
            "author": text(newest, "author", "name"),
            "authorEmail": text(newest, "author", "email"),
            "message": text(newest, "message"),
            "pusher": text(document, "user_username"),
            **_paths(commits, complete=isinstance(count, int) and count <= len(commits)),
        }
        sent = next((found for name in _GITLAB_IDS if (found := delivery.headers.get(name, "")[:200])), "")
        id_ = sent or computed_id(document.get("project_id"), text(document, "ref"), text(document, "before"), after)
        return Told([Fact(V1EventKind.CONNECTION_GIT_COMMIT, id_, payload)])


def _github_document(delivery: Delivery) -> Mapping[str, Any]:
    """The payload: the body, or the form field that GitHub sends unless it is told otherwise."""
    if media_type(delivery.headers.get("content-type", ""))[0] != "application/x-www-form-urlencoded":
        return delivery.document()
    try:
        payload = parse_qs(delivery.body.decode("ascii"), max_num_fields=5, strict_parsing=True, errors="strict")["payload"][0]
    except (ValueError, KeyError) as error:
        raise EventError("the body is not a form with a field payload") from error
    document = read_json(payload.encode())
    if not isinstance(document, dict):
        raise EventError("the field payload is not a JSON object")
    return document


def _branch_and_tag(ref: str) -> tuple[str, str]:
    if ref.startswith("refs/heads/"):
        return ref.removeprefix("refs/heads/"), ""
    if ref.startswith("refs/tags/"):
        return "", ref.removeprefix("refs/tags/")
    raise EventError(f"ref {ref[:100]!r} is neither refs/heads/... nor refs/tags/...")


def _is_null(commit: str) -> bool:
    """Whether it is the name of no commit: zeros, as many as the repository's hashes have digits."""
    return bool(commit) and not commit.strip("0")


def _present(commit: str) -> str:
    return "" if _is_null(commit) else commit


def _required(commit: str) -> str:
    if not commit:
        raise EventError("the push names no commit")
    return commit


def _epoch(value: object) -> datetime | None:
    """The time of whole seconds since 1970."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 10**11:
        return None
    return datetime.fromtimestamp(value, UTC)


def _paths(commits: Sequence[Mapping[str, Any]], *, complete: bool) -> dict[str, Any]:
    found: set[str] = set()
    for commit in commits:
        for key in ("added", "modified", "removed"):
            listed = commit.get(key)
            found.update(path for path in (listed if isinstance(listed, list) else ()) if isinstance(path, str))
    kept, characters = [], 0
    for path in sorted(found)[:_MOST_PATHS]:
        characters += len(path)
        if characters > _PATHS_CHARACTERS:
            break
        kept.append(path)
    return {"paths": kept, "pathsComplete": complete and len(kept) == len(found)}
