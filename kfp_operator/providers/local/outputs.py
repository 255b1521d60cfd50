"""The artifacts of a run: what its steps wrote into ``executor_output.json``, with the types that the IR declares.

A step names its artifacts' URIs itself and may set them to anything. Consumers load models from there, so only what lies in the run's own
folders is reported: a path that leads elsewhere, through ``..`` or a symbolic link too, or a remote URI is left out.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from kfp_operator.providers.local.folder import RunFolder, StepRun
from kfp_operator.providers.protocol import ComponentArtifact

_MAX_OUTPUT = 16 * 1024 * 1024


def artifacts(folder: RunFolder) -> Sequence[ComponentArtifact]:
    """The artifacts of all steps that succeeded, in the order in which they began."""
    submission = folder.submission()
    roots = (folder.path.resolve(), Path(submission.options.root).resolve())
    found = []
    for run in folder.step_runs():
        step = submission.steps.get(run.component)
        if step is None or run.code != 0 or not run.root:
            continue
        for key, index, artifact in _written(run):
            uri = artifact.get("uri")
            metadata = artifact.get("metadata", {})
            if isinstance(uri, str) and isinstance(metadata, dict) and _inside(uri, roots):
                found.append(ComponentArtifact(step.task, key, step.outputs.get(key, ""), uri, metadata, index))
    return found


def _written(run: StepRun) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Key, position and artifact of all that the step's output file names; nothing when there is no such file (a step without outputs)."""
    path = Path(run.root) / "executor_output.json"
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MAX_OUTPUT))
    except (FileNotFoundError, ValueError):
        return
    listed = document.get("artifacts") if isinstance(document, dict) else None
    for key, value in listed.items() if isinstance(listed, dict) else ():
        entries = value.get("artifacts") if isinstance(value, dict) else None
        for index, artifact in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(artifact, dict):
                yield key, index, artifact


def _inside(uri: str, roots: Sequence[Path]) -> bool:
    """Whether the URI is a path (plain or ``file:``) that leads into one of the folders."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        path = Path(unquote(parts.path))
    elif uri.startswith("/"):
        path = Path(uri)
    else:
        return False
    if "\0" in str(path):
        return False
    real = path.resolve()
    return any(real.is_relative_to(root) for root in roots)
