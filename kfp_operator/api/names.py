"""Names that depend on the API group: finalizer, labels, annotations. The group is a setting, so they are computed, not constants."""

import hashlib
from dataclasses import dataclass

DEFAULT_GROUP = "kfp-operator.dev"
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
    def run_configuration(self) -> str:
        """Label: the RunConfiguration that made the Run, clipped."""
        return f"{self.group}/runconfiguration"

    @property
    def force_release(self) -> str:
        """Annotation: release the finalizer without waiting for the backend."""
        return f"{self.group}/force-release"


def label_value(name: str) -> str:
    """A label holds a name, or its first 52 characters plus a hash of all of it (63 at most)."""
    if len(name) <= 63:
        return name
    return f"{name[:52].rstrip('.-_')}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
