"""What `doctor` looks at in the cluster: that it answers, our CRDs, permissions, clocks."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from pydantic import ValidationError

from kfp_operator.api.crd import crds
from kfp_operator.api.names import DEFAULT_GROUP
from kfp_operator.api.provider import Provider
from kfp_operator.cli.report import Finding, fail, ok, warn
from kfp_operator.cli.target import Target
from kfp_operator.errors import ClusterError, ClusterUnavailable, Forbidden, NotFound
from kfp_operator.operator.lease import pod_namespace
from kfp_operator.operator.permissions import Permission, Scope, of_provider, permissions
from kfp_operator.operator.resources import CUSTOM_RESOURCE_DEFINITIONS, SELF_SUBJECT_ACCESS_REVIEWS, SELF_SUBJECT_REVIEWS, Resource
from kfp_operator.settings import Settings

SKEW = 5.0
"""Seconds by which clocks may differ before times in status and events mislead people. The leader's Lease does not compare clocks."""
_SHOWN = 3
_LINE = 6
_ABSENT: tuple[Any, ...] = (None, {}, [], "")


async def check_cluster(target: Target, settings: Settings) -> AsyncGenerator[Finding]:
    """Findings as they come; only the first when the API server does not answer."""
    endpoint = target.cluster.credentials.endpoint
    where = f"{endpoint.server} ({endpoint.origin})"
    try:
        version = await target.cluster.version()
    except Forbidden as error:
        yield fail("API server", f"{where} refuses these credentials: {error}", "log in again, or name another --context or --kubeconfig")
        return
    except ClusterError as error:
        yield fail("API server", f"{where} does not answer: {error}", "start the cluster, or name another --context or --kubeconfig")
        return
    yield ok("API server", f"{version} at {where}")
    yield await _check_clock(target)
    for wanted in crds(settings.api_group):
        yield await _check_crd(target, wanted)
    yield await _check_permissions(target, settings)
    async for finding in _check_providers(target, settings):
        yield finding


async def _check_clock(target: Target) -> Finding:
    credentials = target.cluster.credentials
    try:
        async with credentials.session(limit=1) as session:
            sent = time.time()
            async with session.get(f"{credentials.endpoint.server}/version", timeout=aiohttp.ClientTimeout(total=10)) as response:
                date = response.headers.get("Date", "")
        skew = parsedate_to_datetime(date).timestamp() + 0.5 - (sent + time.time()) / 2  # the header has whole seconds
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, ClusterUnavailable) as error:
        return warn("clocks", f"the API server does not tell its time: {error or type(error).__name__}")
    if abs(skew) > SKEW:
        now = datetime.now(UTC).strftime("%H:%M:%S")
        which = "ahead of" if skew > 0 else "behind"
        return warn("clocks", f"the API server is {abs(skew):.0f} s {which} this machine ({now} UTC)", "set both by NTP")
    return ok("clocks", f"this machine and the API server agree within {SKEW:g} s")


async def _check_crd(target: Target, wanted: Mapping[str, Any]) -> Finding:
    name, kind = str(wanted["metadata"]["name"]), str(wanted["spec"]["names"]["kind"])
    remedy = _apply(str(wanted["spec"]["group"]))
    try:
        installed = await target.cluster.get(CUSTOM_RESOURCE_DEFINITIONS, name)
    except NotFound:
        return fail("CRD", f"kind {kind} is not installed ({name})", remedy)
    except Forbidden:
        return await _check_served(target, wanted)
    except ClusterError as error:
        return fail("CRD", f"{name} cannot be read: {error}", "run doctor again")
    conditions = {c["type"]: c for c in installed.get("status", {}).get("conditions") or ()}
    if conditions.get("Established", {}).get("status") != "True":
        why = conditions.get("NamesAccepted", {}).get("message") or "the API server has not accepted it"
        return fail("CRD", f"{name} is installed but not served: {why}", f"kubectl describe crd {name}")
    return _compare(name, kind, wanted["spec"], installed["spec"], remedy)


