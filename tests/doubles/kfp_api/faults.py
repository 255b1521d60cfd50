"""What goes wrong at the HTTP boundary, before or after a request had its effect.

A fault is data, so that a test in another process can send it. Those that match are used up in the order in which they were added.
"""

import asyncio
import fnmatch
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HTML = "<html><head><title>{status}</title></head><body><center><h1>{status} upstream</h1></center></body></html>"


@dataclass(frozen=True)
class Fault:
    """Something that happens to requests.

    Args:
        method: Which requests; ``*``: all.
        path: Pattern (with ``*``) of the path after /apis/v2beta1, as ``/runs`` or ``/runs/*:terminate``.
        times: How many requests; 0: until `Faults.clear`.
        after: Matching requests that pass before.
        latency: Seconds before anything else.
        late: Seconds between the effect and the answer.
        status: Answered instead of what the server says, with a proxy's HTML; 401 and 429 as the gateway says them.
        headers: Of that answer, as Retry-After.
        effect: Whether the request has its effect all the same: its answer is lost.
        truncate: The answer breaks off in the middle of its JSON, though it says that it is whole.
        reset: The connection is reset instead of an answer.
        hang: There is no answer, and the connection stays open.

    """

    method: str = "*"
    path: str = "*"
    times: int = 1
    after: int = 0
    latency: float = 0.0
    late: float = 0.0
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    effect: bool = False
    truncate: bool = False
    reset: bool = False
    hang: bool = False

    def matches(self, method: str, path: str) -> bool:
        """Whether it is for this request."""
        return self.method in ("*", method) and fnmatch.fnmatchcase(path, self.path)


class Faults:
    """The faults that are still to come."""

    def __init__(self) -> None:
        self._left: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Let this happen."""
        self._left.append(fault)

    def clear(self) -> None:
        """Let nothing happen any more."""
        self._left.clear()

    async def around(self, request: web.Request, path: str, handler: Handler) -> web.StreamResponse:
        """Answer the request, with the fault that is for it if there is one."""
        fault = self._take(request.method, path)
        if fault is None:
            return await handler(request)
        if not request.content_type.startswith("multipart/"):
            await request.read()  # who hangs up has asked all the same
        await asyncio.sleep(fault.latency)
        breaks = fault.status or fault.reset or fault.hang
        answered = await handler(request) if fault.effect or not breaks else None
        await asyncio.sleep(fault.late)
        if fault.hang:
            await asyncio.Event().wait()
        if fault.reset:
            return abort(request)
        if fault.status:
            return web.Response(status=fault.status, text=_text(fault.status), headers=fault.headers, content_type=_type(fault.status))
        if answered is None:
            raise AssertionError("a fault without a break lets the handler answer")
        if fault.truncate and isinstance(answered, web.Response) and isinstance(answered.body, bytes):
            return web.Response(status=answered.status, body=answered.body[: len(answered.body) // 2], content_type="application/json")
        return answered

    def _take(self, method: str, path: str) -> Fault | None:
        for index, fault in enumerate(self._left):
            if not fault.matches(method, path):
                continue
            if fault.after:
                self._left[index] = replace(fault, after=fault.after - 1)
                continue
            if fault.times == 1:
                del self._left[index]
            elif fault.times:
                self._left[index] = replace(fault, times=fault.times - 1)
            return fault
        return None


def abort(request: web.Request) -> web.Response:
    """Reset the connection of a request; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _text(status: int) -> str:
    return '{"code":16, "message":"Unauthenticated", "details":[]}' if status == 401 else HTML.format(status=status)


def _type(status: int) -> str:
    return "application/json" if status == 401 else "text/html"
