"""Interactive shells as steps of a flow."""

from __future__ import annotations

import json
import shlex
import time
from typing import Any

from swerex.exceptions import BashIncorrectSyntaxError, SessionExistsError, SwerexException
from swerex.exceptions import CommandTimeoutError as ShellTimeoutError
from swerex.runtime.abstract import (
    BashAction,
    BashInterruptAction,
    Command,
    CreateBashSessionRequest,
    Observation,
    WriteFileRequest,
)

from ags_flows.blocks import AGSConfig
from ags_flows.errors import AGSFlowsError, CommandTimeoutError, ConfigurationError, OutcomeUnknownError
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

JOURNAL = "/tmp/.ags_flows-swerex"

Outcome = dict[str, Any]

_unsent: set[tuple[str, str]] = set()
"""Sandboxes and steps that this process has claimed and could not send: a retry may."""


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
    arguments = {"command": command, "session": session}
    key = identify(f"run_in_shell/{step}", arguments).within(server.instance_id)
    result = wait_for(_once(connect(server, config), key, command, session, timeout))
    if result.stdout:
        run_logger().info("%s", result.stdout)
    return require_success(result) if check else result


async def _once(runtime: GatewayRuntime, key: str, command: str, session: str, timeout: float) -> ExecResult:
    """Run the command, unless the sandbox has its outcome already."""
    outcome = await _claim(runtime, key)
    if outcome is None:
        outcome = await _run(runtime, key, command, session, timeout)
        await runtime.write_file(WriteFileRequest(path=f"{JOURNAL}/{key}/outcome", content=json.dumps(outcome)))
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


async def _claim(runtime: GatewayRuntime, key: str) -> Outcome | None:
    """Return the outcome of an earlier attempt, None where this one is the first.

    Raises:
        OutcomeUnknownError: An earlier attempt began and left no outcome.
    """
    place = shlex.quote(f"{JOURNAL}/{key}")
    script = f"mkdir -p {JOURNAL} && if mkdir {place} 2>/dev/null; then echo new; else cat {place}/outcome; fi"
    told = await runtime.execute(Command(command=script, shell=True, timeout=30.0))
    if told.stdout.strip() == "new" or (runtime.instance_id, key) in _unsent:
        _unsent.discard((runtime.instance_id, key))
        return None
    try:
        found: Outcome = json.loads(told.stdout)
        return found
    except ValueError:
        raise OutcomeUnknownError(
            f"An earlier attempt ran this command in {runtime.instance_id} and did not see its end.",
            hint="Look into the sandbox, or run the step anew in a fresh one.",
        ) from None


async def _run(runtime: GatewayRuntime, key: str, command: str, session: str, timeout: float) -> Outcome:
    began = time.monotonic()
    try:
        # Otherwise SWE-ReX would raise for what is a value here.
        observed = await _send(
            runtime, key, BashAction(command=command, session=session, timeout=timeout, check="silent")
        )
    except ShellTimeoutError:
        return _outcome(await _interrupted(runtime, session), 124, began, timed_out=True)
    except BashIncorrectSyntaxError:
        await runtime.execute(Command(command=["rm", "-r", f"{JOURNAL}/{key}"], timeout=30.0))
        raise
    if observed.exit_code is None:
        raise OutcomeUnknownError(f"The shell in {runtime.instance_id} did not tell the exit code of: {command}")
    return _outcome(observed.output, observed.exit_code, began)


async def _send(runtime: GatewayRuntime, key: str, action: BashAction) -> Observation:
    """Run a command in its shell, which is opened by the first one."""
    try:
        try:
            await runtime.create_session(
                CreateBashSessionRequest(session=action.session, startup_timeout=SHELL_STARTUP)
            )
        except SessionExistsError:
            pass
        return await runtime.run_in_session(action)
    except AGSFlowsError as error:
        if error.retryable:
            # It did not arrive.
            _unsent.add((runtime.instance_id, key))
        raise


async def _interrupted(runtime: GatewayRuntime, session: str) -> str:
    """Interrupt what runs in a shell, so that the next command finds a prompt; return the output until then."""
    try:
        return str((await runtime.run_in_session(BashInterruptAction(session=session, timeout=1.0))).output)
    except SwerexException:
        return ""


def _outcome(output: str, exit_code: int, began: float, timed_out: bool = False) -> Outcome:
    seconds = time.monotonic() - began
    return {"output": output, "exit_code": exit_code, "seconds": seconds, "timed_out": timed_out}
