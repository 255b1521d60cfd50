"""How the server says no: the two shapes of its errors, with its own words.

What passes the gateway answers ``{code, message, details}`` with a gRPC code; the upload handlers answer ``{error_message,
error_details}`` with a Go stack trace. Callers trust status and `code`, never the words; the words are here because people see them.
"""

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

HTTP_OF = {3: 400, 5: 404, 6: 409, 7: 403, 9: 400, 10: 409, 12: 501, 13: 500, 14: 503, 16: 401}
"""HTTP status by gRPC code."""
STACK = "\ngithub.com/kubeflow/pipelines/backend/src/common/util.NewAlreadyExistError\n\t/go/src/error.go:123\nruntime.goexit"


class Refusal(Exception):
    """An error of the gateway.

    Args:
        code: gRPC code.
        message: The internal chain, which the client sees too.
        external: The message for people; the whole chain if left out.
        details: Whether there are any: errors of the JSON parser have none.

    """

    def __init__(self, code: int, message: str, external: str = "", *, details: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.external = external or message
        self.details = details

    def within(self, *steps: str) -> "Refusal":
        """The same, as told by the functions that called: outermost first."""
        return Refusal(self.code, ": ".join([*steps, self.message]), self.external, details=self.details)

    def answer(self) -> web.Response:
        """The HTTP response."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details:
            body["details"] = [{"@type": "type.googleapis.com/google.rpc.Status", "code": self.code, "message": self.external}]
        return answer(body, HTTP_OF[self.code])


class UploadRefusal(Exception):
    """An error of an upload handler, in the shape of the API before v2."""

    def __init__(self, status: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details or message

    def answer(self) -> web.Response:
        """The HTTP response."""
        return answer({"error_message": self.message, "error_details": self.details + STACK}, self.status)


class PlainRefusal(Exception):
    """An error that is not JSON."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text

    def answer(self) -> web.Response:
        """The HTTP response."""
        return web.Response(status=self.status, text=self.text, content_type="text/plain")


def answer(body: Mapping[str, Any], status: int = 200) -> web.Response:
    """JSON as the server prints it."""
    return web.Response(status=status, body=json.dumps(body, separators=(", ", ":")).encode(), content_type="application/json")


def invalid(message: str) -> Refusal:
    """A request that cannot be right."""
    return Refusal(3, f"Invalid input error: {message}", message)


def not_found(kind: str, name: str) -> Refusal:
    """There is no such thing."""
    return Refusal(5, f"ResourceNotFoundError: {kind} {name} not found", f"{kind} {name} not found")


def internal(message: str) -> Refusal:
    """A failure of the server, or of what it finds out too late."""
    return Refusal(13, f"InternalServerError: {message}", "Internal Server Error")


def not_json(message: str) -> Refusal:
    """What strict protobuf JSON refuses. The blank after "proto:" is no ordinary one, at times."""
    return Refusal(3, f"proto:\N{NO-BREAK SPACE}{message}", details=False)
