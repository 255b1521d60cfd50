"""The main job, from nothing to a model server that serves what a run has just pushed."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from examples.demo import DemoError, verdict
from examples.demo.following import follow_to_the_end
from examples.demo.outsider import Outsider, Received
from examples.demo.parts import ModelServer, Penguin, penguins
from examples.demo.story import Story
from examples.demo.text import Page, pretty
from examples.demo.verdict import BAD, GOOD, Served
from kfp_operator.api.run import Run
from kfp_operator.api.states import RunState
from tests.waiting import eventually

SUBJECT = "events"
RUNS_WITHIN = 180.0
EVENTS_WITHIN = 30.0


class MainJob(Story):
    """A Pipeline, two Runs, their events, and an outsider that acts on them."""

    def __init__(self, page: Page, stack: ExitStack) -> None:
        super().__init__(page, stack)
        self._penguins: Sequence[Penguin] = ()
        self.server: ModelServer

    def chapters(self, folder: Path) -> list[verdict.Claim]:
        """See `Story`."""
        page = self._page
        self.server = ModelServer(self.place, self.nats, self.operator.state, folder)
        self._logs.append(self.server.process)
        self._stack.callback(self.server.stop)
        self.start_operator()

        page.heading("Two outsiders, who know the subject `events` and nothing else")
        before, outsider = self._outsiders()

        page.heading("A Provider, a Pipeline, and two Runs of it: the second one asks for a column that the data does not have")
        runs = self._run(folder)

        page.heading("What Kubernetes says")
        page.command(f"kubectl get mlprv,mlp,mlr{self.place.scope}")
        page.output(self.place.kubectl("get", "mlprv,mlp,mlr", "-n", self.place.namespace))

        page.heading("What the subscriber received, as it came (but for line breaks in the JSON)")
        received = self._received(outsider, len(runs))

        page.heading("What the model server made of it")
        after = self._reloaded(before)
        return verdict.claims(self.place.namespace, runs, received, before, after)

    def suggestions(self) -> Sequence[tuple[str, str]]:
        """See `Story`."""
        scope = self.place.scope
        body = '{"bill_length_mm": 50, "bill_depth_mm": 15, "flipper_length_mm": 220, "body_mass_g": 5000}'
        create = f"kfp-operator runs create --generate-name penguin-{scope} --pipeline penguin-pipeline -p regularization=0.1"
        return (
            ("why the second one failed", f"kubectl describe mlr {BAD}{scope}"),
            ("what it printed", f"kfp-operator runs logs {BAD}{scope} | tail -n 20"),
            ("all events, the stored ones first", f"kfp-operator events watch{scope} --since 1h"),
            ("another model", f"{create} --artifact serving-model=push:model --wait"),
            ("what the server takes a penguin for", f"curl -s {self.server.url}/predict -d '{body}'"),
            ("whether everything is as it should be", f"kfp-operator doctor{scope}"),
        )

    def _outsiders(self) -> tuple[Served, Outsider]:
        page = self._page
        outsider = Outsider(self.nats.url, SUBJECT).start()
        self._stack.callback(outsider.close)
        page.say("a subscriber of core NATS, which keeps what it receives")
        self.server.start()
        page.say(f"a model server, examples/serving/server.py, at {self.server.url}")
        before = self._ask()
        page.say(f"It serves {before.model!r}, the most common species whatever is asked: {_share(before)}.")
        return before, outsider

    def _run(self, folder: Path) -> Mapping[str, Run]:
        page, place = self._page, self.place
        self.apply(folder, "penguin/")
        page.say("")
        runs = follow_to_the_end(place.cluster.kubeconfig, place.namespace, (GOOD, BAD), page, RUNS_WITHIN)
        if (ended := runs[GOOD].status).state is not RunState.SUCCEEDED:
            raise DemoError(f"Run {GOOD} {ended.state}: {ended.message}\n\n{self.operator.run_log(GOOD)}")
        place.kubectl(  # the operator lets go of a Run last of all
            "wait",
            "-n",
            place.namespace,
            f"mlr/{GOOD}",
            f"mlr/{BAD}",
            "--timeout=20s",
            "--for=jsonpath={.metadata.labels.kfp-operator\\.dev/completed}",
        )
        return runs

    def _received(self, outsider: Outsider, wanted: int) -> Sequence[Received]:
        eventually(lambda: len(outsider.received()) >= wanted, EVENTS_WITHIN, f"{wanted} completion events were received on {SUBJECT!r}")
        received = outsider.received()
        self._page.say("The members of `data` stand at top level too: Argo Events sensors of either spelling work.")
        for message in received:
            self._page.say("")
            self._page.say(f"stored as {message.subject}", "dim")
            self._page.output("\n".join(f"{name}: {value}" for name, value in message.headers.items()), "cyan")
            self._page.output(pretty(message.document()))
        return received

    def _reloaded(self, before: Served) -> Served:
        eventually(
            lambda: self.server.serving()["model"] != before.model, EVENTS_WITHIN, "the model server has reloaded", ignoring=(OSError,)
        )
        page = self._page
        page.output(self.server.log(), "dim")
        after = self._ask()
        for species in sorted(set(after.truth)):
            at = after.truth.index(species)
            measured = ", ".join(f"{name} {value:g}" for name, value in self._penguins[at].features.items())
            page.say(f"{species:<10} ({measured}): before {before.predicted[at]}, now {after.predicted[at]}")
        page.say(f"It serves {after.model!r}: {_share(after)}; on those that it had not seen, {self.server.serving()['accuracy']:.1%}.")
        return after

    def _ask(self) -> Served:
        """Have it predict every penguin."""
        self._penguins = self._penguins or penguins()
        truth = [penguin.species for penguin in self._penguins]
        return Served(str(self.server.serving()["model"]), self.server.predict(self._penguins), truth)


def _share(served: Served) -> str:
    return f"right for {served.right} of {len(served.truth)} penguins ({served.accuracy:.1%})"
