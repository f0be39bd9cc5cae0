"""The names of flow runs: what is done, and where. Prefect's own names are two random words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.context import FlowRunContext

from ags_flows.blocks import resolve_config
from ags_flows.job import SandboxJob
from ags_flows.job.spec import commands_of
from ags_flows.models import ToolSpec
from ags_flows.run.redaction import Redactor
from ags_flows.run.secrets import load_secrets
from ags_flows.run.steps import shorten

LONGEST = 48


def name_of_command() -> str:
    """Return the name of a run of `provision_and_run`: its command, and the tool."""
    given = _parameters()
    commands = commands_of(given.get("command") or "")
    more = f" and {len(commands) - 1} more" if len(commands) > 1 else ""
    first = _masked(commands[0] if commands else "nothing", given.get("secrets"))
    return _on(shorten(first, LONGEST) + more, given.get("tool"))


def name_of_job() -> str:
    """Return the name of a run of `run_job`: the name of the saved job, or its command, and the tool."""
    job = _parameters().get("job")
    if not isinstance(job, SandboxJob):
        return "job"
    return _on(job.saved_name or shorten(_masked(job.command, job.secrets), LONGEST), job.tool)


def name_of_batch() -> str:
    """Return the name of a run of `run_batch`: how many items or which file, and the tool."""
    given = _parameters()
    items = given.get("items")
    return _on(f"{len(items)} items" if isinstance(items, list) else _file(items), given.get("tool"))


def name_of_evaluation() -> str:
    """Return the name of a run of `swebench_evaluate`: the files of predictions and of the data set."""
    given = _parameters()
    return f"{_file(given.get('predictions'))} on {_file(given.get('dataset'))}"


def name_of_reap() -> str:
    """Return the name of a run of `reap`: what is looked at, and where."""
    given = _parameters()
    what = f"reap run {given['flow_run_id'][:8]}" if given.get("flow_run_id") else "reap"
    what = f"{what} (dry run)" if given.get("dry_run") else what
    return f"{what} in {_region(given)}"


def name_of_sync() -> str:
    """Return the name of a run of `sync_tools`: the group of tools, and where."""
    given = _parameters()
    what = f"tools of {given.get('group', 'default')}"
    what = f"{what} (dry run)" if given.get("dry_run") else what
    return f"{what} in {_region(given)}"


def name_of_usage() -> str:
    """Return the name of a run of `usage_report`: how long, and where."""
    given = _parameters()
    return f"usage of {given.get('hours', 24):g} h in {_region(given)}"


def _masked(command: str, secrets: Any) -> str:
    """Return a command without the values of secrets. If they cannot be read, nothing of it is shown."""
    if not isinstance(secrets, Mapping):
        return command
    try:
        values = load_secrets(secrets).values()
    except Exception:  # noqa: BLE001 - the flow itself reports it
        return "a command"
    return Redactor(values).text(command)


def _file(path: object) -> str:
    return shorten(str(path or "").rstrip("/").rsplit("/", 1)[-1] or "nothing", LONGEST)


def _region(given: dict[str, Any]) -> str:
    return resolve_config(given.get("config")).region


def _parameters() -> dict[str, Any]:
    context = FlowRunContext.get()
    return dict(context.parameters or {}) if context is not None else {}


def _on(what: str, tool: object) -> str:
    where = tool.name if isinstance(tool, ToolSpec) else str(tool or "")
    return f"{what} on {where}" if where else what
