"""``python -m tests.cluster``: a cluster in the background for local development, and the build of the test bed's programs."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import background
from tests.cluster.lookup import open_cluster
from tests.cluster.progress import Progress
from tests.cluster.toolchain import BuildError


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the cluster, or find the one that runs; with the CRDs of crds/")
    commands.add_parser("down", help="stop it and delete what is in it")
    commands.add_parser("status", help="tell whether it runs, and where")
    commands.add_parser("build", help="find or build the programs, as the tests will (TEST_KUBECONFIG, CLUSTER, KUBEBUILDER_ASSETS)")
    kubectl = commands.add_parser("kubectl", help="run kubectl on it", add_help=False)
    kubectl.add_argument("arguments", nargs=argparse.REMAINDER)
    commands.add_parser("hold", help="run it in the foreground (what `up` does in the background)")
    options = parser.parse_args(arguments)
    try:
        match options.command:
            case "up":
                return _up()
            case "down":
                print("the cluster is down" if background.down() else "no cluster runs in the background")
                return 0
            case "status":
                return _status()
            case "build":
                given = os.environ.get("TEST_KUBECONFIG")
                open_cluster(Path(given) if given else None)
                return 0
            case "kubectl":
                return _kubectl(options.arguments)
            case _:
                return background.hold()
    except (BuildError, background.NotRunningError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1


def _up() -> int:
    running = background.up(Progress())
    print(f"{running.what}\nUse it, and stop it with `make cluster-down`:\n\n  export KUBECONFIG={running.kubeconfig}")
    print("" if shutil.which("kubectl") else f"  export PATH={Path(running.kubectl).parent}:$PATH  # there is no other kubectl\n")
    return 0


def _status() -> int:
    running = background.find()
    if running is None:
        print("no cluster runs in the background; start one with `make cluster-up`")
        return 1
    print(f"running (process {running.pid}): {running.what}\n  export KUBECONFIG={running.kubeconfig}")
    return 0


def _kubectl(arguments: list[str]) -> int:
    running = background.find()
    if running is None:
        raise background.NotRunningError("no cluster runs in the background; start one with `make cluster-up`")
    os.execve(running.kubectl, [running.kubectl, *arguments], {**os.environ, "KUBECONFIG": running.kubeconfig})  # noqa: S606 - becomes kubectl


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
