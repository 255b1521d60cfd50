"""What our things are called at Kubeflow Pipelines, so that they are found again, collide with nobody's, and fit.

A namespace has no dot and no slash, so "namespace.name" belongs to one object only, while "namespace-name" would belong to a-b/c and
a/b-c. Pipelines and versions have dots, because the server's Kubernetes-native store makes them names of objects; experiments and runs,
which it does not, have the slash that people know.

Runs carry a mark in their description: the API has no labels, and the mark is what lists are filtered by. It holds the run's id, so that
a clone of a run, whatever it takes over, is somebody else's.
"""

import hashlib
import re
from dataclasses import dataclass

LONGEST = 127
"""Characters of the name of a pipeline, a version and an experiment (128 for some, in some versions)."""
LONGEST_RUN = 255
"""Characters of a run's display name: the server starts the Workflow of a longer one, and only then fails."""
LONGEST_DESCRIPTION = 255
"""Characters of a description that every version stores. Of a run's the same is true as of its name."""
_DIGITS = 16
_PROVIDER, _RUN, _PIPELINE = 64, 70, 180
"""Characters of names in descriptions."""

_MARK = re.compile(
    r"\[kfp-operator (?P<provider>[^\]\s]+)\] run (?P<id>\S+) of Run (?P<run>\S+) \(uid (?P<uid>\S+), attempt (?P<attempt>[0-9]+)\)"
)


def _fit(text: str, longest: int = LONGEST) -> str:
    """The text, or a beginning of it and a digest. Shortened texts are longer than any that is not, so that the two never meet."""
    if len(text) <= longest - _DIGITS - 1:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
    head = text[: longest - _DIGITS - 1]
    return f"{head[:-1]}x-{digest}" if not head[-1].isalnum() else f"{head}-{digest}"


def pipeline_name(namespace: str, name: str) -> str:
    """The pipeline's name: a valid name of a Kubernetes object too."""
    return _fit(f"{namespace}.{name}")


def version_name(namespace: str, name: str, version: str, *, caching: bool | None = None) -> str:
    """The version's name. It holds the pipeline's, because some servers want names of versions to be unique in a namespace.

    `caching`: what the provider imposes on the spec is part of what is uploaded, and so of the name.
    """
    suffix = {None: "", True: "-cached", False: "-uncached"}[caching]
    return _fit(f"{namespace}.{name}.{version}{suffix}")


def experiment_name(namespace: str, name: str) -> str:
    """The experiment's name."""
    return _fit(f"{namespace}/{name}")


def run_name(namespace: str, name: str, attempt: int) -> str:
    """The run's display name, for people."""
    text = f"{namespace}/{name}" + (f" (attempt {attempt})" if attempt > 1 else "")
    return _fit(text, LONGEST_RUN)


def pipeline_description(namespace: str, name: str) -> str:
    """By which a pipeline is known as ours."""
    return f"Pipeline {_owner(namespace, name)}, kept by kfp-operator"


def _owner(namespace: str, name: str) -> str:
    return _fit(f"{namespace}/{name}", _PIPELINE)


def described_pipeline(description: str) -> str:
    """The Pipeline, as namespace/name (a very long one shortened), that a description tells; "": the pipeline is not ours."""
    found = re.fullmatch(r"Pipeline ([^/\s]+/\S+), kept by kfp-operator", description)
    return found[1] if found is not None else ""


def version_description(namespace: str, name: str, version: str) -> str:
    """By which a version is known as ours, and as which."""
    return f"Version {version} of {pipeline_description(namespace, name)}"


def described_version(pipeline: str, description: str) -> str | None:
    """The version that a description tells, of a pipeline with the description `pipeline`; None: the version is not ours."""
    found = re.fullmatch(r"Version (\S+) of (Pipeline \S+, kept by kfp-operator)", description)
    return found[1] if found is not None and found[2] == pipeline else None


def description(text: str) -> str:
    """A user's description, as far as it fits."""
    return text if len(text) <= LONGEST_DESCRIPTION else f"{text[: LONGEST_DESCRIPTION - 1]}…"


@dataclass(frozen=True, slots=True)
class Mark:
    """What the description of a run says about its Run. Very long names of Provider and Run are shortened."""

    provider: str
    """``ns/name``"""
    run_id: str
    run: str
    """``ns/name``"""
    uid: str
    attempt: int

    def __str__(self) -> str:
        run = _fit(self.run, _RUN)
        return f"{mark_of(self.provider)} run {self.run_id} of Run {run} (uid {self.uid}, attempt {self.attempt})"

    def belongs_to(self, provider: str) -> bool:
        """Whether the run is of the Provider "ns/name"."""
        return self.provider == _fit(provider, _PROVIDER)

    @classmethod
    def parse(cls, description: str) -> "Mark | None":
        """The mark in a description; None: the run is somebody else's."""
        found = _MARK.search(description)
        if found is None:
            return None
        return cls(found["provider"], found["id"], found["run"], found["uid"], int(found["attempt"]))


def mark_of(provider: str) -> str:
    """What the descriptions of a Provider's runs have in common, and no other's."""
    return f"[kfp-operator {_fit(provider, _PROVIDER)}]"
