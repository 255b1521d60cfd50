"""Answers of a real API server (2.17.0), as they were recorded: what the double is compared with.

Text in ``<>`` stands for what differs each time: ``<id>``, ``<time>``, ``<stack>``; ``..`` inside a text for what was not written down.
"""

import re
from typing import Any

PATTERNS = {
    "<id>": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "<time>": r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "<node>": r"[a-z0-9-]+",
    "<stack>": r"(.|\n)+\n(.|\n)*\.go:\d+(.|\n)*",
    "<token>": r"eyJTb3J0[\w=-]+",
    "..": r".*",
}
NEVER = "1970-01-01T00:00:00Z"
ZERO = "0001-01-01T00:00:00Z"

HEALTH = {"commit_sha": "unknown", "tag_name": "2.17.0", "multi_user": False, "pipeline_store": "database"}
PIPELINE = {
    "pipeline_id": "<id>",
    "display_name": "Two Step",
    "name": "two-step",
    "description": "hello",
    "created_at": "<time>",
    "tags": {"team": "a"},
}
EXPERIMENT = {
    "experiment_id": "<id>",
    "display_name": "exp-a",
    "description": "d",
    "created_at": "<time>",
    "storage_state": "AVAILABLE",
    "last_run_created_at": NEVER,
}
RUN_ID = "11111111-1111-5111-8111-111111111111"
RUN = {
    "experiment_id": "<id>",
    "run_id": RUN_ID,
    "display_name": "run one",
    "storage_state": "AVAILABLE",
    "description": "owner=ns/name",
    "pipeline_version_reference": {"pipeline_id": "<id>", "pipeline_version_id": "<id>"},
    "runtime_config": {"parameters": {"n": 5}},
    "service_account": "pipeline-runner",
    "created_at": "<time>",
    "scheduled_at": "<time>",
    "finished_at": NEVER,
    "state": "PENDING",
    "state_history": [{"update_time": "<time>", "state": "PENDING"}],
}
RUNNING_TASK = {
    "run_id": RUN_ID,
    "task_id": "<node>",
    "display_name": "<node>",
    "create_time": "<time>",
    "start_time": "<time>",
    "end_time": ZERO,
    "state": "RUNNING",
    "state_history": [{"update_time": "<time>", "state": "RUNNING"}],
}


def gateway(code: int, message: str, external: str = "..") -> dict[str, Any]:
    """An error of the gateway."""
    return {
        "code": code,
        "message": message,
        "details": [{"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": external}],
    }


def upload(message: str) -> dict[str, Any]:
    """An error of an upload handler."""
    return {"error_message": message, "error_details": "<stack>"}


def differences(recorded: Any, answered: Any, path: str = "$") -> list[str]:
    """Where an answer is not as it was recorded."""
    if isinstance(recorded, dict) and isinstance(answered, dict):
        odd = [f"{path}: {key} is {'missing' if key in recorded else 'new'}" for key in recorded.keys() ^ answered.keys()]
        return odd + [d for key in recorded.keys() & answered.keys() for d in differences(recorded[key], answered[key], f"{path}.{key}")]
    if isinstance(recorded, list) and isinstance(answered, list) and len(recorded) == len(answered):
        return [d for n, (one, other) in enumerate(zip(recorded, answered, strict=True)) for d in differences(one, other, f"{path}[{n}]")]
    if isinstance(recorded, str) and isinstance(answered, str):
        pattern = "".join(PATTERNS.get(part, re.escape(part)) for part in re.split(r"(<\w+>|\.\.)", recorded))
        return [] if re.fullmatch(pattern, answered, re.DOTALL) else [f"{path}: {answered!r} is not {recorded!r}"]
    return [] if recorded == answered and type(recorded) is type(answered) else [f"{path}: {answered!r} is not {recorded!r}"]
