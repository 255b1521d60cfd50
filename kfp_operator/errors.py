"""The one error tree.

Messages are for the person who reads them in a condition, an Event or a terminal: they name the object, the field and the remedy.

::

    KfpOperatorError
    ├── ConfigurationError        settings, flags, files the operator cannot use
    ├── InvalidSpec               a user's spec that can never work: IR, parameters, artifact path, filter
    ├── ProviderError
    │   ├── Retryable             may work later: network, 5xx, 429
    │   └── Permanent             will never work for this submission
    ├── EventError                bytes that are not a valid event of ours
    │   └── EventRefused          a valid event that is not accepted from whoever sent it
    ├── BusError
    │   ├── BusUnavailable        no answer: the outcome is unknown, look before repeating
    │   ├── StreamMissing         nothing listens on the subject
    │   └── WrongLastSequence     something is stored on the subject already
    ├── ClusterError              an answer of the Kubernetes API
    │   ├── ClusterUnavailable    no answer, 429 or 5xx
    │   ├── Conflict              409: the object is newer than what we looked at
    │   │   └── AlreadyExists     an object of that name is there
    │   ├── NotFound              404
    │   ├── Gone                  410: list again
    │   ├── Forbidden             401 or 403
    │   └── Unprocessable         400 or 422: the API server refuses what we wrote
    └── LeadershipLost            another process may act now: stop
"""


class KfpOperatorError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigurationError(KfpOperatorError):
    """Settings, flags or files that the operator cannot use."""


class InvalidSpec(KfpOperatorError):
    """A user's spec that can never work.

    `field` is the path in the resource (``spec.parameters[n].value``); `reason` the CamelCase word for the condition.
    """

    def __init__(self, message: str, *, field: str = "", reason: str = "InvalidSpec") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.reason = reason


class ProviderError(KfpOperatorError):
    """A backend did not do what it was asked. `reason` is a CamelCase word for the condition."""

    def __init__(self, message: str, *, reason: str = "ProviderError") -> None:
        super().__init__(message)
        self.reason = reason


class Retryable(ProviderError):
    """May work later. `after`: seconds the backend asked us to wait, if it did."""

    def __init__(self, message: str, *, reason: str = "ProviderUnavailable", after: float | None = None) -> None:
        super().__init__(message, reason=reason)
        self.after = after


class Permanent(ProviderError):
    """Will never work for this submission."""

    def __init__(self, message: str, *, reason: str = "Refused") -> None:
        super().__init__(message, reason=reason)


class EventError(KfpOperatorError):
    """Bytes that are not a valid event of ours and never will be."""


class EventRefused(EventError):
    """A valid event that is not accepted: its kind, ref or size, or who sent it."""


class BusError(KfpOperatorError):
    """The event bus did not do what it was asked."""


class BusUnavailable(BusError):
    """No answer: the outcome is unknown, look before repeating."""


class StreamMissing(BusError):
    """No stream stores the subject."""


class WrongLastSequence(BusError):
    """Something is stored on the subject already."""


class ClusterError(KfpOperatorError):
    """An answer of the Kubernetes API. `status` is the HTTP code, 0 without an answer."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class ClusterUnavailable(ClusterError):
    """No answer, 429 or 5xx. `after`: seconds of Retry-After."""

    def __init__(self, message: str, *, status: int = 0, after: float | None = None) -> None:
        super().__init__(message, status=status)
        self.after = after


class Conflict(ClusterError):
    """409: the object is newer than what we looked at, or exists already."""


class AlreadyExists(Conflict):
    """409: an object of the name we wanted to create is there."""


class NotFound(ClusterError):
    """404."""


class Gone(ClusterError):
    """410: the resourceVersion is too old, list again."""


class Forbidden(ClusterError):
    """401 or 403."""


class Unprocessable(ClusterError):
    """400 or 422: the API server refuses what we wrote."""


class LeadershipLost(KfpOperatorError):
    """Another process may act now: stop."""