def _compare(name: str, kind: str, wanted: Mapping[str, Any], installed: Mapping[str, Any], remedy: str) -> Finding:
    ours = wanted["versions"][0]
    theirs = next((version for version in installed["versions"] if version["name"] == ours["name"] and version.get("served")), None)
    if theirs is None:
        others = ", ".join(version["name"] for version in installed["versions"])
        return fail("CRD", f"kind {kind} ({name}) is installed without version {ours['name']}; it has {others}", _foreign(name, remedy))
    behaviour = list(differences(_behaviour(ours), _behaviour(theirs)))
    if behaviour:
        more = f" and {len(behaviour) - _SHOWN} more" if len(behaviour) > _SHOWN else ""
        return fail("CRD", f"kind {kind} ({name}) differs from this version: {'; '.join(behaviour[:_SHOWN])}{more}", _foreign(name, remedy))
    if next(differences(_looks(ours, wanted), _looks(theirs, installed)), None):
        return warn("CRD", f"kind {kind} ({name}) has other descriptions, columns or short names than this version", remedy)
    return ok("CRD", f"kind {kind} ({name}) is current")


async def _check_served(target: Target, wanted: Mapping[str, Any]) -> Finding:
    """Without the right to read CRDs: discovery still says which kinds there are."""
    spec = wanted["spec"]
    kind, plural, version = str(spec["names"]["kind"]), str(spec["names"]["plural"]), str(spec["versions"][0]["name"])
    resource = Resource(str(spec["group"]), version, plural, kind)
    name = str(wanted["metadata"]["name"])
    try:
        served = json.loads(await target.cluster.raw(resource.root))["resources"]
    except NotFound:
        served = []
    except (ClusterError, ValueError, KeyError) as error:
        return fail("CRD", f"kind {kind}: the API server does not tell what it serves: {error}", "run doctor again")
    if plural not in {entry["name"] for entry in served}:
        return fail("CRD", f"kind {kind} is not installed ({name})", _apply(resource.group))
    return warn("CRD", f"kind {kind} is installed; whether {name} is current is unknown", "allow get on customresourcedefinitions")


def _behaviour(version: Mapping[str, Any]) -> dict[str, Any]:
    """What the API server does with objects: schema, selectable fields and subresources, without words for people."""
    return {
        "schema": without_descriptions(version["schema"]["openAPIV3Schema"]),
        "selectableFields": version.get("selectableFields"),
        "subresources": version.get("subresources"),
    }


