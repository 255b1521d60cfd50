"""What the client makes of answers, silence and refused credentials. A server that answers as it is told stands in for odd ones."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from kfp_operator.errors import AlreadyExists, ClusterError, ClusterUnavailable, ConfigurationError, Conflict, Forbidden, Gone, NotFound
from kfp_operator.operator import credentials, kubeconfig
from kfp_operator.operator.client import Cluster
from kfp_operator.operator.credentials import ServiceAccount, load_credentials
from kfp_operator.operator.resources import CONFIG_MAPS, NAMESPACES, Kinds, Resource

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
RUN = Kinds().run


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def config(folder: Path, url: str, **user: Any) -> Path:
    path = folder / "config"
    document = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(document))
    return path


@asynccontextmanager
async def client(folder: Path, answer: Answer, **options: Any) -> AsyncIterator[Cluster]:
    user = options.pop("user", {})
    async with server(answer) as url, Cluster(await load_credentials(config(folder, url, **user)), **options) as cluster:
        yield cluster


def always(status: int, body: Any = None, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body or {}, status=status, headers=headers)

    return answer


def refusal(code: int, message: str, **details: Any) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "details": details}


@pytest.mark.parametrize(
    ("code", "body", "headers", "after"),
    [
        (429, refusal(429, "too many requests"), {"Retry-After": "3"}, 3.0),
        (500, refusal(500, "etcdserver: leader changed"), {}, None),
        (503, refusal(503, "unavailable", retryAfterSeconds=7), {}, 7.0),
        (504, refusal(504, "Timeout: request did not complete"), {}, None),
        (502, "<html>Bad Gateway</html>", {}, None),
    ],
)
async def test_an_overloaded_server_is_unavailable_and_says_for_how_long(
    tmp_path: Path, code: int, body: Any, headers: dict[str, str], after: float | None
) -> None:
    async with client(tmp_path, always(code, body, **headers)) as cluster:
        with pytest.raises(ClusterUnavailable) as raised:
            await cluster.patch(RUN, "train-1", {}, "team", subresource="status")
    assert (raised.value.status, raised.value.after) == (code, after)
    assert str(raised.value).startswith("patch runs.kfp-operator.dev/status team/train-1: ")
    assert str(raised.value).endswith(f"({code})")


async def test_a_list_that_is_continued_too_late_is_gone(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.query.get("continue"):
            return web.json_response(refusal(410, "The provided continue parameter is too old"), status=410)
        return web.json_response({"items": [{"metadata": {"name": "a"}}], "metadata": {"continue": "more"}})

    async with client(tmp_path, answer) as cluster:
        with pytest.raises(Gone, match=r"list runs.kfp-operator.dev: The provided continue parameter is too old"):
            [item async for item in cluster.list(RUN)]


async def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with Cluster(await load_credentials(config(tmp_path, "http://127.0.0.1:9"))) as cluster:
        with pytest.raises(
            ClusterUnavailable, match=r"get runs.kfp-operator.dev team/a: http://127.0.0.1:9: Cannot connect to host 127.0.0.1:9"
        ):
            await cluster.get(RUN, "a", "team")


async def test_silence_ends_after_the_timeout(tmp_path: Path) -> None:
    heard = asyncio.Event()

    async def silent(_: web.Request) -> web.Response:
        await heard.wait()
        return web.Response()

    async with client(tmp_path, silent, timeout=0.1) as cluster:
        with pytest.raises(ClusterUnavailable, match=r"no answer within 0.1 s"):
            await cluster.get(NAMESPACES, "default")
        heard.set()


async def test_an_answer_that_breaks_off_is_no_answer(tmp_path: Path) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"kind":')
        assert request.transport is not None
        request.transport.close()
        return response

    async with client(tmp_path, broken) as cluster:
        with pytest.raises(ClusterUnavailable):
            await cluster.get(NAMESPACES, "default")


async def test_something_that_is_no_api_server_is_said_to_be_none(tmp_path: Path) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>Please log in</html>", content_type="text/html")

    async with client(tmp_path, page) as cluster:
        with pytest.raises(ClusterError, match="does not answer like an API server: b'<html>Please log in"):
            await cluster.get(NAMESPACES, "default")


@pytest.mark.parametrize(
    ("no_proxy", "proxied"), [("", True), ("api.example", False), (".example", False), ("other.example", True), ("*", False)]
)
async def test_the_environments_proxy_is_used_unless_it_excludes_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_proxy: str, proxied: bool
) -> None:
    async def proxy(request: web.Request) -> web.Response:
        return web.json_response({"metadata": {"name": request.raw_path}})

    async with server(proxy) as url:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("no_proxy", no_proxy)
        async with Cluster(await load_credentials(config(tmp_path, "http://api.example:6443")), timeout=5) as cluster:
            if proxied:
                answer = await cluster.get(NAMESPACES, "default")
                assert answer["metadata"]["name"] == "http://api.example:6443/api/v1/namespaces/default"
            else:
                with pytest.raises(ClusterUnavailable, match="Cannot connect to host api"):
                    await cluster.get(NAMESPACES, "default")


async def test_a_redirect_is_not_followed_with_our_token(tmp_path: Path) -> None:
    async with client(tmp_path, always(302, Location="http://elsewhere.example/")) as cluster:
        with pytest.raises(ClusterError) as raised:
            await cluster.get(NAMESPACES, "default")
    assert raised.value.status == 302


async def test_a_kind_that_is_not_installed_says_so(tmp_path: Path) -> None:
    async def unknown(_: web.Request) -> web.Response:
        return web.Response(text="404 page not found\n", status=404)

    async with client(tmp_path, unknown) as cluster:
        with pytest.raises(NotFound, match=r"does not serve runs.kfp-operator.dev v1beta1: is its CustomResourceDefinition installed\?"):
            await cluster.get(RUN, "a", "team")
        assert not await cluster.serves(RUN)


@pytest.mark.parametrize(("reason", "error"), [("AlreadyExists", AlreadyExists), ("Conflict", Conflict), ("", Conflict)])
async def test_a_name_that_is_taken_is_told_from_other_conflicts(tmp_path: Path, reason: str, error: type[ClusterError]) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "code": 409, "reason": reason, "message": "no"}, status=409)

    async with client(tmp_path, answer) as cluster:
        with pytest.raises(ClusterError, match="no") as raised:
            await cluster.create(RUN, {"metadata": {"name": "a"}}, "team")
    assert type(raised.value) is error


async def test_every_request_is_counted_with_its_outcome(tmp_path: Path) -> None:
    counted: list[tuple[str, str, int]] = []

    def observe(verb: str, resource: Resource | None, code: int, seconds: float) -> None:
        assert 0 <= seconds < 30
        counted.append((verb, resource.plural if resource is not None else "", code))

    async with client(tmp_path, always(409), observe=observe) as cluster:
        with pytest.raises(ClusterError):
            await cluster.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, "team")
        with pytest.raises(ClusterError):
            await cluster.raw("/version")
    assert counted == [("create", "configmaps", 409), ("get", "", 409)]


async def test_a_refused_token_is_read_anew_and_the_request_repeated_once_with_its_body(tmp_path: Path) -> None:
    token, seen = tmp_path / "token", list[tuple[str, Any]]()
    token.write_text("old")

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.headers["Authorization"], await request.json()))
        token.write_text("new")  # rotated while the request was on its way
        return web.json_response({}, status=200 if request.headers["Authorization"] == "Bearer new" else 401)

    async with client(tmp_path, answer, user={"tokenFile": str(token)}) as cluster:
        await cluster.patch(RUN, "a", {"status": {"state": "running"}}, "team")
        await cluster.patch(RUN, "b", {"status": {"state": "running"}}, "team")
    body = {"status": {"state": "running"}}
    assert seen == [("Bearer old", body), ("Bearer new", body), ("Bearer new", body)]


async def test_a_token_that_stays_refused_is_an_error_not_a_loop(tmp_path: Path) -> None:
    requests = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        return web.json_response(refusal(401, "Unauthorized"), status=401)

    async with client(tmp_path, answer, user={"token": "t"}) as cluster:
        with pytest.raises(Forbidden, match=r"get namespaces default: Unauthorized \(401\)"):
            await cluster.get(NAMESPACES, "default")
    assert requests == 1, "there is no other token to try"


async def test_many_requests_that_are_refused_at_once_renew_once(tmp_path: Path) -> None:
    path, renewed = config(tmp_path, "http://127.0.0.1:9", token="old"), 0

    class Counted(credentials.Kubeconfig):
        def _reload(self) -> str | None:
            nonlocal renewed
            renewed += 1
            return super()._reload()

    counted = Counted(kubeconfig.read_context(str(path)))
    config(tmp_path, "http://127.0.0.1:9", token="new")
    assert await asyncio.gather(*(counted.renew("Bearer old") for _ in range(20))) == [True] * 20
    assert (renewed, counted.authorization) == (1, "Bearer new")


class TestServiceAccount:
    """In a pod."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "serviceaccount"
        folder.mkdir()
        (folder / "token").write_text("one\n")
        (folder / "namespace").write_text("mlops")
        (folder / "ca.crt").write_text(AUTHORITY)
        return folder

    def test_server_and_namespace_are_the_pods(self, folder: Path) -> None:
        endpoint = ServiceAccount(folder, {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}).endpoint
        assert (endpoint.server, endpoint.namespace) == ("https://[fd00::1]:6443", "mlops")

    async def test_the_token_is_read_again_when_it_is_refused(self, folder: Path) -> None:
        account = ServiceAccount(folder, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
        (folder / "token").write_text("two\n")
        assert await account.headers() == {"Authorization": "Bearer one"}
        assert await account.renew("Bearer one")
        assert await account.headers() == {"Authorization": "Bearer two"}

    async def test_the_token_is_read_again_after_a_minute(self, folder: Path) -> None:
        now = 0.0
        account = ServiceAccount(folder, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, clock=lambda: now)
        (folder / "token").write_text("two")
        assert await account.headers() == {"Authorization": "Bearer one"}
        now = credentials.REFRESH + 1
        assert await account.headers() == {"Authorization": "Bearer two"}

    async def test_a_token_that_cannot_be_read_is_waited_for(self, folder: Path) -> None:
        now = 0.0
        account = ServiceAccount(folder, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, clock=lambda: now)
        now = credentials.REFRESH + 1
        (folder / "token").unlink()
        with pytest.raises(ClusterUnavailable, match="cannot read the service account's token"):
            await account.headers()

    def test_a_pod_without_a_token_is_told_so(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="cannot read the service account in"):
            ServiceAccount(tmp_path, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"})

    def test_a_process_is_in_a_cluster_when_it_has_both_address_and_token(self, folder: Path, tmp_path: Path) -> None:
        pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
        assert credentials.in_cluster(pod, folder)
        assert not credentials.in_cluster({}, folder)
        assert not credentials.in_cluster(pod, tmp_path)


def test_paths_are_those_of_the_api() -> None:
    assert RUN.path("team", "a.b", "status") == "/apis/kfp-operator.dev/v1beta1/namespaces/team/runs/a.b/status"
    assert RUN.path() == "/apis/kfp-operator.dev/v1beta1/runs"
    assert CONFIG_MAPS.path("team", "../x") == "/api/v1/namespaces/team/configmaps/..%2Fx"
    assert NAMESPACES.path("ignored", "team") == "/api/v1/namespaces/team"
    assert json.dumps([CONFIG_MAPS.title, RUN.title]) == '["configmaps", "runs.kfp-operator.dev"]'


AUTHORITY = """-----BEGIN CERTIFICATE-----
MIIBdDCCARugAwIBAgIUUpHLP+Ljxgmm+gG634stj6HWgbwwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjEyMTMzMzdaGA8yMTI2MTAyODIxMzMz
N1owDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABP9L
oCPksBBr0c9cSIcYPZUdXSclkn0WPWWWXWBiLQ4oaSqM1bTal4nAilVv+xZFDtNr
E75rlv7VROCKBiPTv5GjUzBRMB0GA1UdDgQWBBTHbMn3aHHawaVTe8t10XeuTo2S
UzAfBgNVHSMEGDAWgBTHbMn3aHHawaVTe8t10XeuTo2SUzAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0cAMEQCIAZa21MauesSytX/+kDfbtV31LsNsivxJTmN
ms/G62d2AiA5+6ZJ6y6x9l2KKXOm201hkyrj041Wt5UbvMMr0dB4Cg==
-----END CERTIFICATE-----
"""
