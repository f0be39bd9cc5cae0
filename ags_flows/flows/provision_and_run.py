"""The main flow: commands in a dedicated sandbox, with files in and out."""

from typing import Annotated

from prefect import flow
from pydantic import Field

from ags_flows.blocks import ConfigChoice, resolve_config
from ags_flows.flows.hooks import stop_sandboxes, stop_sandboxes_if_asked
from ags_flows.flows.names import name_of_command
from ags_flows.flows.parameters import Pairs, Seconds, Text, Texts, ToolChoice, User
from ags_flows.job.engine import execute
from ags_flows.job.spec import JobSpec, Snapshots, commands_of
from ags_flows.models import RunReport
from ags_flows.session import OnCrash, OnFailure


@flow(
    name="provision-and-run",
    flow_run_name=name_of_command,
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
    config: ConfigChoice = "",
    secrets: Pairs = {},
    cwd: Text = "",
    user: User = "user",
    timeout: Seconds = 0.0,
    lease: Text = "",
    check: bool = True,
    on_failure: OnFailure = "stop",
    on_crash: OnCrash = "lease",
    delete_tool: bool | None = None,
    cpu: Text = "",
    memory: Text = "",
    retries: Annotated[int, Field(ge=0, le=100)] = 0,
    retry_delay: Annotated[float, Field(ge=0)] = 10.0,
    from_snapshot: Text = "",
    snapshot: Snapshots = "none",
    assets: Texts = [],
) -> RunReport:
    """Run one command, or several one after another, in a dedicated sandbox.

    A retry of the run goes on where the last attempt was: it takes over the live sandbox, attaches to the
    command if that still runs, and never runs one a second time in the same sandbox.

    Args:
        command: Run by `bash -l -c` in the sandbox. Of several the next is run when the last has succeeded.
        tool: A tool to create (deleted afterwards), or the name or id of an existing one (kept). Empty: the
            configuration's.
        uploads: Local path to path in the sandbox, as `{"etl.py": "etl.py"}`; a directory is taken whole.
        downloads: Path in the sandbox to local path, as `{"out": "results"}`; a directory is taken whole.
        env: Environment of the commands, as `{"MODE": "fast"}`; not for secrets.
        config: An AGS Config block, or its name. Empty: the environment of the process that executes the run.
        secrets: Environment from Prefect Secret blocks: variable name to name of the block, as
            `{"TOKEN": "warehouse-token"}`.
        cwd: Working directory in the sandbox. Empty: the user's home.
        user: The user that runs the commands, and in whose home relative paths begin.
        timeout: Seconds for each command, 0 for no limit.
        lease: How long the sandbox outlives this process if it dies, `30s` to `24h`. Empty: the configuration's.
        check: Fail the run when an exit code is not 0. Downloads are tried nevertheless.
        on_failure: What happens to the sandbox when the run or a command fails: `stop`, `keep`, `pause`.
        on_crash: What happens to the sandbox when this process is killed: left to a retry and to its `lease`, or
            `stop`, for runs that are never retried.
        delete_tool: By default true for a tool that this run created, unless its snapshots need it.
        cpu: Cores of the sandbox if they differ from the tool's, such as 2, 0.5 or 500m. Needs `memory` too.
        memory: Memory of the sandbox, such as 512Mi or 4Gi. Needs `cpu` too.
        retries: How often a command that failed, or took too long, is run again in the same sandbox. A run that
            lost its sandbox is for Prefect's own retries, which start another one.
        retry_delay: Seconds before that.
        from_snapshot: Id of a snapshot to start from, instead of a tool.
        snapshot: Save the sandbox's disk `before` the commands (uploads are there), `after` they have succeeded, or
            both. Snapshots stay until they are deleted; `reap` can do that.
        assets: Keys of the Prefect assets that the job produces, such as `s3://bucket/orders.parquet`. They are
            materialized when all commands have succeeded.

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
    spec = JobSpec(
        commands=commands_of(command),
        tool=tool or None,
        cpu=cpu,
        memory=memory,
        uploads=uploads,
        downloads=downloads,
        env=env,
        secrets=secrets,
        cwd=cwd or None,
        user=user,
        timeout=timeout or None,
        lease=lease or None,
        check=check,
        on_failure=on_failure,
        on_crash=on_crash,
        delete_tool=delete_tool,
        retries=retries,
        retry_delay=retry_delay,
        from_snapshot=from_snapshot or None,
        snapshot=snapshot,
        assets=tuple(assets),
    )
    return execute(spec, resolve_config(config))
