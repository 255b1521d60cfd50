"""The main job, from nothing to a model server that serves what a run has just pushed; what was seen decides the exit status."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from subprocess import SubprocessError

from examples.demo import DemoError, verdict
from examples.demo.following import follow_to_the_end
from examples.demo.outsider import Outsider, Received
from examples.demo.parts import ModelServer, Operator, Penguin, penguins
from examples.demo.place import Place, choose
from examples.demo.text import Page, pretty
from examples.demo.verdict import BAD, GOOD, Served
from kfp_operator.api.run import Run
from kfp_operator.api.states import RunState
from kfp_operator.errors import KfpOperatorError
from tests.cluster import BuildError, KubectlError, NatsServer, Process, ProcessError
from tests.cluster.folders import ScratchFolder
from tests.waiting import eventually

SUBJECT = "events"
RUNS_WITHIN = 180.0
EVENTS_WITHIN = 30.0
_EXPECTED = (DemoError, KfpOperatorError, BuildError, ProcessError, KubectlError, AssertionError, OSError, SubprocessError)


class Story:
    """One demo: its parts, from ``tell`` to the end of the exit stack that it is given."""

    def __init__(self, page: Page, stack: ExitStack) -> None:
        self._page = page
        self._stack = stack
        self._logs: list[Process] = []
        self._penguins: Sequence[Penguin] = ()
        self.place: Place
        self.nats: NatsServer
        self.operator: Operator
        self.server: ModelServer

    def tell(self, kubeconfig: str) -> bool:
        """Do and show everything; whether all that was to happen has happened. `kubeconfig`: of whose cluster, "" for the test bed."""
        try:
            claims = self._tell(kubeconfig)
        except _EXPECTED as error:
            self._page.heading("It did not work")
            self._page.output(str(error), "bold red")
            self._show_logs()
            return False
        self._page.heading("Has it all happened?")
        for claim in claims:
            self._page.verdict(claim.holds, claim.text if claim.holds or not claim.seen else f"{claim.text}; but: {claim.seen}")
        good = all(claim.holds for claim in claims)
        if not good:
            self._show_logs()
        return good

    def _tell(self, kubeconfig: str) -> list[verdict.Claim]:
        page = self._page
        page.heading("A cluster")
        folder = self._enter(kubeconfig)
        page.say(f"Kubernetes {self.place.cluster.version} answers at {self.place.cluster.url}")

        page.heading("NATS with JetStream, where events are stored and told")
        self.nats = self._stack.enter_context(NatsServer())
        page.say(f"nats-server listens at {self.nats.url}; whatever is told is stored here first")

        self.operator = Operator(self.place, self.nats, folder)
        self.server = ModelServer(self.place, self.nats, self.operator.state, folder)
        self._logs += [self.operator.process, self.server.process]
        for end in (self.server.stop, self.operator.stop, self.place.leave):  # the last one first: leaving needs the operator
            self._stack.callback(end)

        page.heading("The operator: its kinds, and a process that serves them")
        self.place.prepare()
        page.command(f"{self.operator.command} &")
        self.operator.start()
        page.output(self.operator.readiness())

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

    def _enter(self, kubeconfig: str) -> Path:
        self.place = choose(kubeconfig, self._page)
        self._stack.enter_context(self.place.cluster)
        scratch = ScratchFolder()
        self._stack.callback(scratch.remove)
        return scratch.path

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
        shown, manifests = place.manifests(folder)
        page.command(f"kubectl apply -f {shown}")
        page.output(place.kubectl("apply", "-n", place.namespace, "-f", manifests))
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

    def _show_logs(self) -> None:
        for process in filter(Process.log_tail, self._logs):
            self._page.say(f"the end of the log of the {process.name}:", "bold")
            self._page.output(process.log_tail(), "dim")


def _share(served: Served) -> str:
    return f"right for {served.right} of {len(served.truth)} penguins ({served.accuracy:.1%})"
