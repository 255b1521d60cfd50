"""Deliveries of webhooks, signed as their senders sign them: written from their documentation, without our code."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kfp_operator.events.webhooks.connection import Delivery

PAYLOADS = Path(__file__).parents[2] / "examples" / "inbound" / "payloads"
SECRET = "a-secret-shared-with-the-sender"
SIGNING_TOKEN = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NOW = datetime(2026, 3, 1, 16, 10, tzinfo=UTC)


def payload(name: str, **changes: Any) -> bytes:
    """An example of a payload; `changes` replace members, None removes one."""
    document = json.loads((PAYLOADS / f"{name}.json").read_text()) | changes
    return json.dumps({key: value for key, value in document.items() if value is not None}).encode()


def delivery(body: bytes, headers: Mapping[str, str], received: datetime = NOW) -> Delivery:
    return Delivery({name.lower(): value for name, value in headers.items()}, body, received)


def github_headers(body: bytes, secret: str = SECRET, event: str = "push") -> dict[str, str]:
    return {
        "User-Agent": "GitHub-Hookshot/044aadd",
        "Content-Type": "application/json",
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "X-GitHub-Event": event,
        "X-GitHub-Hook-ID": "292430182",
        "X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
    }


def gitlab_headers(event: str = "Push Hook", secret: str = SECRET) -> dict[str, str]:
    return {
        "User-Agent": "GitLab/18.9.0",
        "Content-Type": "application/json",
        "Idempotency-Key": "f5e5f430-f57b-4e6e-9fac-d9128cd7232f",
        "X-Gitlab-Event": event,
        "X-Gitlab-Event-UUID": "13792a34-cac6-4fda-95a8-c58e00a3954e",
        "X-Gitlab-Instance": "https://gitlab.example.org",
        "X-Gitlab-Token": secret,
    }


def standard_headers(body: bytes, at: datetime = NOW, token: str = SIGNING_TOKEN) -> dict[str, str]:
    """Headers of Standard Webhooks, which GitLab's signing tokens follow."""
    id_, stamp = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", str(int(at.timestamp()))
    key = base64.b64decode(token.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.new(key, f"{id_}.{stamp}.".encode() + body, hashlib.sha256).digest()).decode()
    return {"Content-Type": "application/json", "webhook-id": id_, "webhook-timestamp": stamp, "webhook-signature": f"v1,{signature}"}


def bearer(secret: str = SECRET) -> dict[str, str]:
    return {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"}
