"""The HTTP client of Kubeflow Pipelines' v2beta1 API: one request per call, JSON in and out, typed errors.

It repeats nothing but a request that was refused with 401 when there are new credentials: whoever calls decides about retries. All
requests pass the limiter; a Retry-After of any answer stops them for so long. Answers are bounded in size and time. A redirect is an
error: a server that wants a login would be followed to its login page.
"""

import asyncio
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from kfp_operator.errors import Retryable
from kfp_operator.providers.kubeflow.authentication import Identity, read_secret
from kfp_operator.providers.kubeflow.clock import Clock
from kfp_operator.providers.kubeflow.errors import DEFAULT_PAUSE, NOT_FOUND, Failure, NoAnswer, Refusal, clip, describe, retry_after
from kfp_operator.providers.kubeflow.limiter import Limiter
from kfp_operator.providers.kubeflow.parameters import KubeflowParameters
from kfp_operator.providers.protocol import Secrets

PREFIX = "/apis/v2beta1"
CONNECTIONS = 8
CONNECT_TIMEOUT = 10.0
LARGEST_ANSWER = 32 * 1024 * 1024
LARGEST_ERROR = 256 * 1024
_CHUNK = 256 * 1024

Query = Mapping[str, str | int]


class AnswerTooLarge(Failure):
    """The answer is larger than it may be: ask for less."""


