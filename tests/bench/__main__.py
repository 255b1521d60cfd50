"""``python -m tests.bench [--runs N] [--completions N] [--triggers N]``: measure, print a table, exit with 1 when a bar is missed."""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.beginning import beginning
from tests.bench.completions import completions
from tests.bench.report import Figure, show
from tests.bench.triggers import triggers
from tests.cluster import NatsServer, Progress, open_cluster

_CRDS = Path(__file__).parents[2] / "crds"


def main(arguments: Sequence[str]) -> int:
    """Measure and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measures the operator against the project's bars.")
    parser.add_argument("--runs", type=int, default=10_000, help="settled Runs at the start (0: leave this part out)")
    parser.add_argument("--completions", type=int, default=500, help="completions to project, several times (0: leave this part out)")
    parser.add_argument("--triggers", type=int, default=10_000, help="event triggers to match (0: leave this part out)")
    options = parser.parse_args(arguments)
    os.environ["KUBECONFIG"] = os.devnull  # what its user works with is no place for measurements
    progress, figures = Progress(), list[Figure]()
    for measure, count in ((completions, options.completions), (beginning, options.runs)):
        if count:
            with open_cluster(crds=_CRDS, progress=progress) as cluster, NatsServer() as nats, tempfile.TemporaryDirectory() as folder:
                figures += asyncio.run(measure(cluster, nats, Path(folder), count, progress))
    if options.triggers:
        figures += triggers(options.triggers, progress)
    print(f"\non {os.cpu_count()} cores, which the API server, etcd and NATS use too:\n")
    return 0 if show(figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
