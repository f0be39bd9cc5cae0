"""The task that runs a command in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping

from ags_flows.blocks import AGSConfig
from ags_flows.errors import CommandFailedError
from ags_flows.execution.journal import run_durable
from ags_flows.execution.planes import open_plane
from ags_flows.models import ExecResult, Instance
from ags_flows.redaction import Redactor
from ags_flows.tasks.caller import identify
from ags_flows.tasks.instances import instance_id
from ags_flows.tasks.logs import OutputLog, run_logger
from ags_flows.tasks.retries import sandbox_task
from ags_flows.tasks.secrets import load_secrets

DEFAULT_LIMIT = 1 << 20
SHOWN_OF_A_FAILURE = 2_000
DIRECT_TIMEOUT = 60.0


@sandbox_task("exec", "command")
def exec_command(
    instance: Instance | str,
    command: str,
    durable: bool = True,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: str | None = None,
    check: bool = False,
    limit: int = DEFAULT_LIMIT,
    log_output: bool = True,
    step: str = "",
    config: AGSConfig | None = None,
) -> ExecResult:
    """Run a shell command in a sandbox; its output streams into the run's log.

    A durable command (the default) belongs to the sandbox, not to this process: it runs on when the flow dies, and a
    retry of the task or of the flow run finds it, goes on with its output where it was, and never runs it a second
    time. `durable=False` is the direct path for short commands: cheaper, and lost when the connection is.

    Args:
        instance: The instance or its id.
        command: Run by `bash -l -c`.
        durable: See above.
        timeout: Seconds, then its whole process group is killed. Durable: None is no limit. Direct: 60 by default.
        env: Environment of the command.
        secrets: Environment of the command from Prefect Secret blocks: variable name to name of the block. The
            values are masked in the log and in the result.
        cwd: Working directory, by default the user's home.
        user: `user` (default) or `root`.
        check: Raise when the exit code is not 0.
        limit: How many bytes of each stream the result may hold; head and tail of longer output.
        log_output: Whether the output goes to the run's log.
        step: Tells identical calls in one flow run apart, where their order may change between attempts.
        config: Where AGS is; by default from the environment.

    Returns:
        The outcome. An exit code other than 0 is a value, unless `check=True`.

    Raises:
        CommandFailedError: With `check=True`, for an exit code other than 0.
        CommandTimeoutError: The time limit was reached.
        OutcomeUnknownError: It may have run, and nobody can know; it is not repeated.
        InstanceGoneError: The sandbox ended.

    Example:
        ```python
        result = exec_command(instance, "python etl.py --day 2026-11-22", timeout=3600)
        ```
    """
    config = config or AGSConfig()
    reference = instance_id(instance)
    plane, cancelled = open_plane(config.connection(), reference)
    hidden = load_secrets(secrets)
    redactor = Redactor(hidden.values())
    environment = {**(env or {}), **hidden}
    log = OutputLog(run_logger(), redactor) if log_output else None
    try:
        if durable:
            arguments = {"command": command, "cwd": cwd, "user": user, "env": environment}
            result = run_durable(
                plane,
                command,
                key=identify(f"exec_command/{step}", arguments).within(reference),
                user=user,
                cwd=cwd,
                env=environment,
                timeout=timeout,
                on_line=log,
                on_note=run_logger().info,
                cancelled=cancelled,
                limit=limit,
            )
        else:
            result = plane.run(
                command,
                user=user,
                cwd=cwd,
                env=environment,
                timeout=timeout or DIRECT_TIMEOUT,
                on_stdout=log.reader("stdout") if log else None,
                on_stderr=log.reader("stderr") if log else None,
                limit=limit,
            )
    finally:
        if log:
            log.close()
    result = result.model_copy(
        update={
            "command": redactor.text(command),
            "stdout": redactor.text(result.stdout),
            "stderr": redactor.text(result.stderr),
        }
    )
    if not result.ok:
        run_logger().warning("Exit code %s: %s", result.exit_code, result.command)
    return require_success(result) if check else result


def require_success(result: ExecResult) -> ExecResult:
    """Return the result.

    Raises:
        CommandFailedError: Its exit code is not 0.
    """
    if result.ok:
        return result
    told = (result.stderr or result.stdout).strip()[-SHOWN_OF_A_FAILURE:]
    raise CommandFailedError(
        f"Command ended with exit code {result.exit_code}: {result.command}" + (f"\n{told}" if told else ""),
        result=result,
    )
