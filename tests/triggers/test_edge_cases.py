"""The edge cases of event triggers, in one table: what waits, what happens, which Runs that makes.

The numbers are those of the list of cases that the semantics were decided by. Cases about operations of one Dag that need a Dag (a slot
under its concurrency, an operation that ends with another) are not among them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from kfp_operator.api.event_trigger import MAX_HANDLED, MAX_PENDING, EventTrigger
from kfp_operator.api.states import RunState
from kfp_operator.errors import InvalidSpec
from kfp_operator.events.triggers.causes import MAX_CAUSES, Causes, started_by
from kfp_operator.events.triggers.gate import Gate, gate
from kfp_operator.events.triggers.gate import Upstream as Watched
from kfp_operator.events.triggers.happening import Target, outputs_known
from kfp_operator.events.triggers.subscriptions import Subscriber, Subscription, resolve, subscribe
from kfp_operator.reconcile.run_configuration_loops import loops_of
from kfp_operator.schemas import RefType, V1EventKind, V1EventTrigger, parse_reference
from tests.triggers.world import (
    Configuration,
    Killed,
    Upstream,
    World,
    approved,
    artifact,
    inbound,
    later,
    of,
    trigger,
)

A = Upstream("train-1")
B = Upstream("train-2")
ON_RUNNING = trigger("runConfigurations.train", "running")
ON_SUCCESS = trigger("runConfigurations.train", "succeeded")
ON_FAILURE = trigger("runConfigurations.train", "failed")
ON_DONE = trigger("runConfigurations.train", "done")
ON_COMMIT = trigger("connections.git", "connection_git_commit")

Story = Callable[[World, Configuration], None]


@dataclass(frozen=True)
class Case:
    """`runs`: of what, and by which kind, in the order in which they were started."""

    number: int
    what: str
    waits: Sequence[V1EventTrigger]
    story: Story
    runs: Sequence[str] = ()
    suppressed: int = 0
    options: dict[str, Any] | None = None


def tell(*makers: Any) -> Story:
    """All of it happens, one after the other, and is consumed at the end."""

    def story(world: World, _: Configuration) -> None:
        world.tell(*makers)
        world.consume()

    return story


def steps(*parts: Any) -> Story:
    """Events are told, functions are called, each followed by the operator's work."""

    def story(world: World, configuration: Configuration) -> None:
        for part in parts:
            if part in HABITS:
                part(world, configuration)
            else:
                world.tell(part)
            world.consume()

    return story


def restart(world: World, _: Configuration) -> None:
    world.start_operator()


def deliver_again(world: World, _: Configuration) -> None:
    world.forget_acknowledgements()


def remove_runs(_: World, configuration: Configuration) -> None:
    configuration.runs.clear()


def suspend(_: World, configuration: Configuration) -> None:
    configuration.suspended = True


def resume(_: World, configuration: Configuration) -> None:
    configuration.suspended = False


def refuse(world: World, _: Configuration) -> None:
    world.refuse_runs = True


def permit(world: World, _: Configuration) -> None:
    world.refuse_runs = False


def end_runs(_: World, configuration: Configuration) -> None:
    for run in configuration.runs.values():
        run.ended = True


def touch(world: World, configuration: Configuration) -> None:
    """The same triggers again, as after a re-list, an edit of labels or of status."""
    world.edit(configuration.uid, configuration.triggers)


def wait_for_failure(world: World, configuration: Configuration) -> None:
    world.edit(configuration.uid, [named("failed")])


def wait_for_nothing(world: World, configuration: Configuration) -> None:
    world.edit(configuration.uid, [])


def delete(world: World, configuration: Configuration) -> None:
    world.delete(configuration.uid)


def die_while_starting(world: World, _: Configuration) -> None:
    """The Run is made, and the operator dies before it can note that; another one takes over."""
    world.tell(of(A.completion()))
    world.fuse = 3
    with pytest.raises(Killed):
        world.consume()
    world.start_operator()


HABITS = {
    restart,
    deliver_again,
    remove_runs,
    suspend,
    resume,
    refuse,
    permit,
    end_runs,
    touch,
    wait_for_failure,
    wait_for_nothing,
    delete,
    die_while_starting,
}


