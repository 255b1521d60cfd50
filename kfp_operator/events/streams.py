"""The streams behind the subjects, and the push consumer behind the documented subject: made, kept as they should be, made again.

Only the fields that are set here are ever changed: a placement or a size limit that an administrator gave a stream stays. With
``events.manageStreams: false`` nothing is made or changed, only checked. What is wrong is said in `problem`, with the remedy, and
looked at again after every reconnect, when a publisher found no stream, and every half minute.

A plain subscriber of the documented subject is served by a push consumer without acks: each message goes out once, to whoever is
subscribed then, and waits in the stream while nobody is. The documented subject lies outside what the streams store, so nothing that is
delivered comes back in.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any

from kfp_operator.errors import BusError, ConfigurationError, StreamMissing
from kfp_operator.events.connection import Backoff
from kfp_operator.events.jetstream import ApiError, JetStreamBus
from kfp_operator.events.subjects import ROLES, Role, Subjects
from kfp_operator.settings import EventsSettings

_log = logging.getLogger(__name__)

DOCUMENTED_CONSUMER = "documented-subject"
INBOUND_SECONDS = 7 * 86400.0
DEAD_LETTER_SECONDS = 30 * 86400.0

_NANOSECONDS = 1_000_000_000
_DUPLICATE_WINDOW = 120 * _NANOSECONDS
_LOOK_AGAIN = 30.0
_OVERLAP = 10065
_CONSUMER_NOT_FOUND = 10014
_DELIVERY_CYCLE = 10081
_LEAST_SERVER = (2, 11)


class StreamError(BusError):
    """A stream is not as it must be; the message names it, the cause and the remedy."""


class Streams:
    """Keeps the streams of one operator."""

    def __init__(self, bus: JetStreamBus, subjects: Subjects, settings: EventsSettings) -> None:
        """Raise ConfigurationError when the settings contradict each other."""
        self._bus = bus
        self._subjects = subjects
        self._settings = settings
        self._delivered: tuple[str, int] = ("", 0)
        self.problem = "not looked at yet"
        """Why the streams cannot be used; empty when they can."""
        _check_documented(settings.documented_subject, subjects)

    async def run(self) -> None:
        """Keep them, for ever."""
        backoff = Backoff(first=0.5)
        while True:
            await self._bus.connection.wait_connected()
            self._bus.attention.clear()
            try:
                await self.ensure()
            except BusError as error:
                if self.problem != str(error):
                    _log.warning("%s", error)
                self.problem = str(error)
                await backoff.pause()
                continue
            if self.problem:
                _log.info("the streams are as they should be")
            self.problem = ""
            backoff.reset()
            try:
                async with asyncio.timeout(_LOOK_AGAIN):
                    await self._bus.attention.wait()
            except TimeoutError:
                continue

    async def ensure(self) -> None:
        """Make what is missing, mend what differs. Raises StreamError, or BusUnavailable when there is no answer."""
        if self._bus.server_version and _version(self._bus.server_version) < _LEAST_SERVER:
            raise StreamError(f"nats-server is {self._bus.server_version}; 2.11 or later is needed (message TTL)")
        for role in ROLES:
            await self._ensure_stream(role)
        await self._ensure_documented()

    def wanted(self, role: Role) -> dict[str, Any]:
        """The fields of a stream's configuration that are ours, as the JetStream API spells them."""
        seconds = {
            "runs": self._settings.retention,
            "documented": self._settings.replay_window,
            "inbound": INBOUND_SECONDS,
            "dead-letter": DEAD_LETTER_SECONDS,
        }[role]
        age = round(seconds * _NANOSECONDS)
        return {
            "name": self._subjects.stream(role),
            "subjects": list(self._subjects.stored_by(role)),
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "max_age": age,
            "duplicate_window": min(_DUPLICATE_WINDOW, age),  # the server allows no window longer than the age
            "num_replicas": self._settings.replicas,
            "allow_msg_ttl": role == "runs",
        }

    async def _ensure_stream(self, role: Role) -> None:
        wanted = self.wanted(role)
        name = wanted["name"]
        try:
            found = (await self._bus.api(f"STREAM.INFO.{name}"))["config"]
        except StreamMissing as error:
            if not self._settings.manage_streams:
                subjects = ", ".join(wanted["subjects"])
                remedy = f"make it with subjects {subjects}, or set events.manageStreams"
                raise StreamError(f"stream {name} does not exist: {remedy}") from error
            await self._change("CREATE", wanted, wanted)
            _log.info("made stream %s", name)
            return
        if not self._settings.manage_streams:
            _verify(found, wanted)
            return
        differing = {key: value for key, value in wanted.items() if not _same(found.get(key), value)}
        if differing:
            await self._change("UPDATE", found | wanted, wanted)
            _log.info("changed %s of stream %s", ", ".join(differing), name)

    async def _change(self, verb: str, config: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        name = wanted["name"]
        try:
            await self._bus.api(f"STREAM.{verb}.{name}", config)
        except ApiError as error:
            if error.err_code == _OVERLAP:
                raise StreamError(await self._describe_overlap(name, wanted["subjects"])) from error
            raise StreamError(f"stream {name} cannot be made as it should be: {error}") from error

    async def _describe_overlap(self, name: str, subjects: list[str]) -> str:
        others = []
        for subject in subjects:
            streams = (await self._bus.api("STREAM.NAMES", {"subject": subject})).get("streams") or []
            others += [f"stream {other} stores {subject}" for other in streams if other != name]
        remedy = "narrow the subjects of that stream, delete it, or choose another events.prefix"
        return f"stream {name} cannot be made: {'; '.join(others) or 'another stream stores its subjects'}: {remedy}"

    async def _ensure_documented(self) -> None:
        stream = self._subjects.stream("documented")
        created, found, delivered = await self._documented_consumer(stream)
        if found is not None:
            self._delivered = (created, delivered)
        subject = self._settings.documented_subject
        if not subject:
            if found is not None and self._settings.manage_streams:
                await self._bus.api(f"CONSUMER.DELETE.{stream}.{DOCUMENTED_CONSUMER}")
            return
        wanted = {
            "name": DOCUMENTED_CONSUMER,
            "durable_name": DOCUMENTED_CONSUMER,
            "deliver_subject": subject,
            "ack_policy": "none",
            "replay_policy": "instant",
        }
        if found is not None and all(found.get(key) == value for key, value in wanted.items()):
            return
        if not self._settings.manage_streams:
            remedy = "make it as a push consumer without acks, or set events.manageStreams"
            raise StreamError(f"consumer {DOCUMENTED_CONSUMER} of stream {stream}, which delivers on {subject}, does not exist: {remedy}")
        if found is not None:
            config, action = found | wanted, "update"
        else:
            config, action = wanted | self._documented_start(created), "create"
        try:
            await self._bus.api(
                f"CONSUMER.CREATE.{stream}.{DOCUMENTED_CONSUMER}", {"stream_name": stream, "config": config, "action": action}
            )
        except ApiError as error:
            cause = f"{subject} lies within what the stream stores" if error.err_code == _DELIVERY_CYCLE else str(error)
            raise StreamError(f"events.documentedSubject {subject} cannot be served: {cause}") from error

    async def _documented_consumer(self, stream: str) -> tuple[str, dict[str, Any] | None, int]:
        """The stream's creation time, the consumer's configuration if there is one, and the last sequence that it delivered."""
        created = str((await self._bus.api(f"STREAM.INFO.{stream}"))["created"])
        try:
            info = await self._bus.api(f"CONSUMER.INFO.{stream}.{DOCUMENTED_CONSUMER}")
        except ApiError as error:
            if error.err_code == _CONSUMER_NOT_FOUND:
                return created, None, 0
            raise
        return created, info["config"], int(info["delivered"]["stream_seq"])

    def _documented_start(self, created: str) -> dict[str, Any]:
        """Where the consumer begins: after what it is known to have delivered, for it must not deliver twice; else with all there is."""
        stream, sequence = self._delivered
        if stream == created and sequence:
            return {"deliver_policy": "by_start_sequence", "opt_start_seq": sequence + 1}
        return {"deliver_policy": "all"}


def _same(found: object, wanted: object) -> bool:
    """Whether the server's value is the wanted one; it leaves out what is false, and may order subjects otherwise."""
    if isinstance(wanted, list) and isinstance(found, list):
        return sorted(found) == sorted(wanted)
    return found == wanted or (not found and not wanted)


def _verify(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise StreamError unless a stream that others made can serve."""
    name = wanted["name"]
    missing = sorted(set(wanted["subjects"]) - set(found.get("subjects") or ()))
    if missing and not _covers(found.get("subjects") or (), missing):
        raise StreamError(f"stream {name} does not store {', '.join(missing)}: add these subjects, or set events.manageStreams")
    if wanted["allow_msg_ttl"] and not found.get("allow_msg_ttl"):
        raise StreamError(f"stream {name} allows no message TTL: set allow_msg_ttl, or set events.manageStreams")
    if found.get("retention", "limits") != "limits":
        raise StreamError(f"stream {name} has retention {found['retention']}, which drops messages that were read: it must be limits")
    if found.get("deny_delete") or found.get("sealed"):
        raise StreamError(f"stream {name} is sealed or denies deletes: foreign messages could not be moved to the dead letters")


def _covers(patterns: Any, subjects: list[str]) -> bool:
    """Whether each subject, all of the form ``a.b.>``, lies under a pattern that ends in ``>``."""
    heads = [pattern[:-1] for pattern in patterns if pattern.endswith(">")]
    return all(any(subject.startswith(head) for head in heads) for subject in subjects)


def _check_documented(subject: str, subjects: Subjects) -> None:
    if not subject:
        return
    tokens = subject.split(".")
    if any(not token or re.search(r"[*>\s]", token) for token in tokens) or tokens[0].startswith("$"):
        raise ConfigurationError(f"events.documentedSubject: {subject!r} is not a subject (no wildcards, no empty tokens)")
    stored = {pattern[:-1] for role in ROLES for pattern in subjects.stored_by(role)}
    if any(subject.startswith(head) for head in stored):
        raise ConfigurationError(f"events.documentedSubject: {subject!r} lies within what the streams store: choose another")


def _version(text: str) -> tuple[int, int]:
    major, minor, *_ = (int(part) for part in re.findall(r"\d+", text) or (0, 0))
    return major, minor
