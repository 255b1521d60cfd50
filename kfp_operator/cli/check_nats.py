"""What `doctor` looks at on NATS: that it answers, its version, JetStream, our streams and who else stores their subjects."""

import re
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from kfp_operator.cli import feed
from kfp_operator.cli.report import Finding, Level, fail, ok, warn
from kfp_operator.errors import BusError, BusUnavailable, ConfigurationError, StreamMissing
from kfp_operator.events.jetstream import JetStreamBus, parse_time
from kfp_operator.events.streams import Streams
from kfp_operator.events.subjects import ROLES, Subjects
from kfp_operator.operator.credentials import in_cluster
from kfp_operator.operator.nats_server import PrivateServer
from kfp_operator.settings import Settings

LEAST_VERSION = (2, 11)
"""nats-server with message TTL (Nats-TTL), which run-status events need."""
SKEW = 5.0


async def check_nats(settings: Settings) -> AsyncGenerator[Finding]:
    """Findings as they come; only the first when there is no server."""
    try:
        servers = feed.servers(settings)
    except ConfigurationError as error:
        unreadable = isinstance(error.__cause__, OSError)
        yield fail("NATS", str(error), "give --nats URL, or set nats.servers") if unreadable else _no_server(settings)
        return
    async with JetStreamBus(servers) as bus:
        subjects = Subjects(settings.events.prefix)
        streams = Streams(bus, subjects, settings.events)
        try:
            await feed.connected(bus)
        except BusUnavailable as error:
            why = str(error).removeprefix("NATS: ")
            if not settings.nats.servers:
                yield warn("NATS", f"the private server is not running ({why})", "nothing to do: kfp-operator run starts it again")
            else:
                yield fail("NATS", why, "start the server, or correct nats.servers (--nats) and its credentials")
            return
        where = ", ".join(re.sub(r"//[^/@]*@", "//", server) for server in servers.servers)
        if not settings.nats.servers:
            where += ", the private server of an operator on this machine"
        if tuple(int(part) for part in bus.server_version.split(".")[:2]) < LEAST_VERSION:
            yield fail("NATS", f"nats-server {bus.server_version} at {where} has no message TTL", "upgrade it to 2.11 or later")
            return
        yield ok("NATS", f"nats-server {bus.server_version} at {where}")
        try:
            account = await bus.api("INFO")
        except BusError as error:
            yield fail("JetStream", str(error), "enable JetStream on the server and for this account")
            return
        yield ok(
            "JetStream", f"on; {account.get('streams', 0)} streams, {account.get('storage', 0) / 2**20:.1f} MiB stored{_limit(account)}"
        )
        for role in ROLES:
            yield await _check_stream(bus, streams.wanted(role), managed=settings.events.manage_streams)
        if not settings.events.manage_streams:
            yield await _check_foreign(streams)
        if (finding := await _check_clock(bus, subjects)) is not None:
            yield finding


def _no_server(settings: Settings) -> Finding:
    if in_cluster():
        return fail("NATS", "no server is set, and in a cluster none is started", "set nats.servers (KFPOP_NATS__SERVERS)")
    try:
        PrivateServer(feed.private_server_file(settings).parent)
    except ConfigurationError as missing:
        return fail("NATS", "no server is set, and none is installed to run privately", str(missing))
    return warn(
        "NATS",
        "no server is set: kfp-operator run starts a private one, which is not running now",
        "nothing to do on a laptop; else give --nats URL, or set nats.servers",
    )


def _limit(account: Mapping[str, Any]) -> str:
    limit = int((account.get("limits") or {}).get("max_storage", -1))
    return f" of {limit / 2**20:.0f} MiB" if limit > 0 else ""


async def _check_stream(bus: JetStreamBus, wanted: Mapping[str, Any], *, managed: bool) -> Finding:
    """`wanted`: the configuration that the operator would give it."""
    name = wanted["name"]
    try:
        overlapping = [
            f"stream {other} stores {subject}"
            for subject in wanted["subjects"]
            for other in (await bus.api("STREAM.NAMES", {"subject": subject})).get("streams") or []
            if other != name
        ]
        if overlapping:
            remedy = "narrow the subjects of that stream, delete it, or choose another events.prefix"
            return fail("stream", f"{name} cannot store its subjects: {'; '.join(overlapping)}", remedy)
        info = await bus.api(f"STREAM.INFO.{name}")
    except StreamMissing:
        if managed:
            return warn("stream", f"{name} does not exist yet", "nothing to do: the operator makes it when it starts")
        return fail(
            "stream", f"{name} does not exist", f"make it with subjects {', '.join(wanted['subjects'])}, or set events.manageStreams"
        )
    except BusError as error:
        return fail("stream", f"{name} cannot be looked at: {error}", "allow $JS.API.STREAM.INFO and $JS.API.STREAM.NAMES to this user")
    differing = sorted(key for key, value in wanted.items() if not _same(info["config"].get(key), value))
    if differing and managed:
        return warn("stream", f"{name} differs in {', '.join(differing)}", "nothing to do: the operator changes it when it starts")
    state = info["state"]
    return ok("stream", f"{name}: {state['messages']} messages, {state['bytes'] / 2**20:.1f} MiB")


async def _check_foreign(streams: Streams) -> Finding:
    """Streams that others made: what the operator itself would say of them. It changes nothing then."""
    try:
        await streams.ensure()
    except BusError as error:
        return Finding(Level.FAIL, "streams", str(error))
    return ok("streams", "made by others (events.manageStreams: false), and fit for use")


def _same(found: object, wanted: object) -> bool:
    """The server leaves out what is false, and may order subjects otherwise."""
    if isinstance(wanted, list) and isinstance(found, list):
        return sorted(found) == sorted(wanted)
    return found == wanted or (not found and not wanted)


async def _check_clock(bus: JetStreamBus, subjects: Subjects) -> Finding | None:
    """How far the server's clock is off: it stamps what it stores. None when it does not tell (before 2.10, no stream)."""
    sent = time.time()
    try:
        info = await bus.api(f"STREAM.INFO.{subjects.stream('runs')}")
        stamp = parse_time(str(info["ts"])).timestamp()
    except (BusError, KeyError, ValueError):
        return None
    skew = stamp - (sent + time.time()) / 2
    if abs(skew) <= SKEW:
        return ok("clocks", f"this machine and NATS agree within {SKEW:g} s")
    return warn("clocks", f"NATS is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine", "set both by NTP")
