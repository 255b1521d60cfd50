"""Runs that start by themselves: one configuration trains by the clock, another follows every training with the model it made."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from examples.demo import DemoError
from examples.demo.runs_log import RunsLog, cause
from examples.demo.story import Story
from examples.demo.text import Page, pretty
from examples.demo.verdict import Claim
from kfp_operator.api.run import Run
from kfp_operator.api.states import RunState

TRAIN, REPORT = "train-penguins", "report-penguins"
KEPT = 2
"""Succeeded Runs that the manifest of TRAIN keeps."""
QUIET = 18.0
"""Seconds of suspension that are watched: two ticks of TRAIN and more."""
WITHIN = 120.0


class Schedules(Story):
    """Schedules, a chain of two configurations, an edit in flight, suspension, a start by hand, and the limit of history."""

    def __init__(self, page: Page, stack: ExitStack) -> None:
        super().__init__(page, stack)
        self._runs: RunsLog

    def chapters(self, folder: Path) -> list[Claim]:
        """See `Story`."""
        page = self._page
        self.start_operator()
        self._runs = runs = RunsLog(self.place.cluster.kubeconfig, self.place.namespace, page)

        page.heading("Two Pipelines, and two RunConfigurations: one trains every eight seconds, one follows it with the model it made")
        self.apply(folder, "penguin/provider.yaml", "penguin/pipeline.yaml", "schedules/")
        page.say("")
        runs.until(lambda: self._succeeded(REPORT) >= 1, WITHIN, f"a run of {REPORT} has succeeded")

        page.heading("An edit while a run is in flight: that run goes on as it was, the next one is as it is now")
        in_flight = self._edit()

        page.heading("Suspended: no run starts by itself")
        before, quiet = self._suspended()

        page.heading("Started by hand, which works all the same")
        by_hand = self._by_hand()

        page.heading("What Kubernetes says")
        for what in ("mlrc", "mlr"):
            page.command(f"kubectl get {what}{self.place.scope}")
            page.output(self.place.kubectl("get", what, "-n", self.place.namespace))
        page.command(f"kubectl get mlrc {TRAIN} -o jsonpath={{.status}}{self.place.scope}")
        status = self._configuration(TRAIN)["status"]
        page.output(pretty({key: status.get(key) for key in ("latestRuns", "triggers", "lastSuccessfulTime")}))

        return [
            *self._chain(),
            *self._edited(in_flight),
            *self._quiet(before, quiet),
            *self._started(by_hand),
            *self._history(),
            self._told(),
        ]

    def suggestions(self) -> Sequence[tuple[str, str]]:
        """See `Story`."""
        scope = self.place.scope
        return (
            ("let it train again", f'kubectl patch mlrc {TRAIN}{scope} --type=merge -p \'{{"spec":{{"suspend":false}}}}\''),
            ("see the Runs come and go", f"kubectl get mlr{scope} --watch"),
            ("what a configuration did, and why", f"kubectl describe mlrc {REPORT}{scope}"),
            ("start one by hand", f"kfp-operator runs start {TRAIN}{scope} --wait"),
            ("all events, the stored ones first", f"kfp-operator events watch{scope} --since 1h"),
        )

    # What is done

    def _edit(self) -> Run:
        """Change the template while a training is running; that training."""
        self._runs.until(lambda: self._running() is not None, WITHIN, f"a run of {TRAIN} is running")
        running = self._running()
        if running is None:
            raise DemoError(f"the run of {TRAIN} has just ended")
        self._patch(TRAIN, {"run": {"parameters": [{"name": "regularization", "value": 0.1}]}})
        known = {run.metadata.name for run in self._runs.of(TRAIN)}

        def done() -> bool:
            later = [run for run in self._runs.of(TRAIN) if run.metadata.name not in known]
            return self._state(running) is RunState.SUCCEEDED and any(self._state(run) is RunState.SUCCEEDED for run in later)

        self._runs.until(done, WITHIN, f"{running.metadata.name} and the one after it have succeeded")
        return running

    def _suspended(self) -> tuple[set[str], set[str]]:
        """The Runs of TRAIN before and after a time of suspension."""
        self._patch(TRAIN, {"suspend": True})
        self._runs.until(
            lambda: self._idle() and self._newest_is_reported(), WITHIN, "all runs have ended, and the newest model is reported on"
        )
        before = {run.metadata.name for run in self._runs.of(TRAIN)}
        self._page.say(f"for {QUIET:.0f} s nothing happens:", "dim")
        self._runs.watch_for(QUIET)
        return before, {run.metadata.name for run in self._runs.of(TRAIN)}

    def _by_hand(self) -> Run:
        page, place = self._page, self.place
        known = {run.metadata.name for run in self._runs.of(TRAIN)}
        reports = self._succeeded(REPORT)
        page.command(f"kfp-operator runs start {TRAIN}{place.scope}")
        page.output(self.operator.cli("runs", "start", TRAIN, "-n", place.namespace))

        def started() -> list[Run]:
            return [run for run in self._runs.of(TRAIN) if run.metadata.name not in known]

        def done() -> bool:
            return any(self._state(run) is RunState.SUCCEEDED for run in started()) and self._succeeded(REPORT) > reports and self._idle()

        self._runs.until(done, WITHIN, "it and its report have succeeded")
        self._runs.until(lambda: self._kept() <= KEPT, 30, f"{KEPT} succeeded runs of {TRAIN} are kept")
        return started()[0]

    # What is claimed

    def _chain(self) -> list[Claim]:
        models = {
            artifact.location: run.metadata.name for run in self._runs.of(TRAIN) for artifact in run.status.artifacts if artifact.location
        }
        reports = [run for run in self._runs.of(REPORT) if self._state(run) is RunState.SUCCEEDED]
        given = [_model(run) for run in reports]
        scheduled = [run for run in self._runs.of(TRAIN) if cause(run)[0] == "schedule"]
        return [
            Claim(f"{len(scheduled)} trainings were started by the clock", len(scheduled) >= 3, str(len(scheduled))),
            Claim(
                f"{len(reports)} reports followed, each started by a training and with the model it had made",
                bool(reports) and set(given) <= set(models) and {cause(run) for run in reports} == {("runConfiguration", TRAIN)},
                f"{given} of {models}",
            ),
            Claim("no model was reported on twice", len(set(given)) == len(given), str(given)),
        ]

    def _edited(self, in_flight: Run) -> list[Claim]:
        runs = self._runs.of(TRAIN)
        at = next(n for n, run in enumerate(runs) if run.metadata.name == in_flight.metadata.name)
        ended = runs[at]
        return [
            Claim(
                "the run in flight kept its parameter and succeeded",
                _regularization(ended) == 1.0 and ended.status.state is RunState.SUCCEEDED,
                f"{_regularization(ended)}, {ended.status.state}",
            ),
            Claim(
                "the ones after it have the new one",
                bool(runs[at + 1 :]) and {_regularization(run) for run in runs[at + 1 :]} == {0.1},
                str([_regularization(run) for run in runs[at + 1 :]]),
            ),
        ]

    def _quiet(self, before: set[str], after: set[str]) -> list[Claim]:
        return [Claim("while it was suspended no training started", before == after, str(after - before))]

    def _started(self, by_hand: Run) -> list[Claim]:
        kind = cause(by_hand)[0]
        return [Claim("the one that was started by hand says so", kind == "manual", kind)]

    def _history(self) -> list[Claim]:
        kept, made = self._kept(), len(self._runs.of(TRAIN))
        return [Claim(f"of {made} trainings the last {KEPT} are kept", kept == KEPT and made > KEPT, str(kept))]

    def _told(self) -> Claim:
        """Of the Runs of TRAIN that were seen to end, deleted ones too."""
        ended = {run.metadata.uid for run in self._runs.seen.values() if run.status.completion_state is not None}
        arguments = (
            "events",
            "watch",
            "-n",
            self.place.namespace,
            "--completions",
            "--since",
            "1h",
            "-o",
            "json",
            "--count",
            str(len(ended)),
        )
        told = [json.loads(line)["data"] for line in self.operator.cli(*arguments).splitlines()]
        of = Counter(event["runUid"] for event in told)
        known = {f"{self.place.namespace}/{name}" for name in (TRAIN, REPORT)}
        holds = set(of) == ended and set(of.values()) == {1} and {event["runConfigurationName"] for event in told} == known
        return Claim(
            f"each of the {len(ended)} runs, the deleted ones too, has one completion event that names its configuration", holds, str(of)
        )

    # What is so

    def _state(self, run: Run) -> RunState | None:
        return self._runs.seen[run.metadata.name].status.state

    def _succeeded(self, configuration: str) -> int:
        return sum(run.status.state is RunState.SUCCEEDED for run in self._runs.of(configuration))

    def _running(self) -> Run | None:
        return next((run for run in self._runs.of(TRAIN) if run.status.state is RunState.RUNNING), None)

    def _idle(self) -> bool:
        return all(run.status.state is not None and run.status.state.final for run in self._runs.present.values())

    def _newest_is_reported(self) -> bool:
        trained = [run for run in self._runs.of(TRAIN) if run.status.state is RunState.SUCCEEDED]
        newest = max(trained, key=lambda run: run.status.end_time or datetime.min.replace(tzinfo=UTC)).status.artifacts
        return {artifact.location for artifact in newest} <= {_model(run) for run in self._runs.of(REPORT)}

    def _kept(self) -> int:
        present = self._runs.present
        return sum(run.metadata.name in present and run.status.state is RunState.SUCCEEDED for run in self._runs.of(TRAIN))

    def _configuration(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.place.kubectl("get", "mlrc", name, "-n", self.place.namespace, "-o", "json"))
        return found

    def _patch(self, name: str, spec: dict[str, Any]) -> None:
        patch = json.dumps({"spec": spec})
        self._page.command(f"kubectl patch mlrc {name}{self.place.scope} --type=merge -p '{patch}'")
        self._page.output(self.place.kubectl("patch", "mlrc", name, "-n", self.place.namespace, "--type=merge", "-p", patch))


def _model(run: Run) -> object:
    return _parameter(run, "model")


def _regularization(run: Run) -> object:
    return _parameter(run, "regularization")


def _parameter(run: Run, name: str) -> object:
    return next((parameter.value for parameter in run.spec.parameters if parameter.name == name), None)
