"""Sending an event from outside: to NATS, as the operator's settings say, or over HTTP to an operator's port for such events."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from kfp_operator.cli import feed
from kfp_operator.errors import BusError, BusUnavailable, ConfigurationError
from kfp_operator.events import binding, inbound
from kfp_operator.events.inbound import Inbound, Stored
from kfp_operator.events.jetstream import JetStreamBus
from kfp_operator.events.subjects import Subjects
from kfp_operator.settings import Settings

SOURCE = "urn:kfp-operator:cli"
"""Where events come from that are published by hand."""
ANSWER_WITHIN = 15.0
_PATH = "/v1/events"


def payload(given: Sequence[str], stdin: str = "") -> dict[str, Any]:
    """The members of the data from ``--data``: ``name=value`` is text, ``{...}`` JSON, ``@FILE`` a file with JSON, ``@-`` standard input.

    Later ones replace earlier ones. Raises ConfigurationError for what is none of these.
    """
    members: dict[str, Any] = {}
    for one in given:
        if one.startswith("@"):
            members |= _object(stdin if one == "@-" else _text(Path(one[1:])), one)
        elif one.lstrip().startswith("{"):
            members |= _object(one, "--data")
        else:
            name, equals, value = one.partition("=")
            if not equals or not name.strip():
                raise ConfigurationError(f"--data: {one[:100]!r} is not name=value, a JSON object, or @FILE with one")
            members[name.strip()] = value
    return members


async def to_nats(settings: Settings, event: Inbound) -> Stored:
    """Store the event; BusError when NATS does not answer or refuses, ConfigurationError when none is known."""
    async with JetStreamBus(feed.servers(settings)) as bus:
        await feed.connected(bus)
        return await inbound.store(bus, Subjects(settings.events.prefix), event)


async def to_http(url: str, token: str, namespace: str, event: Inbound) -> Stored:
    """Hand the event to an operator at `url`, with or without the path; an empty namespace is the token's.

    Raises BusUnavailable when it cannot store the event now, BusError when it does not accept the token, ConfigurationError when the event
    or the address is no good.
    """
    import aiohttp

    wire = binding.encode(event.event)
    headers = {**wire.headers, "Authorization": f"Bearer {token}"}
    where = _address(url)
    try:
        async with (
            asyncio.timeout(ANSWER_WITHIN),
            aiohttp.ClientSession(trust_env=True) as session,
            session.post(where, data=wire.body, headers=headers, params={"namespace": namespace} if namespace else None) as response,
        ):
            status, text = response.status, await response.text()
    except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
        raise BusUnavailable(f"{where}: {error or 'no answer'}") from error
    try:
        answer = json.loads(text)
        if status == 202:
            (stored,) = answer["events"]
            return Stored(str(stored["subject"]), bool(stored["duplicate"]), None)
        detail = str(answer["detail"])
    except (ValueError, KeyError, TypeError):
        detail = "that is no answer of an operator's port for events: is it the right address?"
    message = f"{where}: HTTP {status}: {detail}"
    if status == 429 or status >= 500:
        raise BusUnavailable(message)
    raise BusError(message) if status in (401, 403) else ConfigurationError(message)


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"--url: {url!r} is not a URL, as https://events.example.org")
    return urlunsplit(parts._replace(path=_PATH)) if parts.path in ("", "/") else url


def read_token(file: Path) -> str:
    """The token in a file; ConfigurationError when there is none."""
    token = _text(file).strip()
    if not token or any(character.isspace() for character in token):
        raise ConfigurationError(f"--token-file: {file} does not hold a token")
    return token


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{where}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{where}: not a JSON object")
    return found


def _text(file: Path) -> str:
    try:
        return file.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {file}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error
