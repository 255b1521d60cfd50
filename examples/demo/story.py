"""What every demo has: a cluster, NATS, an operator; then its own chapters; what was seen decides the exit status."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from subprocess import SubprocessError

from examples.demo import DemoError, verdict
from examples.demo.parts import Operator
from examples.demo.place import Place, choose
from examples.demo.text import Page
from kfp_operator.errors import KfpOperatorError
from tests.cluster import BuildError, KubectlError, NatsServer, Process, ProcessError
from tests.cluster.folders import ScratchFolder

_EXPECTED = (DemoError, KfpOperatorError, BuildError, ProcessError, KubectlError, AssertionError, OSError, SubprocessError)


class Story(ABC):
    """One demo: its parts, from ``tell`` to the end of the exit stack that it is given."""

    def __init__(self, page: Page, stack: ExitStack) -> None:
        self._page = page
        self._stack = stack
        self._logs: list[Process] = []
        self.place: Place
        self.nats: NatsServer
        self.operator: Operator

    @abstractmethod
    def chapters(self, folder: Path) -> list[verdict.Claim]:
        """Do and show what this demo is about, on a cluster and NATS that are there; what is claimed of it in the end."""

    @abstractmethod
    def suggestions(self) -> Sequence[tuple[str, str]]:
        """What to try when it is kept running: purposes and command lines."""

    def tell(self, kubeconfig: str) -> bool:
        """Do and show everything; whether all that was to happen has happened. `kubeconfig`: of whose cluster, "" for the test bed."""
        try:
            claims = self.chapters(self._set_up(kubeconfig))
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

    def start_operator(self) -> None:
        """Install the kinds, and start the process that serves them."""
        page = self._page
        page.heading("The operator: its kinds, and a process that serves them")
        self.place.prepare()
        page.command(f"{self.operator.command} &")
        self.operator.start()
        page.output(self.operator.readiness())

    def apply(self, folder: Path, *files: str) -> None:
        """Apply manifests below ``examples``, and show it. `folder`: for copies."""
        shown, manifests = self.place.manifests(folder, *files)
        for what, manifest in zip(shown, manifests, strict=True):
            self._page.command(f"kubectl apply -f {what}{self.place.scope}")
            self._page.output(self.place.kubectl("apply", "-n", self.place.namespace, "-f", manifest))

    def _set_up(self, kubeconfig: str) -> Path:
        page = self._page
        page.heading("A cluster")
        self.place = choose(kubeconfig, page)
        self._stack.enter_context(self.place.cluster)
        scratch = ScratchFolder()
        self._stack.callback(scratch.remove)
        page.say(f"Kubernetes {self.place.cluster.version} answers at {self.place.cluster.url}")

        page.heading("NATS with JetStream, where events are stored and told")
        self.nats = self._stack.enter_context(NatsServer())
        page.say(f"nats-server listens at {self.nats.url}; whatever is told is stored here first")

        self.operator = Operator(self.place, self.nats, scratch.path)
        self._logs.append(self.operator.process)
        self._stack.callback(self.operator.stop)
        self._stack.callback(self.place.leave)  # before the operator stops: leaving needs it
        return scratch.path

    def _show_logs(self) -> None:
        for process in filter(Process.log_tail, self._logs):
            self._page.say(f"the end of the log of the {process.name}:", "bold")
            self._page.output(process.log_tail(), "dim")
