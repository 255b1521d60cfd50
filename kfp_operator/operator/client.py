"""The thin client of the Kubernetes API: one HTTP request per call, JSON in and out, typed errors.

It repeats nothing (but once after a 401, see `credentials`), keeps nothing and waits for at most `timeout` seconds: whoever calls
decides about retries. Status and metadata are written by merge patches that carry the resourceVersion looked at, so that an
object that changed meanwhile answers 409 instead of losing somebody's write.
"""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp

from kfp_operator.errors import AlreadyExists, ClusterError, ClusterUnavailable, Conflict, Forbidden, Gone, NotFound, Unprocessable
from kfp_operator.operator.credentials import Credentials
from kfp_operator.operator.resources import Resource

CONNECTIONS = 32
CONNECT_TIMEOUT = 10.0
TIMEOUT = 30.0
PAGE = 500
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_ONE_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_MERGE_PATCH = "application/merge-patch+json"

Observe = Callable[[str, Resource | None, int, float], None]
"""Called after each request with verb, resource (None: a bare path), HTTP code (0: no answer) and seconds."""


class Change(NamedTuple):
    """What a watch tells: ``ADDED``, ``MODIFIED`` or ``DELETED``, and the object as it is then (as it was last)."""

    type: str
    body: dict[str, Any]


