"""The main flow: one command in a sandbox of its own, with files in and out."""

import time
from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from ags_flows.blocks import AGSConfig
from ags_flows.errors import AGSFlowsError, ConfigurationError
from ags_flows.flows.hooks import stop_sandboxes, stop_sandboxes_if_asked
from ags_flows.flows.run_page import write_page
from ags_flows.models import ExecResult, Instance, RunReport, Step, ToolSpec
from ags_flows.session import OnCrash, OnFailure, SandboxSession, sandbox_session
from ags_flows.tasks.commands import require_success
from ags_flows.tasks.logs import run_logger


@flow(
    name="provision-and-run",
    description="Run one command in a fresh sandbox: upload, execute, download, clean up.",
    on_cancellation=[stop_sandboxes],
    on_crashed=[stop_sandboxes_if_asked],
)
def provision_and_run(
    command: str,
    tool: Annotated[ToolSpec | str, Field(union_mode="left_to_right")],
    uploads: dict[str, str] | None = None,
    downloads: dict[str, str] | None = None,
    env: dict[str, str] | None = None,
    secrets: dict[str, str] | None = None,
    cwd: str | None = None,
    user: str | None = None,
    timeout: float | None = None,
    lease: str | None = None,
    check: bool = True,
    on_failure: OnFailure = "stop",
    on_crash: OnCrash = "lease",
    delete_tool: bool | None = None,
    config: AGSConfig | None = None,
) -> RunReport:
    """Run one command in a sandbox of its own.

    A retry of the run goes on where the last attempt was: it adopts the tool and the live sandbox, attaches to the
    command if that still runs, and never runs it a second time in the same sandbox.

    Args:
        command: Run by `bash -l -c` in the sandbox.
        tool: A tool to create (deleted afterwards), or the name or id of an existing one (kept).
        uploads: Local path to path in the sandbox; a directory is taken whole.
        downloads: Path in the sandbox to local path; a directory is taken whole.
        env: Environment of the command.
        secrets: Environment from Prefect Secret blocks: variable name to name of the block.
        cwd: Working directory in the sandbox, by default the user's home.
        user: `user` (default) or `root`.
        timeout: Seconds for the command, None for no limit.
        lease: How long the sandbox outlives this process if it dies, `30s` to `24h`.
        check: Fail the run when the exit code is not 0. Downloads are tried all the same.
        on_failure: What becomes of the sandbox of a failed run: `stop`, `keep`, `pause`.
        on_crash: What becomes of the sandbox when this process is killed: left to a retry and to its `lease`, or
            `stop`, for runs that nobody retries.
        delete_tool: By default true for a tool that this run created.
        config: Where AGS is: an `AGSConfig` block, or by default the environment.

    Returns:
        The command's outcome, where it ran, and every step with its duration.

    Raises:
        CommandFailedError: The exit code was not 0, and `check` is true.
        ConfigurationError: A path to upload does not exist, or a setting is wrong; nothing was started.

    Example:
        ```python
        report = provision_and_run(
            "python3 etl.py > report.txt",
            tool=ToolSpec(name="etl", image="python:3.11"),
            uploads={"etl.py": "etl.py"},
            downloads={"report.txt": "report.txt"},
        )
        assert report.result.exit_code == 0
        ```
    """
    config = config or AGSConfig()
    uploads, downloads = uploads or {}, downloads or {}
    missing = [local for local in uploads if not Path(local).exists()]
    if missing:
        raise ConfigurationError(f"uploads: no such file or directory: {', '.join(missing)}.")
    started = time.monotonic()
    steps: list[Step] = []
    result: ExecResult | None = None
    instance: Instance | None = None
    fetched: dict[str, str] = {}
    try:
        with sandbox_session(
            tool,
            lease=lease,
            on_failure=on_failure,
            on_crash=on_crash,
            delete_tool=delete_tool,
            steps=steps,
            config=config,
        ) as sandbox:
            instance = sandbox.instance
            for local, remote in uploads.items():
                sandbox.upload(local, remote, user=user)
            result = sandbox.run(command, env=env, secrets=secrets, cwd=cwd, user=user, timeout=timeout)
            fetched = _fetch(sandbox, downloads, user, must=result.ok)
            if check:
                require_success(result)
    except Exception:
        write_page(result, instance, fetched, steps)
        raise
    write_page(result, instance, fetched, steps)
    return _report(result, instance, fetched, steps, time.monotonic() - started)


def _fetch(sandbox: SandboxSession, downloads: dict[str, str], user: str | None, must: bool) -> dict[str, str]:
    """Download what there is; after a failed command a missing file is told, not raised."""
    fetched = {}
    for remote, local in downloads.items():
        try:
            sandbox.download(remote, local, user=user)
            fetched[remote] = local
        except AGSFlowsError as error:
            if must:
                raise
            run_logger().warning("Not downloaded after the failed command: %s", error)
    return fetched


def _report(
    result: ExecResult, instance: Instance, fetched: dict[str, str], steps: list[Step], seconds: float
) -> RunReport:
    return RunReport(
        result=result,
        instance_id=instance.id,
        tool_id=instance.tool_id,
        tool_name=instance.tool_name,
        steps=tuple(steps),
        downloads=fetched,
        seconds=seconds,
    )
