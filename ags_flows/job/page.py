"""A run as a page in the Prefect UI: what ran, its outcome, every step with its time."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.utilities.urls import url_for

from ags_flows.cloud.connection import Connection
from ags_flows.models import ExecResult, Instance, Step
from ags_flows.run.artifacts import code_block, show

ARTIFACT = "sandbox-run"
SHOWN_LINES = 40
SHOWN_CHARACTERS = 8_000


class RunPage:
    """Writes the markdown artifact of a run at the end of a `with` block, however that ends.

    Args:
        steps: What was done; grows during the run.
        results: The commands' outcomes, masked already; grows during the run.
        snapshots: Ids of snapshots by when they were made.
        connection: Where AGS is.

    Attributes:
        instance: Where it ran.
        downloads: What was downloaded, path in the sandbox to local path.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        results: Sequence[ExecResult],
        snapshots: Mapping[str, str],
        connection: Connection,
    ) -> None:
        self.instance: Instance | None = None
        self.downloads: Mapping[str, str] = {}
        self._steps = steps
        self._results = results
        self._snapshots = snapshots
        self._connection = connection
        self._is_interrupted = False

    def __enter__(self) -> RunPage:
        """Return the page."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write it, also for a run that is cancelled; not for a run that is suspended, and not outside of flow runs."""
        ends = error is None or isinstance(error, (Exception, TerminationSignal, KeyboardInterrupt))
        if FlowRunContext.get() is None or not ends:
            return
        self._is_interrupted = error is not None and not isinstance(error, Exception)
        show(lambda: create_markdown_artifact(self._text(), key=ARTIFACT, description=self._headline()))

    def _text(self) -> str:
        parts = [f"# {self._headline()}", *self._place(), *self._timetable(), *self._files()]
        for number, result in enumerate(self._results, start=1):
            if len(self._results) > 1:
                parts.append(f"## {number}. Exit code {result.exit_code} after {result.seconds:.1f} s")
            parts += _outcome(result)
        return "\n\n".join(parts) + "\n"

    def _headline(self) -> str:
        if self._is_interrupted:
            return "Cancelled or ended before it was done"
        if not self._results:
            return "It did not come to an exit code"
        last, count = self._results[-1], len(self._results)
        seconds = sum(result.seconds for result in self._results)
        headline = f"Exit code {last.exit_code} after {seconds:.1f} s"
        not_run = sum(step.status == "skipped" for step in self._steps)
        if count + not_run == 1:
            return headline
        return f"{headline}, {count} of {count + not_run} commands run" if not_run else f"{headline}, {count} commands"

    def _place(self) -> list[str]:
        parts = []
        if self.instance is not None:
            tool = self.instance.tool_name or self.instance.tool_id
            sandbox = f"Sandbox `{self.instance.id}`"
            if self._connection.data_url:
                # The status page of an emulator shows each sandbox.
                sandbox = f"Sandbox [{self.instance.id}]({self._connection.console_url}#{self.instance.id})"
            console = f"[{self._connection.region}]({self._connection.console_url})"
            parts.append(f"{sandbox} of tool `{tool}` in {console}")
        parts += _runs()
        if self.instance is not None:
            parts.append(f"What its commands wrote: `ags-flows logs {self.instance.id}`")
        parts += [f"Snapshot {when} the commands: `{saved}`" for when, saved in self._snapshots.items()]
        return ["\n".join(f"- {part}" for part in parts)] if parts else []

    def _timetable(self) -> list[str]:
        rows = [f"| {_cell(step.name)} | {step.seconds:.2f} | {_ending(step)} |" for step in self._steps]
        return ["\n".join(["| step | seconds | outcome |", "|---|---:|---|", *rows])]

    def _files(self) -> list[str]:
        if not self.downloads:
            return []
        rows = [
            f"| {_cell(remote)} | [{_cell(local)}]({Path(local).absolute().as_uri()}) | {_size(Path(local))} |"
            for remote, local in self.downloads.items()
        ]
        return ["\n".join([f"| in the sandbox | on {socket.gethostname()} | size |", "|---|---|---:|", *rows])]


def _outcome(result: ExecResult) -> list[str]:
    parts = [code_block(result.command, "sh")]
    for name, text, size in (
        ("stdout", result.stdout, result.stdout_size),
        ("stderr", result.stderr, result.stderr_size),
    ):
        if text.strip():
            shown = _end(text)
            whole = "" if len(shown) == len(text.rstrip()) else ", its end"
            parts += [f"**{name}**{whole} ({size:,} bytes in all)", code_block(shown, "text")]
    return parts


def _runs() -> list[str]:
    """Return links to the flow run, its log, its deployment, and the flow run that it is nested in."""
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None:
        return []
    parts = [f"Flow run {_link(run.name, url_for('flow-run', run.id))} with its log"]
    if run.deployment_id:
        parts[0] += f", of {_link('this deployment', url_for('deployment', run.deployment_id))}"
    if run.parent_task_run_id:
        with get_client(sync_client=True) as client:
            parent = client.read_task_run(run.parent_task_run_id).flow_run_id
            if parent is not None:
                name = client.read_flow_run(parent).name
                parts.append(f"Started by flow run {_link(name, url_for('flow-run', parent))}")
    return parts


def _link(text: str | None, url: str | None) -> str:
    name = _cell(text or "")
    return f"[{name}]({url})" if url else f"`{name}`"


def _ending(step: Step) -> str:
    if step.status == "completed":
        return _cell(step.message) or "ok"
    if step.status == "skipped":
        return "not run"
    return f"**{step.status}** {_cell(step.message)}".strip()


def _size(path: Path) -> str:
    try:
        if path.is_dir():
            return f"{sum(1 for one in path.rglob('*') if one.is_file()):,} files"
        return f"{path.stat().st_size:,} bytes"
    except OSError:
        return ""


def _end(text: str) -> str:
    return "\n".join(text.rstrip().splitlines()[-SHOWN_LINES:])[-SHOWN_CHARACTERS:]


def _cell(text: str) -> str:
    """Return a text as it is for a cell of a table: no character of it is Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~&])", r"\\\1", " ".join(text.split()))
