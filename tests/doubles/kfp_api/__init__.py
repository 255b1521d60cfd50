"""A Kubeflow Pipelines API server for tests: the v2beta1 REST API as the real 2.17.0 answers it, oddities included, with a small Argo.

In the process of a test::

    async with KfpApi(Options(seconds=0.1)) as kfp:          # a port of its own: kfp.url is the Provider's endpoint
        kfp.outcome(Outcome(fails_in="act"), name="bad-*")   # what becomes of runs; else they do what their parameter `mode` says
        kfp.outcome(Outcome(by_hand=True), run_id=some_id)   # then: kfp.start(some_id), kfp.finish(some_id, fails_in="act")
        kfp.fault(method="POST", path="/runs", status=503, effect=True)     # the answer is lost, the run is not
        kfp.fault(path="/runs/*", reset=True, times=3)       # latency=, hang=, truncate=, headers={"Retry-After": "1"}, after=, times=0
        kfp.requests["GET", "/runs/{id}"]                    # how often that was asked
        kfp.started(some_id)                                 # how many Workflows were made for a run: more than one is a defect
        kfp.run(some_id).state                               # the row; kfp.service.rows and kfp.service.argo hold everything

With ``KfpApi(now=clock)`` time is the test's: each request finds everything done that was due. `Options` says what kind of
installation it is: version, multi-user identities, Kubernetes store, report delay. ``PortedWorkflows(kfp.service.argo)`` is the port
that providers get for the Workflows of this server; ``KfpApi(recorder=mlmd.recorder)`` writes artifacts to a real ML Metadata store.

In a process of its own, for an operator that is one (`tests.doubles.kfp_api.process`)::

    with KfpApiProcess(folder, kubeconfig=cluster.kubeconfig, recorder=mlmd.recorder, seconds=0.1) as kfp:
        kfp.fault(...); kfp.outcome(...); kfp.finish(...); kfp.requests(); kfp.runs(); kfp.retry(id); kfp.pause(); kfp.resume()

There its Workflows are custom resources on the API server of the kubeconfig.
"""

from tests.doubles.kfp_api.cluster import PortedWorkflows
from tests.doubles.kfp_api.faults import Fault
from tests.doubles.kfp_api.identity import Identities
from tests.doubles.kfp_api.outcomes import HANG, Artifact, Outcome, Rule
from tests.doubles.kfp_api.server import KfpApi
from tests.doubles.kfp_api.service import Options

__all__ = ["HANG", "Artifact", "Fault", "Identities", "KfpApi", "Options", "Outcome", "PortedWorkflows", "Rule"]