class Client:
    """One server. Connects with the first request; `close` at the end."""

    def __init__(
        self,
        parameters: KubeflowParameters,
        identity: Identity,
        limiter: Limiter,
        clock: Clock,
        *,
        secrets: Secrets | None = None,
        user_agent: str = "kfp-operator",
    ) -> None:
        self.endpoint = parameters.endpoint
        self._parameters = parameters
        self._identity = identity
        self._limiter = limiter
        self._clock = clock
        self._secrets = secrets
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def close(self) -> None:
        """Close all connections, for good."""
        self._closed = True
        await self._hang_up()

    async def _hang_up(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, path: str, query: Query | None = None, *, what: str) -> dict[str, Any]:
        """GET; `path` below /apis/v2beta1, its parts quoted by `part`."""
        return await self._request("GET", path, query, what=what)

    async def post(
        self, path: str, body: Mapping[str, Any] | None = None, query: Query | None = None, *, what: str, at_least: float = 0.0
    ) -> dict[str, Any]:
        """POST of a JSON body, which gets `at_least` so many seconds."""
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        return await self._request("POST", path, query, what=what, data=data, at_least=at_least)

    async def delete(self, path: str, query: Query | None = None, *, what: str) -> dict[str, Any]:
        """DELETE."""
        return await self._request("DELETE", path, query, what=what)

    async def upload(self, path: str, content: bytes, query: Query, *, what: str) -> dict[str, Any]:
        """POST of a file, as the upload handlers want it."""
        return await self._request("POST", path, query, what=what, file=content)

    async def _request(
        self,
        method: str,
        path: str,
        query: Query | None,
        *,
        what: str,
        data: bytes | None = None,
        file: bytes | None = None,
        at_least: float = 0.0,
    ) -> dict[str, Any]:
        url = URL(self.endpoint + PREFIX + path + _encoded(query), encoded=True)
        total = max(self._parameters.request_timeout_seconds, at_least)
        headers = await self._identity.headers()
        status, answer, response = await self._send(method, url, headers, data, file, total, what)
        if status == 401 and await self._identity.renew():
            headers = await self._identity.headers()
            status, answer, response = await self._send(method, url, headers, data, file, total, what)
        if status >= 300:
            raise self._error(what, status, answer, response)
        try:
            document = json.loads(answer) if answer.strip() else {}
        except ValueError as error:
            raise self._unintelligible(what, status, answer) from error
        if not isinstance(document, dict):
            raise self._unintelligible(what, status, answer)
        return document

    async def _send(
        self, method: str, url: URL, headers: Mapping[str, str], data: bytes | None, file: bytes | None, total: float, what: str
    ) -> tuple[int, bytes, Mapping[str, str]]:
        await self._limiter.acquire()
        session = await self._open()
        body: Any = data
        content_type = {"Content-Type": "application/json"} if data is not None else {}
        if file is not None:
            body = aiohttp.FormData()
            body.add_field("uploadfile", file, filename="pipeline.yaml", content_type="application/yaml")
        try:
            async with session.request(
                method,
                url,
                data=body,
                headers={**headers, **content_type},
                timeout=aiohttp.ClientTimeout(total=total, sock_connect=min(CONNECT_TIMEOUT, total)),
                allow_redirects=False,
            ) as response:
                answer = await self._read(response, what)
                return response.status, answer, response.headers
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if isinstance(error, aiohttp.ClientSSLError):
                await self._hang_up()  # the next one reads the authorities anew
            raise self._no_answer(what, error, sent=False) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._no_answer(what, error, sent=True, total=total) from error

    async def _read(self, response: aiohttp.ClientResponse, what: str) -> bytes:
        most = LARGEST_ANSWER if response.status < 300 else LARGEST_ERROR
        parts, size = [], 0
        async for chunk in response.content.iter_chunked(_CHUNK):
            size += len(chunk)
            if size > most:
                response.close()
                if response.status >= 300:
                    break
                message = f"{what}: {self.endpoint} answers with more than {most // 1024 // 1024} MiB"
                raise AnswerTooLarge(message, status=response.status, said="", reason="AnswerTooLarge")
            parts.append(chunk)
        return b"".join(parts)

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._closed:
                raise NoAnswer("the Provider was edited or deleted while this was asked", sent=False)
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=await self._tls()),
                    headers={"User-Agent": self._user_agent, "Accept": "application/json"},
                    proxy=_proxy(self.endpoint),
                    cookie_jar=aiohttp.DummyCookieJar(),
                )
            return self._session

    async def _tls(self) -> ssl.SSLContext | bool:
        parameters = self._parameters
        if urlsplit(self.endpoint).scheme != "https":
            return True
        authorities = None
        if parameters.ca_secret_key_ref is not None:
            ref, field = parameters.ca_secret_key_ref, "spec.parameters.caSecretKeyRef"
            authorities = (await read_secret(self._secrets, ref.name, ref.key, field)).decode("latin-1")
        return await tls_context(parameters.ca_file, authorities)

    def _no_answer(self, what: str, error: Exception, *, sent: bool, total: float = CONNECT_TIMEOUT) -> NoAnswer:
        reason = clip(str(error)) or f"no answer within {total:g} s"
        message = f"{what}: spec.parameters.endpoint {self.endpoint} does not answer: {self._identity.hide(reason)}"
        return NoAnswer(message, sent=sent)

    def _unintelligible(self, what: str, status: int, answer: bytes) -> Failure:
        page = answer.lstrip()[:1] == b"<"
        why = "a web page; is it the API server's URL, and does something in between want a login?" if page else "no JSON that is whole"
        message = f"{what}: spec.parameters.endpoint {self.endpoint} answers {status} with {why}"
        return Failure(message, status=status, said="", reason="InvalidAnswer")

    def _error(self, what: str, status: int, answer: bytes, headers: Mapping[str, str]) -> Retryable | Refusal:
        told, code = describe(answer)
        said = self._identity.hide(told)
        after = retry_after(headers.get("Retry-After"), self._clock.now())
        if status == 429:
            after = DEFAULT_PAUSE if after is None else after
        if after is not None:
            self._limiter.pause(after)
        text = f"{what}: {self.endpoint} answers {status}" + (f": {said}" if said else "")
        if status == 429:
            return Failure(text, status=status, said=said, reason="RateLimited", after=after)
        if status == 401:
            remedy = "spec.parameters.authentication is not what the server accepts: a token needs the audience pipelines.kubeflow.org"
            return Failure(f"{text}; {remedy}", status=status, said=said, reason="Unauthenticated")
        if status == 403:
            where = self._parameters.namespace or self._parameters.workflow_namespace
            remedy = f"whoever spec.parameters.authentication names needs ClusterRole kubeflow-pipelines-edit in namespace {where}"
            return Failure(f"{text}; {remedy}", status=status, said=said, reason="PermissionDenied")
        if status < 400:
            to = clip(headers.get("Location", ""))
            remedy = f"it sends elsewhere ({self._identity.hide(to.partition('?')[0])}): name the API server itself, or set authentication"
            return Failure(f"{text}; spec.parameters.endpoint: {remedy}", status=status, said=said, reason="Redirected")
        if (status >= 500 and status != 501) or status in (408, 425):
            return Failure(text, status=status, said=said, after=after)
        if status == 404 and code != NOT_FOUND:
            remedy = "that is not how Kubeflow Pipelines says it; is spec.parameters.endpoint the API server's URL?"
            return Failure(f"{text}; {remedy}", status=status, said=said, reason="InvalidAnswer")
        return Refusal(text, status=status, said=said, code=code)


async def tls_context(ca_file: str | None, authorities: str | None) -> ssl.SSLContext:
    """A context that trusts these authorities, or the system's. Retryable when they cannot be read."""
    try:
        return await asyncio.to_thread(ssl.create_default_context, cafile=ca_file, cadata=authorities)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        field = "spec.parameters.caFile" if ca_file is not None else "spec.parameters.caSecretKeyRef"
        where = f" {ca_file}" if ca_file is not None else ""
        reason = getattr(error, "strerror", None) or "it holds no certificates in PEM"
        raise Retryable(f"{field}{where} cannot be used: {reason}", reason="AuthoritiesUnreadable") from error


def part(text: str) -> str:
    """A part of a path."""
    return quote(text, safe="")


def _encoded(query: Query | None) -> str:
    given = {key: str(value) for key, value in (query or {}).items() if value != ""}
    return "?" + "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in given.items()) if given else ""


def _proxy(endpoint: str) -> str | None:
    """The environment's; aiohttp's own look-up would send what stands in ~/.netrc along."""
    parts = urlsplit(endpoint)
    if proxy_bypass(parts.netloc):
        return None
    return getproxies().get(parts.scheme)