def named(*kinds: str) -> V1EventTrigger:
    return trigger("runConfigurations.train", *kinds, name="on-train")


def storm(count: int) -> Story:
    def story(world: World, _: Configuration) -> None:
        world.tell(*(of(Upstream(f"train-{number}").completion()) for number in range(count)))
        world.consume(at_once=500)

    return story


RECREATED = Upstream("train-1", uid="another-uid")
RUNNING = of(A.status("running", transition=2))
WARNING = of(A.status("warning", transition=3))
SUCCEEDED = of(A.completion())
FAILED = of(A.completion("failed"))
NOT_BEGUN = of(A.completion("failed", began=False))

CASES = [
    Case(6, "a kind that never comes starts nothing", [trigger("runConfigurations.train", "compiled")], tell(RUNNING, SUCCEEDED)),
    Case(6, "beside it, another one works", [trigger("runConfigurations.train", "compiled", "done")], tell(SUCCEEDED), ["train-1 done"]),
    Case(7, "the creation of what is waited for is no event", [ON_DONE], tell(of(A.status("created")))),
    Case(7, "unless it is waited for", [trigger("runConfigurations.train", "created")], tell(of(A.status("created"))), ["train-1 created"]),
    Case(
        8,
        "a Run that is made again under its name is another one",
        [trigger("runs.train-1", "succeeded")],
        steps(SUCCEEDED, of(RECREATED.status("running")), of(RECREATED.completion())),
        ["train-1 succeeded", "train-1 succeeded"],
    ),
    Case(9, "what happened before starts nothing", [], steps(SUCCEEDED, restart)),
    Case(11, "what happens while the operator is down is not missed", [ON_RUNNING], steps(restart, RUNNING), ["train-1 running"]),
    Case(12, "nothing new: a re-list, an edit of labels or status", [ON_DONE], steps(SUCCEEDED, touch, touch, restart), ["train-1 done"]),
    Case(13, "a run seen pending and then succeeded did run", [ON_RUNNING], tell(of(A.status("queued")), SUCCEEDED), ["train-1 running"]),
    Case(14, "a run that failed before its start did not run", [ON_RUNNING], tell(of(A.status("queued")), NOT_BEGUN)),
    Case(14, "but it failed, and is done", [ON_FAILURE, ON_DONE], tell(NOT_BEGUN), ["train-1 failed", "train-1 done"]),
    Case(14, "a run that failed after its start did run", [ON_RUNNING], tell(FAILED), ["train-1 running"]),
    Case(
        15,
        "running, warning, running is one occurrence",
        [ON_RUNNING],
        steps(RUNNING, WARNING, of(A.status("running", transition=4)), SUCCEEDED),
        ["train-1 running"],
    ),
    Case(16, "two kinds, one event", [trigger("runConfigurations.train", "succeeded", "done")], tell(SUCCEEDED), ["train-1 succeeded"]),
    Case(
        16,
        "two kinds, two events of one run",
        [trigger("runConfigurations.train", "running", "done")],
        steps(RUNNING, SUCCEEDED),
        ["train-1 running"],
    ),
    Case(
        16,
        "the same when the Run it started is gone by then",
        [trigger("runConfigurations.train", "running", "done")],
        steps(RUNNING, remove_runs, restart, SUCCEEDED),
        ["train-1 running"],
    ),
    Case(
        17,
        "another attempt is another occurrence",
        [ON_RUNNING],
        steps(RUNNING, FAILED, of(A.status("running", transition=5, attempt=2)), of(A.completion(attempt=2))),
        ["train-1 running", "train-1 running"],
    ),
    Case(
        17,
        "a failed attempt that is tried again is no failure",
        [ON_FAILURE],
        tell(of(A.status("failed", transition=3)), of(A.status("retrying", transition=4)), of(A.completion(attempt=2))),
    ),
    Case(18, "a completion that is delivered twice", [ON_SUCCESS], steps(SUCCEEDED, deliver_again, restart), ["train-1 succeeded"]),
    Case(18, "out of order", [ON_RUNNING], steps(SUCCEEDED, RUNNING, of(A.status("queued"))), ["train-1 running"]),
    Case(
        19,
        "two runs that end at once",
        [ON_SUCCESS],
        tell(SUCCEEDED, of(B.completion())),
        ["train-1 succeeded", "train-2 succeeded"],
    ),
    Case(
        19,
        "with QueueLatest, the newest waits and the other one is counted",
        [ON_SUCCESS],
        steps(
            of(Upstream("train-0").completion()),
            of(A.completion()),
            of(B.completion()),
            end_runs,
        ),
        ["train-0 succeeded", "train-2 succeeded"],
        1,
        {"policy": "QueueLatest"},
    ),
    Case(
        20,
        "two triggers for one run have a cause each, and concurrencyPolicy decides",
        [ON_SUCCESS, trigger("pipelines.penguin", "done")],
        tell(SUCCEEDED),
        ["train-1 succeeded"],
        1,
        {"policy": "Forbid"},
    ),
    Case(22, "a run from a cache, which never ran, counts as one that did", [ON_RUNNING], tell(SUCCEEDED), ["train-1 running"]),
    Case(
        24,
        "a run that was stopped",
        [trigger("runConfigurations.train", "stopped")],
        tell(of(A.completion("stopped"))),
        ["train-1 stopped"],
    ),
    Case(25, "the deletion of what is waited for is no event", [ON_DONE], steps(touch, restart)),
    Case(
        27,
        "a filter looks at the event, which does not change",
        [trigger("runConfigurations.train", "succeeded", filter="event.data.url == 'x'")],
        steps(SUCCEEDED, touch, deliver_again, restart),
    ),
    Case(
        28,
        "a filter that fails is no match",
        [trigger("runConfigurations.train", "succeeded", filter="event.data.nothing == 1")],
        tell(SUCCEEDED),
    ),
    Case(
        28,
        "and stops nothing else",
        [trigger("runConfigurations.train", "succeeded", filter="event.data.nothing == 1"), ON_SUCCESS],
        tell(SUCCEEDED, of(B.completion())),
        ["train-1 succeeded", "train-2 succeeded"],
    ),
    Case(29, "what happens during suspension is passed over", [ON_SUCCESS], steps(suspend, SUCCEEDED, resume), [], 1),
    Case(
        33,
        "other kinds: what waited is dropped, what is to come counts, and nothing comes twice",
        [named("running")],
        steps(refuse, RUNNING, wait_for_failure, permit, of(B.completion("failed")), FAILED),
        ["train-2 failed"],
        1,
    ),
    Case(33, "a trigger that is removed", [named("running")], steps(refuse, RUNNING, wait_for_nothing, permit, SUCCEEDED)),
    Case(
        34,
        "a Run that is refused for a while is started later",
        [ON_SUCCESS],
        steps(refuse, SUCCEEDED, restart, permit),
        ["train-1 succeeded"],
    ),
    Case(35, "another operator takes over while a Run is being made", [ON_SUCCESS], steps(die_while_starting), ["train-1 succeeded"]),
    Case(36, "deleted with an event in hand", [ON_SUCCESS], steps(refuse, SUCCEEDED, delete, permit)),
    Case(
        37,
        "a storm: the cap holds and the rest is counted",
        [ON_SUCCESS],
        storm(1500),
        [f"train-{number} succeeded" for number in range(10)],
        1490,
        {"hourly": 10},
    ),
    Case(
        38,
        "a Run that was removed is not made again",
        [ON_SUCCESS],
        steps(SUCCEEDED, remove_runs, deliver_again, restart, deliver_again),
        ["train-1 succeeded"],
    ),
    Case(39, "another end of the same attempt", [ON_DONE, ON_FAILURE], steps(SUCCEEDED, FAILED), ["train-1 done", "train-1 failed"]),
    Case(
        40,
        "every kind of a run can be waited for",
        [trigger("pipelines.penguin", "stopping"), trigger("pipelines.penguin", "unschedulable", "warning")],
        steps(of(A.status("warning")), of(A.status("stopping", transition=2))),
        ["train-1 warning", "train-1 stopping"],
    ),
    Case(
        40,
        "approved",
        [trigger("runConfigurations.train", "run_approved_actor")],
        tell(approved(A.status("created"))),
        ["train-1 run_approved_actor"],
    ),
    Case(
        40,
        "new artifacts",
        [trigger("runConfigurations.train", "run_new_artifacts")],
        tell(RUNNING, of(A.status("running", transition=3, artifacts=[artifact()])), of(A.completion(artifacts=[artifact()]))),
        ["train-1 run_new_artifacts"],
    ),
    Case(
        40,
        "a commit, told twice, and another one",
        [ON_COMMIT],
        tell(
            inbound("connection_git_commit", "connections.git", "1"),
            inbound("connection_git_commit", "connections.git", "1"),
            inbound("connection_git_commit", "connections.git", "1", source="another"),
            inbound("connection_git_commit", "connections.git", "2"),
            inbound("connection_git_commit", "connections.other", "3"),
            inbound("connection_git_commit", "connections.git", "4", namespace="others"),
        ),
        ["connections.git connection_git_commit"] * 3,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number}: {case.what}")
def test_triggers_of_a_run_configuration(case: Case) -> None:
    configuration = Configuration(case.waits, **case.options or {})
    world = World(configuration)
    case.story(world, configuration)
    started = [
        f"{run.occurrence.about.removeprefix('team/')} {run.occurrence.kind.state or run.occurrence.kind}" for run in configuration.made
    ]
    assert started == list(case.runs)
    assert sum(entry.suppressed for entry in configuration.status.triggers) == case.suppressed
    assert len(configuration.status.handled) <= MAX_HANDLED
    assert len(configuration.status.pending) <= MAX_PENDING


# 9 and 10: what a new RunConfiguration makes of the past


@pytest.mark.parametrize(
    ("start_from", "past", "runs"),
    [
        ("New", [SUCCEEDED], 0),
        ("Latest", [SUCCEEDED], 1),
        ("Latest", [SUCCEEDED, of(B.completion())], 1),
        ("Latest", [], 0),
        ("Latest", [NOT_BEGUN], 0),
    ],
)
def test_9_10_a_new_configuration_looks_back_only_when_it_says_so(start_from: str, past: list[Any], runs: int) -> None:
    world = World()
    world.tell(*past)
    configuration = Configuration([trigger("runConfigurations.train", "running", start_from=start_from)])
    world.add(configuration)
    world.consume()  # the consumer may not have come to the past yet
    assert len(configuration.made) == runs
    world.tell(of(Upstream("train-3").status("running")))
    world.consume()
    assert len(configuration.made) == runs + 1


# 1 to 5: what may be written


@pytest.mark.parametrize(
    ("number", "ref", "kinds", "said"),
    [
        (1, "{{ ops.a }}", ["run_status_done"], ""),
        (1, "{{ops.a}}", ["run_status_done"], ""),
        (1, " ops.a ", ["run_status_done"], ""),
        (2, "ops.a.b", ["run_status_done"], ""),
        (3, "ops", ["run_status_done"], "accepted: ops.NAME"),
        (3, "ops.", ["run_status_done"], "accepted: ops.NAME"),
        (3, "", ["run_status_done"], "accepted: ops.NAME"),
        (3, "operations.a", ["run_status_done"], "accepted: ops.NAME"),
        (5, "ops.a", [], "name at least one kind"),
        (5, "ops.a", ["Run_Status_Done"], "is not a kind of event"),
        (5, "ops.a", ["run_status_done", "run_status_done"], ""),
        (6, "ops.a", ["alert_info"], "can never come from ops.a"),
    ],
)
def test_1_to_6_what_is_written_means_one_thing_or_is_refused_with_the_accepted_forms(
    number: int, ref: str, kinds: list[str], said: str
) -> None:
    if said:
        with pytest.raises(ValueError) as caught:  # noqa: PT011  what it says is checked
            V1EventTrigger(ref=ref, kinds=kinds)
        assert said in str(caught.value)
        return
    written = V1EventTrigger(ref=ref, kinds=kinds)
    assert written == V1EventTrigger(ref=f"ops.{'a.b' if number == 2 else 'a'}", kinds=[V1EventKind.RUN_STATUS_DONE])
    assert EventTrigger.model_validate({"ref": ref, "kinds": kinds}).parsed() == written


@pytest.mark.parametrize(
    ("operations", "said"),
    [
        (None, "ops.b names an operation, which only operations of the same Dag can do"),
        ({"a": "run-a", "c": "run-c"}, "there is no operation b; there are: a, c"),
    ],
)
def test_4_an_operation_that_is_not_there(operations: dict[str, str] | None, said: str) -> None:
    with pytest.raises(InvalidSpec, match=said):
        resolve(parse_reference("ops.b"), "team", operations)


def test_4_an_operation_stands_for_its_run() -> None:
    assert resolve(parse_reference("{{ ops.b }}"), "team", {"b": "nightly-b"}) == Target(RefType.RUNS, "team", "nightly-b")


# 21: loops

PIPELINES = {"team/penguin": ["team/a", "team/b"]}


@pytest.mark.parametrize(
    ("refs", "loop"),
    [
        ({"a": ["runConfigurations.a"]}, ("team/a", "team/a")),
        ({"a": ["runConfigurations.b"], "b": ["runConfigurations.a"]}, ("team/a", "team/b", "team/a")),
        (
            {"a": ["runConfigurations.b"], "b": ["runConfigurations.c"], "c": ["{{ runConfigurations.team/a }}"]},
            ("team/a", "team/c", "team/b", "team/a"),
        ),
        ({"a": ["pipelines.penguin"]}, ("team/a", "team/a")),
        ({"a": ["runConfigurations.b"], "b": ["connections.git"]}, None),
    ],
)
def test_21_configurations_that_would_start_each_other_are_found_from_their_triggers(
    refs: dict[str, list[str]], loop: tuple[str, ...] | None
) -> None:
    def follows(full_name: str) -> list[str]:
        name = full_name.partition("/")[2]
        kinds = {ref: "connection_git_commit" if ref.startswith("connections") else "done" for ref in refs.get(name, ())}
        subscriptions, _ = subscribe(
            Subscriber("RunConfiguration", "team", name, name), [trigger(ref, kind) for ref, kind in kinds.items()]
        )
        return started_by(subscriptions, lambda pipeline: PIPELINES.get(pipeline, ()))

    found = loops_of("team/a", follows)
    assert (loop in found.values()) if loop else not found


def test_21_a_loop_that_nobody_saw_is_stopped_by_its_chain_of_causes() -> None:
    configuration = Configuration([ON_SUCCESS], name="deploy")
    world = World(configuration)
    world.causes[A.identity] = Causes().then("team/deploy", "uid-0").then("team/train", A.identity)
    world.causes[B.identity] = Causes().then("team/train", B.identity)
    world.tell(of(A.completion()), of(B.completion()))
    world.consume()
    assert [run.occurrence.about for run in configuration.made] == ["team/train-2"]
    assert configuration.status.triggers[0].suppressed == 1


def test_21_a_chain_says_what_it_would_do_and_has_an_end() -> None:
    chain = Causes().then("team/a", "1").then("team/b", "2")
    assert chain.refusal("team/a") == "would start itself for ever: team/a starts team/b starts team/a"
    assert chain.refusal("team/c") == ""
    assert Causes.parse(str(chain)) == chain
    assert chain.then("team/b", "2") == chain
    for number in range(MAX_CAUSES):
        chain = chain.then(f"team/x{number}", str(number))
    assert "too many to go on" in chain.refusal("team/c")
    assert len(Causes.parse(str(chain)).links) == MAX_CAUSES
    assert Causes.parse("nonsense,@,a@") == Causes()


# 23, 25, 30 and the rest of 17: the gate of a single Run


def waits(*triggers: V1EventTrigger) -> list[Subscription]:
    found, refused = subscribe(Subscriber("Run", "team", "report", "uid"), triggers)
    assert not refused
    return found


RUN = Target(RefType.RUNS, "team", "train-1")
GATED = trigger("runs.train-1", "running")


@pytest.mark.parametrize(
    ("number", "triggers", "upstream", "gate"),
    [
        (8, [GATED], Watched(), "WaitingForEvent"),
        (8, [GATED], Watched(RunState.QUEUED), "WaitingForEvent"),
        (13, [GATED], Watched(RunState.RUNNING), "open"),
        (13, [GATED], Watched(RunState.SUCCEEDED), "open"),
        (14, [GATED], Watched(RunState.FAILED, began=True), "open"),
        (14, [GATED], Watched(RunState.FAILED), "UpstreamFailed upstream_failed"),
        (15, [trigger("runs.train-1", "warning")], Watched(RunState.RUNNING, passed=frozenset({RunState.WARNING})), "open"),
        (23, [GATED], Watched(RunState.SKIPPED), "EventNotObserved skipped"),
        (23, [GATED], Watched(RunState.UPSTREAM_FAILED), "UpstreamFailed upstream_failed"),
        (23, [GATED], Watched(RunState.STOPPED), "EventNotObserved skipped"),
        (23, [trigger("runs.train-1", "failed")], Watched(RunState.SUCCEEDED), "EventNotObserved skipped"),
        (23, [trigger("runs.train-1", "failed")], Watched(RunState.FAILED), "open"),
        (23, [trigger("runs.train-1", "failed"), trigger("runs.train-1", "done")], Watched(RunState.SUCCEEDED), "open"),
        (23, [GATED, trigger("runs.other", "done")], Watched(RunState.SKIPPED), "WaitingForEvent"),
        (25, [GATED], Watched(RunState.QUEUED, deleted=True), "UpstreamDeleted skipped"),
        (
            27,
            [trigger("runs.train-1", "succeeded", filter="event.data.attempt == 2")],
            Watched(RunState.SUCCEEDED, told=False),
            "WaitingForEvent",
        ),
        (
            27,
            [trigger("runs.train-1", "succeeded", filter="event.data.attempt == 2")],
            Watched(RunState.SUCCEEDED),
            "EventNotObserved skipped",
        ),
        (40, [ON_SUCCESS], Watched(RunState.SUCCEEDED), "WaitingForEvent"),
        (40, [ON_COMMIT], Watched(), "WaitingForEvent"),
        (40, [], Watched(), "open"),
    ],
)
def test_the_gate_of_a_run(number: int, triggers: list[V1EventTrigger], upstream: Watched, gate: str) -> None:
    found = look(triggers, upstream)
    assert ("open" if found.open else f"{found.reason} {found.never or ''}".strip()) == gate, f"case {number}: {found.message}"


def look(triggers: list[V1EventTrigger], upstream: Watched) -> Gate:
    return gate(waits(*triggers), {RUN: upstream})


def test_17_30_a_gate_that_was_opened_stays_open() -> None:
    world = World(configuration := Configuration([ON_RUNNING]))
    world.tell(RUNNING)
    world.consume()
    opened = configuration.made[0].occurrence
    found = gate(waits(ON_RUNNING, GATED), {RUN: Watched(RunState.FAILED, deleted=True)}, opened)
    assert (found.open, found.message) == (True, "run_status_running of team/train-1")


def test_a_gate_says_what_it_waits_for() -> None:
    found = gate(waits(GATED, trigger("alerts.disk", "alert_info", "alert_critical", filter="event.data.full"), ON_COMMIT, ON_SUCCESS), {})
    assert found.message == (
        "waits for run_status_running of runs.train-1, which nothing is known of yet "
        "or alert_info, alert_critical of alerts.disk with its filter or connection_git_commit of connections.git or 1 other events"
    )


# 26: parameters that are not there yet


@pytest.mark.parametrize(
    ("kinds", "known"),
    [(["succeeded"], True), (["running"], False), (["succeeded", "failed"], False), (["done"], False), (["run_new_artifacts"], True)],
)
def test_26_outputs_may_be_used_only_when_they_are_there(kinds: list[str], known: bool) -> None:
    assert outputs_known(trigger("runConfigurations.train", *kinds).kinds) is known


# 37: the hour slides


def test_37_after_an_hour_runs_are_started_again() -> None:
    configuration = Configuration([ON_SUCCESS], hourly=2)
    world = World(configuration)
    for number in range(6):
        world.tell(of(Upstream(f"train-{number}").completion()))
        world.consume()
        later(world, 1000)
    assert [run.occurrence.about for run in configuration.made] == ["team/train-0", "team/train-1", "team/train-4", "team/train-5"]