def _looks(version: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """What people see of it."""
    columns = [
        {key: value for key, value in column.items() if value} for column in version.get("additionalPrinterColumns") or ()
    ]  # priority 0 is left out by the API server
    names = {key: spec["names"].get(key) for key in ("shortNames", "categories")}
    return {"schema": version["schema"], "columns": columns, "names": names}


def without_descriptions(schema: Any, *, names: bool = False) -> Any:
    """`names`: the keys of this object are the users' (properties), so one called description stays."""
    match schema:
        case dict():
            kept = {key: value for key, value in schema.items() if names or key != "description"}
            return {key: without_descriptions(value, names=not names and key == "properties") for key, value in kept.items()}
        case list():
            return [without_descriptions(item) for item in schema]
        case _:
            return schema


def differences(wanted: Any, found: Any, path: str = "") -> Iterator[str]:
    """Where two documents differ, as paths with what is there; empty and absent are the same."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            yield from differences(wanted.get(key), found.get(key), f"{path}.{key}" if path else str(key))
    elif wanted != found and not (wanted in _ABSENT and found in _ABSENT):
        place = _field(path)
        if found is None:
            yield f"{place} is missing"
        elif wanted is None:
            yield f"{place} is not of this version"
        else:
            yield f"{place} is another"


def _field(path: str) -> str:
    """The field of an object that a path in its schema is about."""
    return path.removeprefix("schema.").replace("properties.", "").replace("items.", "[].")


def _apply(group: str) -> str:
    flag = "" if group == DEFAULT_GROUP else f" --api-group {group}"
    return f"kfp-operator crds{flag} | kubectl apply --server-side --force-conflicts -f -"


def _foreign(name: str, remedy: str) -> str:
    if name == "pipelines.pipelines.kubeflow.org":
        return "Kubeflow Pipelines installs a CRD of this very name: use another apiGroup, as the default kfp-operator.dev"
    return remedy


async def _check_permissions(target: Target, settings: Settings) -> Finding:
    own = target.cluster.credentials.endpoint.namespace
    needed = permissions(target.kinds, leader_election=settings.leader_election.enabled)
    asked = [
        (permission, verb, namespace)
        for permission in needed
        for verb in permission.verbs
        for namespace in _namespaces(permission, settings, own)
    ]
    try:
        answers = await asyncio.gather(*(_allowed(target, permission, verb, namespace) for permission, verb, namespace in asked))
        user = await _user(target)
    except ClusterError as error:
        return fail("permissions", f"the API server does not tell what is allowed: {error}", "allow create on selfsubjectaccessreviews")
    refused = [question for question, answer in zip(asked, answers, strict=True) if not answer]
    required = [question for question in refused if question[0].required]
    if required:
        grant = "have an administrator bind a ClusterRole with these verbs to this user; or name another --context"
        return fail("permissions", f"{user} may not {_describe(required)}", grant)
    if refused:
        return warn("permissions", f"{user} may not {_describe(refused)}: only doctor says less for it")
    return ok("permissions", f"{user} may do all of the {len(asked)} things that the operator does")


async def _check_providers(target: Target, settings: Settings) -> AsyncGenerator[Finding]:
    """What Providers need beside the rest; nothing is told of those that need nothing."""
    try:
        namespaces = settings.provider_namespaces or settings.namespaces or [""]
        found = [Provider.parse(body) for each in namespaces async for body in target.cluster.list(target.kinds.provider, each)]
    except (ClusterError, ValidationError):
        return  # told above: no CRD, no right, or CRDs of another version
    for provider in found:
        needed = of_provider(provider)
        asked = [(permission, verb, namespace) for permission, namespace in needed for verb in permission.verbs]
        what = f"Provider {provider.metadata.full_name}"
        try:
            answers = await asyncio.gather(*(_allowed(target, *question) for question in asked))
        except ClusterError as error:
            yield warn(what, f"the API server does not tell what is allowed: {error}")
            continue
        refused = [question for question, answer in zip(asked, answers, strict=True) if not answer]
        required = [question for question in refused if question[0].required]
        if required:
            yield fail(what, f"this user may not {_describe(required)}", "grant it there: docs/providers.md says how")
        elif refused:
            why = "; ".join(dict.fromkeys(permission.why for permission, _, _ in refused))
            yield warn(what, f"this user may not {_describe(refused)}: the server is asked instead, which is slower, and nobody can {why}")
        elif asked:
            yield ok(what, "what its type needs is allowed")


def _namespaces(permission: Permission, settings: Settings, own: str) -> Sequence[str]:
    """Namespaces to ask about; "" stands for all of them. `own`: the namespace of the credentials."""
    match permission.scope:
        case Scope.SERVED:
            return sorted({*settings.namespaces, *settings.provider_namespaces}) if settings.namespaces else [""]
        case Scope.LEASE:
            return [settings.leader_election.namespace or pod_namespace(own)]
        case Scope.CLUSTER | Scope.PROVIDER:
            return [""]


async def _allowed(target: Target, permission: Permission, verb: str, namespace: str) -> bool:
    attributes = {
        "group": permission.resource.group,
        "resource": permission.resource.plural,
        "subresource": permission.subresource,
        "verb": verb,
        "namespace": namespace,
    }
    review = await target.cluster.create(SELF_SUBJECT_ACCESS_REVIEWS, {"spec": {"resourceAttributes": attributes}})
    return bool(review["status"].get("allowed"))


async def _user(target: Target) -> str:
    try:
        review = await target.cluster.create(SELF_SUBJECT_REVIEWS, {})
    except (NotFound, Forbidden):  # before Kubernetes 1.28, or not allowed
        return "this user"
    return str(review["status"]["userInfo"]["username"])


def _describe(refused: Sequence[tuple[Permission, str, str]]) -> str:
    """``patch runs.kfp-operator.dev/status in namespace a``, verbs of one resource together, why first things first."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for permission, verb, namespace in refused:
        verbs.setdefault((permission.title, namespace), []).append(verb)
    parts = [
        f"{', '.join(found)} {title}{f' in namespace {namespace}' if namespace else ''}" for (title, namespace), found in verbs.items()
    ]
    more = f"; and {len(parts) - _LINE} more" if len(parts) > _LINE else ""
    return "; ".join(parts[:_LINE]) + more
