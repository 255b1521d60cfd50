"""Event triggers as resources hold them: what the API server checks of them, and what status remembers.

The meaning is that of `kfp_operator.schemas.V1EventTrigger`, which is stricter where CEL cannot tell (filters) and more lenient where
people write Python; `EventTrigger.parsed` goes over to it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field

from kfp_operator.api.meta import Model, Time
from kfp_operator.api.schema import MAX_NAME, Enforced, Rule, matches
from kfp_operator.schemas import RefType, V1EventTrigger
from kfp_operator.schemas.references import CONFIGURATION_NAME, EXTERNAL_NAME, FORMS, MAX_REFERENCE, OBJECT_NAME, OPERATION_NAME
from kfp_operator.schemas.trigger import MAX_FILTER, MAX_TRIGGER_NAME, TRIGGER_NAME

MAX_EVENTS = 32
"""Triggers of a Run or a RunConfiguration."""
MAX_OPERATION_EVENTS = 8
"""Triggers of an operation of a Dag, of which there are many: the API server bounds what all rules of a CRD may cost together."""
MAX_PENDING = 1000
"""Occurrences of one object that wait to be acted upon."""
MAX_HANDLED = 2000
"""Subjects that one object remembers to have acted upon."""
MAX_SUBJECT = 512

KindName = Literal[
    "run_status_created",
    "run_status_resuming",
    "run_status_compiled",
    "run_status_on_schedule",
    "run_status_queued",
    "run_status_scheduled",
    "run_status_starting",
    "run_status_initializing",
    "run_status_running",
    "run_status_processing",
    "run_status_stopping",
    "run_status_failed",
    "run_status_stopped",
    "run_status_succeeded",
    "run_status_skipped",
    "run_status_warning",
    "run_status_unschedulable",
    "run_status_upstream_failed",
    "run_status_retrying",
    "run_status_unknown",
    "run_status_done",
    "run_approved_actor",
    "run_invalidated_actor",
    "run_new_artifacts",
    "connection_git_commit",
    "connection_dataset_version",
    "connection_registry_image",
    "alert_info",
    "alert_warning",
    "alert_critical",
    "model_version_new_metric",
    "project_custom_event",
    "org_custom_event",
]
"""The 32 kinds, and the other word for run_status_starting."""


def _words(types: Iterable[RefType]) -> str:
    """RE2 of their words, in any case."""
    return f"(?i:{'|'.join(kind.value for kind in types)})"


def _together(key: Callable[[RefType], str]) -> list[tuple[str, list[RefType]]]:
    """The types that have something in common."""
    found: dict[str, list[RefType]] = {}
    for kind in RefType:
        found.setdefault(key(kind), []).append(kind)
    return list(found.items())


_LOOSE = {
    OBJECT_NAME: "[a-z0-9][-a-z0-9.]*",
    CONFIGURATION_NAME: "([a-z0-9][-a-z0-9]*/)?[a-z0-9][-a-z0-9.]*",
    OPERATION_NAME: r"[A-Za-z0-9][-\w.]*",
    EXTERNAL_NAME: r"[A-Za-z0-9][-\w./]*",
}
"""Shorter patterns, which take a little more: the API server counts their length, so the last word is that of `EventTrigger.parsed`."""


def _reference_rules() -> tuple[Rule, ...]:
    message = f"must be one of: {FORMS}; each may stand in braces, as {{{{ ... }}}}"
    forms = "|".join(rf"{_words(types)}\.{_LOOSE[pattern]}" for pattern, types in _together(lambda kind: kind.pattern))
    braces = Rule("self.contains('{{') == self.contains('}}')", message)
    return matches(rf"\s*(\{{\{{\s*)?({forms})(\s*\}}\}})?\s*", message), braces


def _kind_rules() -> Iterator[Rule]:
    """Kinds must be able to come from the reference: a rule for each prefix, so that the message names what is accepted."""
    for prefix, types in _together(lambda kind: kind.prefix):
        few = len(types[0].kinds) < 10
        known = (
            ", ".join(kind.value for kind in types[0].kinds)
            if few
            else "run_status_*, run_approved_actor, run_invalidated_actor, run_new_artifacts"
        )
        yield Rule(
            rf"!self.ref.matches('^[\\s{{]*{_words(types)}\\.') || self.kinds.all(kind, kind.startsWith('{prefix}'))",
            f"what can come from {', '.join(kind.value for kind in types)}: {known}",
            ".kinds",
        )


class EventTrigger(Model):
    """Something that may happen, and that starts a run when it does."""

    rules = tuple(_kind_rules())

    ref: Annotated[
        str,
        Enforced(
            min_length=1,
            max_length=MAX_REFERENCE,
            rules=_reference_rules(),
        ),
    ] = Field(description='What it happens to, as runConfigurations.train or "{{ runConfigurations.train }}" (YAML wants the quotes).')
    kinds: Annotated[list[KindName], Enforced(min_items=1, max_items=33, list_type="atomic")] = Field(
        description="What happens; any one of them is enough."
    )
    name: Annotated[
        str,
        Enforced(
            max_length=MAX_TRIGGER_NAME,
            rules=(matches(TRIGGER_NAME, "must be lower-case letters, digits and '-', as on-train-failed", or_empty=True),),
        ),
    ] = Field("", description="Its name, unique in the list; empty: computed from ref, kinds and filter.")
    filter: Annotated[str, Enforced(max_length=MAX_FILTER)] = Field(
        "", description='A CEL expression over the CloudEvent that must hold, too, as event.data.attempt >= 2 && event.data.message != "".'
    )
    start_from: Literal["New", "Latest"] = Field(
        "New", description="New: only what happens from now on. Latest: also the latest such event before, if there was one."
    )

    def parsed(self) -> V1EventTrigger:
        """As it is matched; ValueError for what the API server lets pass and nobody can understand."""
        return V1EventTrigger.from_dict(self.to_json())


UNIQUE_NAMES = Rule(
    "self.all(one, !has(one.name) || one.name == '' || self.exists_one(other, has(other.name) && other.name == one.name))",
    "the names of event triggers in one list must differ",
)
NO_OPERATIONS = Rule(
    rf"self.all(one, !one.ref.matches('^[\\s{{]*{_words([RefType.OPS])}\\.'))",
    "ops.NAME names an operation of a Dag, which only other operations of that Dag can wait for",
)
EVENTS = Enforced(max_items=MAX_EVENTS, list_type="atomic", rules=(UNIQUE_NAMES, NO_OPERATIONS))
"""On the list of triggers of a Run or a RunConfiguration."""
OPERATION_EVENTS = Enforced(max_items=MAX_OPERATION_EVENTS, list_type="atomic", rules=(UNIQUE_NAMES,))
"""On that of an operation of a Dag."""


class StreamPosition(Model):
    """A place in a stream."""

    stream: Annotated[str, Enforced(max_length=16)] = Field(description="The stream's role: runs or inbound.")
    created: Annotated[str, Enforced(max_length=64)] = Field("", description="The stream's creation time: sequences begin anew with it.")
    sequence: Annotated[int, Enforced(minimum=0)] = Field(description="Number of the event in the stream.")


class PendingOccurrence(Model):
    """Something that happened and that has not been acted upon."""

    trigger: Annotated[str, Enforced(max_length=MAX_TRIGGER_NAME)] = Field(description="Name of the trigger.")
    subject: Annotated[str, Enforced(max_length=MAX_SUBJECT)] = Field(
        description="What it is about, which is acted upon once: uid/attempt of a run, or a hash of an event's source and id."
    )
    kind: Annotated[str, Enforced(max_length=64)] = Field(description="The kind of the event.")
    about: Annotated[str, Enforced(max_length=MAX_SUBJECT)] = Field("", description="The run as namespace/name, or the event's ref.")
    position: StreamPosition = Field(description="Where the event is stored.")
    closed: bool = Field(False, description="Whether nothing more will be told about the subject.")


class EventTriggerStatus(Model):
    """How far a trigger got."""

    name: Annotated[str, Enforced(max_length=MAX_TRIGGER_NAME)] = Field(description="Name of the trigger, given or computed.")
    spec: Annotated[str, Enforced(max_length=64)] = Field("", description="Hash of what it waits for; with another one, it begins anew.")
    since: Annotated[list[StreamPosition], Enforced(max_items=4, list_type="atomic")] = Field(
        default_factory=list, description="Where it begins: what is stored up to there starts nothing."
    )
    last_kind: Annotated[str, Enforced(max_length=64)] = Field("", description="The kind of event it acted upon last.")
    last_about: Annotated[str, Enforced(max_length=MAX_SUBJECT)] = Field("", description="What that happened to.")
    last_run: Annotated[str, Enforced(max_length=MAX_NAME)] = Field("", description="Name of the Run it started last.")
    last_time: Time | None = Field(None, description="When it started that.")
    started: Annotated[int, Enforced(minimum=0)] = Field(0, description="How many Runs it started.")
    suppressed: Annotated[int, Enforced(minimum=0)] = Field(0, description="How often it started nothing although its event came.")
    message: Annotated[str, Enforced(max_length=1024)] = Field("", description="Why it last started nothing, or what is wrong with it.")


class EventsStatus(Model):
    """What an object remembers of its event triggers."""

    triggers: Annotated[list[EventTriggerStatus], Enforced(max_items=MAX_EVENTS, list_type="atomic")] = Field(
        default_factory=list, description="How far each trigger got."
    )
    pending: Annotated[list[PendingOccurrence], Enforced(max_items=MAX_PENDING, list_type="atomic")] = Field(
        default_factory=list, description="What happened and has not been acted upon, oldest first."
    )
    handled: Annotated[list[Annotated[str, Enforced(max_length=64)]], Enforced(max_items=MAX_HANDLED, list_type="atomic")] = Field(
        default_factory=list,
        description="Hashes of what was acted upon, so that it is acted upon once; those that may go begin with a dot.",
    )
    floors: Annotated[list[StreamPosition], Enforced(max_items=4, list_type="atomic")] = Field(
        default_factory=list, description="Up to where each stream was worked off: what is delivered again from before is passed over."
    )
