from pathlib import Path

from kfp_operator.providers.local.process import run_environment

OPERATOR = {
    "PATH": "/usr/bin",
    "HOME": "/root",
    "LANG": "de_DE.UTF-8",
    "TZ": "Europe/Berlin",
    "KUBECONFIG": "/root/.kube/config",
    "KFPOP_NATS__USER": "operator",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "GOOGLE_APPLICATION_CREDENTIALS": "/key.json",
    "HTTPS_PROXY": "http://user:secret@proxy",
    "PYTHONPATH": "/operator",
    "SSH_AUTH_SOCK": "/tmp/agent",
}


def test_a_run_sees_a_few_named_variables_of_the_operator_and_no_other() -> None:
    environment = run_environment(Path("/runs/1"), "/usr/bin/python3", {}, OPERATOR, Path("/state"))
    assert set(environment) == {
        "PATH", "LANG", "TZ", "HOME", "TMPDIR", "PYTHONUNBUFFERED", "PIP_CACHE_DIR", "KFP_RUN_FOLDER", "KFP_RUN_PYTHON", "KFP_RUN_WORKER",
    }  # fmt: skip
    assert (environment["PATH"], environment["TZ"], environment["HOME"]) == ("/usr/bin", "Europe/Berlin", "/runs/1/work")


def test_a_provider_adds_variables_and_may_replace_those_passed_on_but_not_the_runs_own() -> None:
    extra = {"HTTPS_PROXY": "http://proxy", "PATH": "/opt/bin", "HOME": "/root"}
    environment = run_environment(Path("/runs/1"), "/usr/bin/python3", extra, OPERATOR, Path("/state"))
    assert (environment["HTTPS_PROXY"], environment["PATH"], environment["HOME"]) == ("http://proxy", "/opt/bin", "/runs/1/work")
