"""Who asks, and what they may: authentication and authorisation of a multi-user installation.

A single-user one has neither. Here identities are a table instead of TokenReview and SubjectAccessReview, with the same answers: no
identity or an unknown token is 401, an identity without the right is 403.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from tests.doubles.kfp_api.failures import Refusal


@dataclass(frozen=True)
class Identities:
    """The people of a multi-user installation.

    Args:
        tokens: User by bearer token.
        rights: Namespaces in which a user may do everything, or single rights as "namespace:resource.verb".
        header: The trusted identity header; the manifests set it to this name.
        prefix: What its value begins with.

    """

    tokens: Mapping[str, str] = field(default_factory=dict)
    rights: Mapping[str, Collection[str]] = field(default_factory=dict)
    header: str = "kubeflow-userid"
    prefix: str = ""


class Gate:
    """Lets requests pass, or not."""

    def __init__(self, identities: Identities | None) -> None:
        self.identities = identities

    @property
    def multi_user(self) -> bool:
        """Whether anybody is asked who they are."""
        return self.identities is not None

    def check(self, request: web.Request, namespace: str, resource: str, verb: str) -> None:
        """Refusal (401, 403) unless whoever asks may do this there; single-user installations ask nobody."""
        if self.identities is None:
            return
        user = self._user(request, self.identities)
        granted = self.identities.rights.get(user, frozenset())
        if namespace in granted or f"{namespace}:{resource}.{verb}" in granted:
            return
        raise Refusal(
            7,
            f"Failed to authorize with API: PermissionDenied: User '{user}' is not authorized with reason:  (request: "
            f"&ResourceAttributes{{Namespace:{namespace},Verb:{verb},Group:pipelines.kubeflow.org,Version:v1beta1,Resource:{resource},"
            "Subresource:,Name:,}): Unauthorized access",
            f"User '{user}' is not authorized with reason: ",
        )

    def _user(self, request: web.Request, identities: Identities) -> str:
        given = request.headers.get(identities.header, "")
        if given.startswith(identities.prefix) and given != identities.prefix and given:
            return given.removeprefix(identities.prefix)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip() in identities.tokens:
            return identities.tokens[token.strip()]
        why = (
            "Authentication failure: Review.Status.Error: invalid token"
            if token
            else "Request header error: there is no user identity header."
        )
        raise Refusal(16, f"Failed to authorize with API: Failed to check authorization: Unauthenticated: {why}", why)
