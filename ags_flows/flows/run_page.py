"""A run as a page in the Prefect UI: what ran, what came of it, every step with its time."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from ags_flows.cloud.connection import Connection
from ags_flows.models import ExecResult, Instance, Step
from ags_flows.run.artifacts import code_block, show

ARTIFACT = "sandbox-run"
SHOWN_LINES = 40
SHOWN_CHARACTERS = 8_000


class RunPage:
    """Writes the markdown artifact of a run at the end of a `with` block, however that ends.

    Args:
        steps: What was done; grows meanwhile.
        results: The commands' outcomes, masked already; grows meanwhile.
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
        """Know where everything will be."""
        self.instance: Instance | None = None
        self.downloads: Mapping[str, str] = {}
        self._steps = steps
        self._results = results
        self._snapshots = snapshots
        self._connection = connection

    def __enter__(self) -> RunPage:
        """Return the page."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write it; not for what ends the process, and outside of a flow run there is nowhere to write it to."""
        if FlowRunContext.get() is None or (error is not None and not isinstance(error, Exception)):
            return
        show(lambda: create_markdown_artifact(self._text(), key=ARTIFACT, description=self._headline()))

    def _text(self) -> str:
        parts = [f"# {self._headline()}", *self._place(), *self._timetable(), *self._files()]
        for number, result in enumerate(self._results, start=1):
            if len(self._results) > 1:
                parts.append(f"## {number}. Exit code {result.exit_code} after {result.seconds:.1f} s")
            parts += _outcome(result)
        return "\n\n".join(parts) + "\n"

    def _headline(self) -> str:
        if not self._results:
            return "It did not come to an exit code"
        last, count = self._results[-1], len(self._results)
        seconds = sum(result.seconds for result in self._results)
        told = f"Exit code {last.exit_code} after {seconds:.1f} s"
        return told if count == 1 else f"{told}, {count} commands"

    def _place(self) -> list[str]:
        if self.instance is None:
            return []
        tool = self.instance.tool_name or self.instance.tool_id
        console = f"[{self._connection.region}]({self._connection.console_url})"
        parts = [f"Sandbox `{self.instance.id}` of tool `{tool}` in {console}"]
        parts += [f"Snapshot {when} the commands: `{saved}`" for when, saved in self._snapshots.items()]
        return parts

    def _timetable(self) -> list[str]:
        rows = [f"| {_cell(step.name)} | {step.seconds:.2f} | {_ending(step)} |" for step in self._steps]
        return ["\n".join(["| step | seconds | |", "|---|---:|---|", *rows])]

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


def _ending(step: Step) -> str:
    if step.status == "completed":
        return _cell(step.message) or "ok"
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