class Cluster:
    """An API server. Use as an async context manager.

    All methods raise ClusterUnavailable (no answer, 429, 5xx), Forbidden (401, 403), NotFound, Conflict, Gone, Unprocessable
    (400, 422) or ClusterError (any other code), with a message that names the verb, the object and what the server said.
    """

    def __init__(
        self, credentials: Credentials, *, timeout: float = TIMEOUT, limit: int = CONNECTIONS, observe: Observe | None = None
    ) -> None:
        self.credentials = credentials
        self._limit = limit
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_TIMEOUT, timeout))
        self._observe = observe
        self._session: aiohttp.ClientSession | None = None

    @property
    def server(self) -> str:
        """URL of the API server."""
        return self.credentials.endpoint.server

    async def __aenter__(self) -> Self:
        self._session = self.credentials.session(limit=self._limit)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def get(self, resource: Resource, name: str, namespace: str = "") -> dict[str, Any]:
        """The object."""
        return await self._document("get", resource, namespace, name)

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        page: int = PAGE,
    ) -> AsyncIterator[dict[str, Any]]:
        """All objects, page by page and all of one moment; no namespace: of all namespaces.

        `metadata_only`: PartialObjectMetadata instead of whole objects. Raises Gone when reading took longer than the API server
        remembers (some five minutes): begin again.
        """
        pages = self._pages(resource, namespace, label_selector, field_selector, metadata_only=metadata_only, page=page)
        async for answer in pages:
            for item in answer.get("items") or ():
                yield item

    async def snapshot(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", metadata_only: bool = False
    ) -> tuple[Sequence[dict[str, Any]], str]:
        """All objects, and the resourceVersion from which a watch goes on."""
        items: Sequence[dict[str, Any]] = ()
        version = ""
        async for answer in self._pages(resource, namespace, label_selector, "", metadata_only=metadata_only, page=PAGE):
            items = [*items, *(answer.get("items") or ())]
            version = str((answer.get("metadata") or {}).get("resourceVersion") or "")
        return items, version

    async def count(self, resource: Resource, namespace: str = "") -> int:
        """How many objects there are, from one small request; no namespace: in all of them."""
        answer = await self._document(
            "list", resource, namespace, query={"limit": "1"}, headers={"Accept": f"{_METADATA},application/json"}
        )
        return len(answer.get("items") or ()) + int((answer.get("metadata") or {}).get("remainingItemCount") or 0)

    def watch(self, resource: Resource, name: str, namespace: str = "", *, resource_version: str, seconds: int) -> AsyncGenerator[Change]:
        """Changes of one object after `resource_version`, for at most `seconds`: what follows one object for a person, not a cache.

        Raises Gone when the API server has forgotten that version, ClusterUnavailable when the connection breaks: get the object again.
        """
        what = f"watch {resource.title} {namespace}/{name}" if namespace else f"watch {resource.title} {name}"
        query = {"fieldSelector": f"metadata.name={name}", "resourceVersion": resource_version}
        return self._changes(what, resource, namespace, query, seconds)

    def watch_all(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        seconds: int,
        label_selector: str = "",
        metadata_only: bool = False,
    ) -> AsyncGenerator[Change]:
        """Changes of all objects that the selector chooses; DELETED also tells one that it does not choose any more. See `watch`."""
        what = f"watch {resource.title} in {namespace or 'all namespaces'}"
        query = {"labelSelector": label_selector, "resourceVersion": resource_version}
        return self._changes(what, resource, namespace, query, seconds, metadata_only=metadata_only)

    async def create(self, resource: Resource, body: Mapping[str, Any], namespace: str = "") -> dict[str, Any]:
        """Create the object and return it as stored. AlreadyExists: there is one of that name."""
        name = str((body.get("metadata") or {}).get("name", ""))
        typed = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        return await self._document("create", resource, namespace, payload=typed, called=name)

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Mapping[str, Any],
        namespace: str = "",
        *,
        subresource: str = "",
        resource_version: str = "",
    ) -> dict[str, Any]:
        """Merge `body` into the object (RFC 7386: null removes, lists are replaced) and return it as stored.

        `subresource`: "status", or "" for the rest. `resource_version`: only if the object still has it, else Conflict.
        """
        if resource_version:
            body = {**body, "metadata": {**(body.get("metadata") or {}), "resourceVersion": resource_version}}
        headers = {"Content-Type": _MERGE_PATCH}
        return await self._document("patch", resource, namespace, name, subresource, payload=body, headers=headers)

    async def delete(self, resource: Resource, name: str, namespace: str = "", *, uid: str = "", propagation: str = "Background") -> None:
        """Delete the object. `uid`: only that very one, else Conflict."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        await self._document("delete", resource, namespace, name, payload=options)

    async def serves(self, resource: Resource) -> bool:
        """Whether discovery knows the resource: its CustomResourceDefinition is installed and established."""
        try:
            found = json.loads(await self.raw(resource.root))
        except NotFound:
            return False
        return any(each.get("name") == resource.plural for each in found.get("resources") or ())

    async def raw(self, path: str) -> str:
        """What a GET of the path answers, as text: ``/readyz``, ``/metrics``."""
        return (await self._request("get", path, what=f"get {path}", resource=None)).decode(errors="replace")

    async def version(self) -> str:
        """Version of the API server, as v1.36.3."""
        return str(json.loads(await self.raw("/version"))["gitVersion"])

    async def _pages(
        self, resource: Resource, namespace: str, label_selector: str, field_selector: str, *, metadata_only: bool, page: int
    ) -> AsyncIterator[dict[str, Any]]:
        query = {"limit": str(page), "labelSelector": label_selector, "fieldSelector": field_selector}
        accept = f"{_METADATA},application/json" if metadata_only else "application/json"
        while True:
            answer = await self._document("list", resource, namespace, query=query, headers={"Accept": accept})
            yield answer
            query["continue"] = (answer.get("metadata") or {}).get("continue") or ""
            if not query["continue"]:
                return

    async def _changes(
        self, what: str, resource: Resource, namespace: str, query: Mapping[str, str], seconds: int, *, metadata_only: bool = False
    ) -> AsyncGenerator[Change]:
        given = {"watch": "true", "timeoutSeconds": str(seconds)} | {key: value for key, value in query.items() if value}
        headers = {"Accept": f"{_ONE_METADATA},application/json" if metadata_only else "application/json"}
        timeout = aiohttp.ClientTimeout(total=seconds + TIMEOUT, sock_connect=self._timeout.sock_connect)
        rest = b""
        try:
            async with self._open().get(
                self.server + resource.path(namespace), params=given, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status >= 300:
                    raise _error(what, response.status, await response.read(), response.headers.get("Retry-After"), resource)
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield _change(what, line)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterUnavailable(f"{what}: {self.server}: {error or 'no answer'}") from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is used as a context manager")
        return self._session

    async def _document(
        self,
        verb: str,
        resource: Resource,
        namespace: str,
        name: str = "",
        subresource: str = "",
        *,
        called: str = "",
        query: Mapping[str, str] | None = None,
        payload: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        path = resource.path(namespace, name, subresource)
        title = f"{resource.title}/{subresource}" if subresource else resource.title
        what = " ".join(part for part in (verb, title, "/".join(part for part in (namespace, name or called) if part)) if part)
        data = None if payload is None else json.dumps(payload, separators=(",", ":")).encode()
        answer = await self._request(verb, path, what=what, resource=resource, query=query, data=data, headers=headers)
        try:
            document: dict[str, Any] = json.loads(answer)
        except ValueError as error:
            raise ClusterError(f"{what}: {self.server} does not answer like an API server: {answer[:200]!r}") from error
        return document

    async def _request(
        self,
        verb: str,
        path: str,
        *,
        what: str,
        resource: Resource | None,
        query: Mapping[str, str] | None = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        session = self._open()
        started, code = time.monotonic(), 0
        try:
            async with session.request(
                _METHODS[verb],
                self.server + path,
                params={key: value for key, value in (query or {}).items() if value},
                data=data,
                headers={"Content-Type": "application/json", **(headers or {})} if data is not None else headers,
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                code = response.status
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or f"no answer within {self._timeout.total:g} s"
            raise ClusterUnavailable(f"{what}: {self.server}: {reason}") from error
        finally:
            if self._observe is not None:
                self._observe(verb, resource, code, time.monotonic() - started)
        if code < 300:
            return answer
        raise _error(what, code, answer, response.headers.get("Retry-After"), resource)


_METHODS = {"get": "GET", "list": "GET", "create": "POST", "patch": "PATCH", "delete": "DELETE"}
_ERRORS: dict[int, type[ClusterError]] = {
    400: Unprocessable,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Unprocessable,
}


def _error(what: str, code: int, answer: bytes, retry_after: str | None, resource: Resource | None) -> ClusterError:
    status = _status(answer)
    said = str(status.get("message") or "") or answer[:300].decode(errors="replace").strip()
    if code == 404 and not status and resource is not None:
        said = f"the API server does not serve {resource.title} {resource.version}: is its CustomResourceDefinition installed?"
    message = f"{what}: {said} ({code})"
    if code == 429 or code >= 500:
        after = retry_after or (status.get("details") or {}).get("retryAfterSeconds")
        return ClusterUnavailable(message, status=code, after=_seconds(after))
    if code == 409 and status.get("reason") == "AlreadyExists":
        return AlreadyExists(message, status=code)
    return _ERRORS.get(code, ClusterError)(message, status=code)


def _change(what: str, line: bytes) -> Change:
    try:
        document = json.loads(line)
        kind, body = str(document["type"]), document["object"]
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"{what}: not an event of a watch: {line[:200]!r}") from error
    if kind == "ERROR":
        raise _error(what, int(body.get("code") or 500), json.dumps(body).encode(), None, None)
    return Change(kind, body)


def _status(answer: bytes) -> dict[str, Any]:
    """The metav1.Status of a refusal; empty when something else answered."""
    try:
        document = json.loads(answer)
    except ValueError:
        return {}
    return document if isinstance(document, dict) and document.get("kind") == "Status" else {}


def _seconds(value: object) -> float | None:
    """Retry-After in seconds; a date is not sent by API servers."""
    try:
        return float(str(value)) if value else None
    except ValueError:
        return None
