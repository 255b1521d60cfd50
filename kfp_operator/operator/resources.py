"""The kinds of objects this operator talks to the API server about, and their URLs."""

from dataclasses import dataclass
from urllib.parse import quote

from kfp_operator.api.names import DEFAULT_GROUP, VERSION


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource of the Kubernetes API. The core group is ""."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As manifests write it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def title(self) -> str:
        """As kubectl writes it: ``runs.kfp-operator.dev``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def root(self) -> str:
        """Path of the group and version, where discovery answers."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Path of the collection, the object or its subresource; no namespace: all of them."""
        parts = [self.root]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts += [part for part in (self.plural, quote(name, safe=""), subresource) if part]
        return "/".join(parts)


@dataclass(frozen=True, slots=True)
class Kinds:
    """Our own kinds under one API group."""

    group: str = DEFAULT_GROUP

    @property
    def provider(self) -> Resource:
        """ML backends."""
        return Resource(self.group, VERSION, "providers", "Provider")

    @property
    def pipeline(self) -> Resource:
        """Compiled pipelines."""
        return Resource(self.group, VERSION, "pipelines", "Pipeline")

    @property
    def run(self) -> Resource:
        """Executions."""
        return Resource(self.group, VERSION, "runs", "Run")

    @property
    def experiment(self) -> Resource:
        """Groupings of runs."""
        return Resource(self.group, VERSION, "experiments", "Experiment")

    @property
    def run_configuration(self) -> Resource:
        """Templates of Runs, with triggers."""
        return Resource(self.group, VERSION, "runconfigurations", "RunConfiguration")

    @property
    def run_schedule(self) -> Resource:
        """Runs by the clock."""
        return Resource(self.group, VERSION, "runschedules", "RunSchedule")

    @property
    def all(self) -> tuple[Resource, ...]:
        """Every kind that is watched."""
        return (self.provider, self.pipeline, self.experiment, self.run_configuration, self.run_schedule, self.run)


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS = Resource("", "v1", "secrets", "Secret")
WORKFLOWS = Resource("argoproj.io", "v1alpha1", "workflows", "Workflow")
"""Argo's: what Kubeflow Pipelines executes runs as."""
EVENTS = Resource("", "v1", "events", "Event")
CONTROLLER_REVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
SELF_SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)
SELF_SUBJECT_REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)
