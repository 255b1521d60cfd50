"""Names that depend on the API group: finalizer, labels, annotations. The group is a setting, so they are computed, not constants."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

DEFAULT_GROUP = "kfp-operator.dev"
GO_GROUP = "pipelines.kubeflow.org"
"""The group of the Go operator, which a cluster that moves from it may keep."""
GO_FINALIZER = "finalizer.pipelines.kubeflow.org"
"""What the Go operator has put on Pipelines, Runs, Experiments and RunSchedules."""
VERSION = "v1beta1"


@dataclass(frozen=True, slots=True)
class Names:
    """All names under one API group."""

    group: str = DEFAULT_GROUP

    @property
    def api_version(self) -> str:
        """``group/version``, as in every manifest."""
        return f"{self.group}/{VERSION}"

    @property
    def finalizer(self) -> str:
        """Finalizer: the backend still has something of this object."""
        return f"{self.group}/cleanup"

    def finalizers(self) -> frozenset[str]:
        """Every finalizer that is ours to remove.

        Under the Go operator's group its finalizer is among them: the CRDs are ours then, so that one no longer runs, and nobody else
        would let the objects go.
        """
        return frozenset({self.finalizer, GO_FINALIZER} if self.group == GO_GROUP else {self.finalizer})

    def held(self, finalizers: Iterable[str]) -> bool:
        """Whether an object's finalizers wait for us."""
        return not self.finalizers().isdisjoint(finalizers)

    def released(self, finalizers: Iterable[str]) -> list[str]:
        """What is left of an object's finalizers once we let it go."""
        ours = self.finalizers()
        return [finalizer for finalizer in finalizers if finalizer not in ours]

    @property
    def completed(self) -> str:
        """Label: the final state, set in the patch that removes the finalizer. A Run that arrives with it was restored."""
        return f"{self.group}/completed"

    @property
    def pipeline(self) -> str:
        """Label: the Pipeline's name, clipped (see `label_value`)."""
        return f"{self.group}/pipeline"

    @property
    def pipeline_version(self) -> str:
        """Label: the version the Run is bound to, set with the finalizer, before the submit."""
        return f"{self.group}/pipeline-version"

    @property
    def provider(self) -> str:
        """Annotation: the Provider the Run is bound to, set with the finalizer."""
        return f"{self.group}/provider"

    @property
    def backend(self) -> str:
        """Annotation: the backend that this Provider spoke to then, set with it where a Provider may be edited to speak to another."""
        return f"{self.group}/backend"

    @property
    def run_configuration(self) -> str:
        """Label, and annotation with the whole name where the label is clipped: the RunConfiguration that made the Run."""
        return f"{self.group}/runconfiguration"

    @property
    def run_schedule(self) -> str:
        """Label, and annotation with the whole name where the label is clipped: the RunSchedule that made the Run."""
        return f"{self.group}/runschedule"

    @property
    def trigger_type(self) -> str:
        """Label: what started the Run (`schedule`, `onChangePipeline`, `onChangeRunSpec`, `runConfiguration` or `manual`)."""
        return f"{self.group}/trigger-type"

    @property
    def trigger_source(self) -> str:
        """Label, and annotation where it is clipped: the name of the object or of the schedule that started the Run."""
        return f"{self.group}/trigger-source"

    @property
    def trigger_source_namespace(self) -> str:
        """Label: the namespace of that object."""
        return f"{self.group}/trigger-source-namespace"

    @property
    def start(self) -> str:
        """Annotation on a RunConfiguration: a word that is new each time somebody wants it to start a Run by hand."""
        return f"{self.group}/start"

    @property
    def scheduled_time(self) -> str:
        """Annotation: the tick that a scheduled Run was made for (RFC 3339)."""
        return f"{self.group}/scheduled-time"

    @property
    def upstream_run(self) -> str:
        """Annotation: the runs of other RunConfigurations whose artifacts are among the parameters, as namespace/name, by commas."""
        return f"{self.group}/upstream-run"

    @property
    def rerun_of(self) -> str:
        """Label, and annotation with the whole name where the label is clipped: the Run that this one repeats."""
        return f"{self.group}/rerun-of"

    @property
    def force_release(self) -> str:
        """Annotation: release the finalizer without waiting for the backend."""
        return f"{self.group}/force-release"


def labelled(key: str, value: str) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and annotations that say `value` under `key`: a label, and an annotation with the whole of it where a label cannot hold it.

    `name_in` reads it back.
    """
    clipped = label_value(value)
    return {key: clipped}, ({key: value} if clipped != value else {})


def name_in(key: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> str:
    """What `labelled` wrote: the whole value; empty when there is none."""
    whole = annotations.get(key, "")
    clipped = labels.get(key, "")
    return whole if whole and label_value(whole) == clipped else clipped


def label_value(name: str) -> str:
    """A label holds a name, or its first 52 characters plus a hash of all of it (63 at most)."""
    if len(name) <= 63:
        return name
    return f"{name[:52].rstrip('.-_')}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
