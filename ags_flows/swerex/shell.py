"""Interactive shells as steps of a flow."""

from __future__ import annotations

import json
import time
from typing import Any

from swerex.exceptions import BashIncorrectSyntaxError, SessionExistsError, SwerexException
from swerex.exceptions import CommandTimeoutError as ShellTimeoutError
from swerex.runtime.abstract import (
    BashAction,
    BashInterruptAction,
    CreateBashSessionRequest,
    Observation,
)

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.data_planes import open_plane
from ags_flows.durable.cells import Once
from ags_flows.errors import CommandTimeoutError, ConfigurationError, OutcomeUnknownError
from ags_flows.models import ExecResult
from ags_flows.run.holder import identify
from ags_flows.run.logs import run_logger
from ags_flows.run.task_options import sandbox_task
from ags_flows.swerex.own_loop import wait_for
from ags_flows.swerex.runtime import GatewayRuntime
from ags_flows.swerex.server import SwerexServer, connect
from ags_flows.tasks.commands import as_text, require_success

SHELL_STARTUP = 10.0
"""Seconds that a new shell may take: SWE-ReX's own second is short for a sandbox that has just begun."""

Outcome = dict[str, Any]


@sandbox_task("shell", "command")
def run_in_shell(
    server: SwerexServer,
    command: str,
    session: str = "default",
    timeout: float = 60.0,
    check: bool = False,
    step: str = "",
    config: AGSConfig | None = None,
) -> ExecResult:
    """Run a command in an interactive shell of a sandbox, which is opened by the first one.

    Directory, variables and functions live on from one step to the next. A step that was executed is not executed
    again by a retry in the same sandbox: it gets the outcome of the first time.

    Args:
        server: Of `swerex_session`.
        command: For bash.
        session: Which shell.
        timeout: Seconds; then the command is interrupted in the sandbox, as far as SWE-ReX can.
        check: Raise when the exit code is not 0.
        step: Tells identical calls in one flow run apart, where their order may change between attempts.
        config: Where AGS is; by default from the environment.

    Returns:
        The outcome; a shell has one stream for both kinds of output, which is in `stdout`.

    Raises:
        CommandFailedError: With `check=True`, for an exit code other than 0.
        CommandTimeoutError: The time limit was reached.
        BashIncorrectSyntaxError: Of SWE-ReX; nothing was executed.
        OutcomeUnknownError: The connection, or the step itself, was lost while the command ran.
        InstanceGoneError: The sandbox ended.

    Example:
        ```python
        run_in_shell(server, "cd /testbed && export MODE=fast")
        print(run_in_shell(server, "pwd; echo $MODE").stdout)
        ```
    """
    as_text(command)
    if not 0 < timeout < float("inf"):
        raise ConfigurationError(f"timeout={timeout!r}: seconds greater than 0 are needed.")
    if not session:
        raise ConfigurationError("session: it is empty.", hint="Give the shell a name, such as 'default'.")
    made = identify("run_in_shell", {"command": command, "session": session}, step=step)
    plane = open_plane((config or AGSConfig()).connection(), server.instance_id).plane
    runtime = connect(server, config)
    outcome, _ = Once(plane, "shell", made, refusals=(BashIncorrectSyntaxError,)).run(
        lambda: wait_for(_run(runtime, command, session, timeout)), json.dumps, json.loads
    )
    result = _result(runtime, command, timeout, outcome)
    if result.stdout:
        run_logger().info("%s", result.stdout)
    return require_success(result) if check else result


def _result(runtime: GatewayRuntime, command: str, timeout: float, outcome: Outcome) -> ExecResult:
    text = str(outcome["output"])
    result = ExecResult(
        command=command,
        exit_code=outcome["exit_code"],
        stdout=text,
        stdout_size=len(text.encode()),
        seconds=outcome["seconds"],
        instance_id=runtime.instance_id,
    )
    if outcome["timed_out"]:
        raise CommandTimeoutError(
            f"Command ran into its limit of {timeout:g} s: {command}", hint="Give it more time.", result=result
        )
    return result


async def _run(runtime: GatewayRuntime, command: str, session: str, timeout: float) -> Outcome:
    began = time.monotonic()
    try:
        # Otherwise SWE-ReX would raise for what is a value here.
        observed = await _send(runtime, BashAction(command=command, session=session, timeout=timeout, check="silent"))
    except ShellTimeoutError:
        return _outcome(await _interrupted(runtime, session), 124, began, timed_out=True)
    if observed.exit_code is None:
        raise OutcomeUnknownError(f"The shell in {runtime.instance_id} did not report the exit code of: {command}")
    return _outcome(observed.output, observed.exit_code, began)


async def _send(runtime: GatewayRuntime, action: BashAction) -> Observation:
    """Run a command in its shell, which is opened by the first one."""
    try:
        await runtime.create_session(CreateBashSessionRequest(session=action.session, startup_timeout=SHELL_STARTUP))
    except SessionExistsError:
        pass
    return await runtime.run_in_session(action)


async def _interrupted(runtime: GatewayRuntime, session: str) -> str:
    """Interrupt what runs in a shell, so that the next command finds a prompt; return the output until then."""
    try:
        return str((await runtime.run_in_session(BashInterruptAction(session=session, timeout=1.0))).output)
    except SwerexException:
        return ""


def _outcome(output: str, exit_code: int, began: float, timed_out: bool = False) -> Outcome:
    seconds = time.monotonic() - began
    return {"output": output, "exit_code": exit_code, "seconds": seconds, "timed_out": timed_out}
