"""The flow that keeps one tool for each image of a list."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Annotated

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.context import FlowRunContext
from pydantic import Field

from ags_flows.blocks import AGSConfig, ConfigChoice, resolve_config
from ags_flows.errors import AGSFlowsError, ConfigurationError, SyncFailedError
from ags_flows.flows.names import name_of_sync
from ags_flows.lifecycle.sync_plan import drift, specs_of
from ags_flows.models import SyncedTool, SyncReport, ToolSpec
from ags_flows.run.artifacts import show
from ags_flows.run.logs import run_logger
from ags_flows.run.task_options import as_step
from ags_flows.tasks import delete_tool, ensure_tool, list_tools, precache_image
from ags_flows.tasks.tools import resolve_spec

ARTIFACT = "sync-tools"


@flow(
    name="sync-tools",
    flow_run_name=name_of_sync,
    description="Keep one tool for each image of a list: create, update, replace; delete only if asked.",
)
def sync_tools(
    images: list[str] | str,
    template: ToolSpec | None = None,
    group: str = "default",
    prefix: str = "",
    precache: bool = False,
    delete: bool = False,
    dry_run: bool = False,
    at_once: Annotated[int, Field(ge=1, le=32)] = 8,
    config: ConfigChoice = "",
) -> SyncReport:
    """Keep one tool for each image of a list.

    A tool's name is derived from its image, so that it is the same in every run; tags name image and group. Tools of
    the group whose image is not in the list any more are reported, and deleted only with `delete`. What ags_flows did
    not make, or another group's, is never touched.

    Args:
        images: References with a tag or a digest, or the path of a text file with one in each line (`#` for comments).
        template: Everything else of the tools; its name and image are not used.
        group: Distinguishes several lists in one account.
        prefix: Begins each name, at most 30 characters.
        precache: Have AGS cache each image ahead of its first use.
        delete: Delete tools of this group that no image wants any more.
        dry_run: Report the drift, and change nothing.
        at_once: How many tools are worked on concurrently.
        config: An AGS Config block, or its name. Empty: the environment of the process that executes the run.

    Returns:
        The drift of each tool, and what was done.

    Raises:
        ConfigurationError: The list is empty or cannot be read; nothing was changed.
        SyncFailedError: Some tools could not be brought in step; the others were. Carries the report.

    Example:
        ```python
        report = sync_tools(["python:3.11", "python:3.12"], group="etl", prefix="etl-")
        print([(tool.name, tool.outcome) for tool in report.tools])
        ```
    """
    config = resolve_config(config)
    started = time.monotonic()
    wanted = specs_of(_read(images), template, group, prefix)
    known = as_step(list_tools)(config=config)
    resolved = {image: resolve_spec(spec, config) for image, spec in wanted.items()}
    entries = drift(resolved, known, group)

    def act(entry: SyncedTool) -> SyncedTool:
        try:
            return _bring_in_step(entry, wanted, precache, delete, config)
        except AGSFlowsError as error:
            return entry.model_copy(update={"problem": str(error)})

    if not dry_run:
        with ThreadPoolExecutor(at_once, thread_name_prefix="ags-sync") as pool:
            # Each task run belongs to this flow run, whose context threads do not inherit.
            entries = [done.result() for done in [pool.submit(copy_context().run, act, entry) for entry in entries]]
    report = SyncReport(group=group, dry_run=dry_run, tools=tuple(entries), seconds=time.monotonic() - started)
    _show(report)
    if report.problems:
        raise SyncFailedError(
            f"{len(report.problems)} of {len(report.tools)} tools could not be brought in step. "
            f"{report.problems[0].name}: {report.problems[0].problem}",
            report=report,
        )
    return report


def _bring_in_step(
    entry: SyncedTool, wanted: dict[str, ToolSpec], precache: bool, delete: bool, config: AGSConfig
) -> SyncedTool:
    if entry.drift == "surplus":
        if not delete:
            return entry
        as_step(delete_tool)(entry.id, config=config)
        return entry.model_copy(update={"outcome": "deleted"})
    if precache and entry.drift != "in step":
        as_step(precache_image)(entry.image, config=config)
    tool = as_step(ensure_tool)(wanted[entry.image], config=config)
    return entry.model_copy(update={"id": tool.id, "outcome": tool.outcome})


def _read(images: list[str] | str) -> list[str]:
    if not isinstance(images, str):
        return images
    try:
        lines = Path(images).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"images: {images!r} cannot be read: {error}.") from error
    return [text for line in lines if (text := line.partition("#")[0].strip())]


def _show(report: SyncReport) -> None:
    counts: dict[str, int] = {}
    for tool in report.tools:
        what = "failed" if tool.problem else tool.outcome or tool.drift
        counts[what] = counts.get(what, 0) + 1
    told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    run_logger().info("%s group %r: %s", "Drift of" if report.dry_run else "Synchronised", report.group, told)
    rows = [
        {
            "tool": tool.name,
            "image": tool.image,
            "drift": f"{tool.drift}: {', '.join(tool.fields)}" if tool.fields else tool.drift,
            "done": tool.problem or tool.outcome,
        }
        for tool in report.tools
    ]
    if FlowRunContext.get() is not None:
        show(lambda: create_table_artifact(key=ARTIFACT, table=rows, description=f"Group `{report.group}`: {told}"))
