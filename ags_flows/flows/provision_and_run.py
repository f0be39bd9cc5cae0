"""The main flow: commands in a sandbox of their own, with files in and out."""

import time
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from ags_flows.blocks import ConfigChoice, resolve_config
from ags_flows.errors import CommandTimeoutError, ConfigurationError
from ags_flows.flows.hooks import stop_sandboxes, stop_sandboxes_if_asked
from ags_flows.flows.parameters import Pairs, Seconds, Text, ToolChoice, User
from ags_flows.flows.run_page import RunPage
from ags_flows.models import ExecResult, RunReport, Step
from ags_flows.run.checked import check as check_values
from ags_flows.run.logs import run_logger
from ags_flows.run.secrets import load_secrets
from ags_flows.session import OnCrash, OnFailure, SandboxSession, sandbox_session
from ags_flows.tasks.commands import as_text, require_success

Snapshots = Literal["none", "before", "after", "both"]


@flow(
    name="provision-and-run",
    description="Run one command, or several, in a fresh sandbox: upload, execute, download, clean up.",
    on_cancellation=[stop_sandboxes],
    on_crashed=[stop_sandboxes_if_asked],
)
def provision_and_run(
    command: str | list[str],
    tool: ToolChoice = "",
    uploads: Pairs = {},
    downloads: Pairs = {},
    env: Pairs = {},
    secrets: Pairs = {},
    cwd: Text = "",
    user: User = "user",
    timeout: Seconds = 0.0,
    lease: Text = "",
    check: bool = True,
    on_failure: OnFailure = "stop",
    on_crash: OnCrash = "lease",
    delete_tool: bool | None = None,
    config: ConfigChoice = "",
    retries: Annotated[int, Field(ge=0, le=100)] = 0,
    retry_delay: Annotated[float, Field(ge=0)] = 10.0,
    from_snapshot: Text = "",
    snapshot: Snapshots = "none",
) -> RunReport:
    """Run one command, or several one after another, in a sandbox of their own.

    A retry of the run goes on where the last attempt was: it takes over the live sandbox, attaches to the
    command if that still runs, and never runs one a second time in the same sandbox.

    Args:
        command: Run by `bash -l -c` in the sandbox. Of several the next is run when the last has succeeded.
        tool: A tool to create (deleted afterwards), or the name or id of an existing one (kept). Empty: the
            configuration's.
        uploads: Local path to path in the sandbox, as `{"etl.py": "etl.py"}`; a directory is taken whole.
        downloads: Path in the sandbox to local path, as `{"out": "results"}`; a directory is taken whole.
        env: Environment of the commands, as `{"MODE": "fast"}`; not for secrets.
        secrets: Environment from Prefect Secret blocks: variable name to name of the block, as
            `{"TOKEN": "warehouse-token"}`.
        cwd: Working directory in the sandbox. Empty: the user's home.
        user: Who runs the commands, and whose home relative paths begin in.
        timeout: Seconds for each command, 0 for no limit.
        lease: How long the sandbox outlives this process if it dies, `30s` to `24h`. Empty: the configuration's.
        check: Fail the run when an exit code is not 0. Downloads are tried all the same.
        on_failure: What becomes of the sandbox of a failed run: `stop`, `keep`, `pause`.
        on_crash: What becomes of the sandbox when this process is killed: left to a retry and to its `lease`, or
            `stop`, for runs that nobody retries.
        delete_tool: By default true for a tool that this run created, unless its snapshots need it.
        config: An AGS Config block, or its name. Empty: the environment of the process that executes the run.
        retries: How often a command that failed, or took too long, is run again in the same sandbox. A run that
            lost its sandbox is for Prefect's own retries, which start another one.
        retry_delay: Seconds before that.
        from_snapshot: Id of a snapshot to start from, instead of a tool.
        snapshot: Save the sandbox's disk `before` the commands (uploads are there), `after` they have succeeded, or
            both. Snapshots stay until they are deleted; `reap` can do that.

    Returns:
        The commands' outcomes, where they ran, and every step with its duration.

    Raises:
        CommandFailedError: An exit code was not 0, and `check` is true.
        ConfigurationError: A path to upload or a Secret block does not exist, or a setting is wrong; nothing was
            started.

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
    config = resolve_config(config)
    commands = [command] if isinstance(command, str) else list(command)
    check_values(command=commands or "", env=env, secrets=secrets, cwd=cwd or None, timeout=timeout)
    _check(commands, uploads, downloads, secrets)
    if delete_tool is None and snapshot != "none":
        # A snapshot can only be started while its tool is there.
        delete_tool = False
    started = time.monotonic()
    options: dict[str, Any] = {
        "env": env,
        "secrets": secrets,
        "cwd": cwd or None,
        "user": user,
        "timeout": timeout or None,
    }
    steps: list[Step] = []
    results: list[ExecResult] = []
    snapshots: dict[str, str] = {}
    page = RunPage(steps, results, snapshots, config.connection())
    with (
        page,
        sandbox_session(
            tool or None,
            lease=lease or None,
            on_failure=on_failure,
            on_crash=on_crash,
            delete_tool=delete_tool,
            snapshot_id=from_snapshot or None,
            steps=steps,
            config=config,
        ) as sandbox,
    ):
        page.instance = instance = sandbox.instance
        for local, remote in uploads.items():
            sandbox.upload(local, remote, user=user)
        if snapshot in ("before", "both"):
            snapshots["before"] = _save(sandbox, "before")
        for one in commands:
            results.append(_run(sandbox, one, options, retries, retry_delay))
            if not results[-1].ok:
                break
        result = results[-1]
        page.downloads = sandbox.collect(downloads, user=user, must=result.ok)
        if check:
            require_success(result)
        if snapshot in ("after", "both") and result.ok:
            snapshots["after"] = _save(sandbox, "after")
    return RunReport(
        result=result,
        results=tuple(results),
        snapshots=snapshots,
        instance_id=instance.id,
        tool_id=instance.tool_id,
        tool_name=instance.tool_name,
        steps=tuple(steps),
        downloads=page.downloads,
        seconds=time.monotonic() - started,
    )


def _check(commands: list[str], uploads: dict[str, str], downloads: dict[str, str], secrets: dict[str, str]) -> None:
    """Refuse what cannot come to a good end, before anything is started."""
    for command in commands:
        as_text(command)
    for local, remote in [*uploads.items(), *((local, remote) for remote, local in downloads.items())]:
        check_values(local=local, remote=remote)
    missing = [local for local in uploads if not Path(local).exists()]
    if missing:
        raise ConfigurationError(f"uploads: no such file or directory: {', '.join(missing)}.")
    load_secrets(secrets)


def _run(sandbox: SandboxSession, command: str, options: dict[str, Any], retries: int, delay: float) -> ExecResult:
    """Run a command, again if it fails: each attempt is a step of its own, which a retry of the run finds again."""
    for left in range(retries, -1, -1):
        try:
            result = sandbox.run(command, **options)
            if result.ok or not left:
                return result
            told = f"exit code {result.exit_code}"
        except CommandTimeoutError as error:
            if not left:
                raise
            told = str(error).splitlines()[0]
        run_logger().warning("Again in %g s, %d of %d retries left: %s", delay, left, retries, told)
        time.sleep(delay)
    raise AssertionError("unreachable")


def _save(sandbox: SandboxSession, when: Literal["before", "after"]) -> str:
    saved = sandbox.snapshot(f"{when}-{sandbox.instance.id[:24]}")
    run_logger().info("Saved the disk %s the commands: snapshot %s", when, saved.id)
    return saved.id
