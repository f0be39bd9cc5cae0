"""Interactive shells as steps of a flow."""

from __future__ import annotations

import functools
import json
import time
import uuid
from typing import Any

from swerex.exceptions import (
    BashIncorrectSyntaxError,
    SessionDoesNotExistError,
    SessionExistsError,
    SwerexException,
)
from swerex.exceptions import CommandTimeoutError as ShellTimeoutError
from swerex.runtime.abstract import (
    BashAction,
    BashInterruptAction,
    CloseBashSessionRequest,
    CreateBashSessionRequest,
    Observation,
    ReadFileRequest,
    WriteFileRequest,
)

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.cloud.data_planes import open_plane
from ags_flows.durable.cells import Once
from ags_flows.errors import AGSFlowsError, CommandTimeoutError, OutcomeUnknownError, ServiceError, UnsupportedError
from ags_flows.models import ExecResult
from ags_flows.models.checks import check_name, check_seconds
from ags_flows.models.rules import one_of
from ags_flows.run.holder import identify
from ags_flows.run.logs import run_logger
from ags_flows.run.task_options import sandbox_task
from ags_flows.swerex.own_loop import wait_for
from ags_flows.swerex.runtime import GatewayRuntime
from ags_flows.swerex.server import SwerexServer, connect
from ags_flows.swerex.step_script import StepEnd, read_end, step_line
from ags_flows.tasks.commands import require_success

SHELL_STARTUP = 10.0
"""Seconds that a new shell may take: SWE-ReX's own second is short for a sandbox that has just begun."""

Outcome = dict[str, Any]


@sandbox_task(
    "shell",
    "command",
    server=one_of(SwerexServer),
    session=check_name,
    timeout=functools.partial(check_seconds, positive=True),
)
def run_in_shell(
    server: SwerexServer,
    command: str,
    session: str = "default",
    timeout: float = 60.0,
    check: bool = False,
    step: str = "",
    config: AGSConfig | str | None = None,
) -> ExecResult:
    """Run a command in an interactive shell of a sandbox, which is opened by the first one.

    Directory, variables and functions live on from one step to the next. A command reads no input. One that ends its
    shell (`exit`, `set -e`) has the shell's exit code, and the next step opens a new shell. A step that was
    executed is not executed again by a retry in the same sandbox: it gets the outcome of the first time.

    Args:
        server: Of `swerex_session`.
        command: For bash.
        session: Which shell.
        timeout: Seconds; then SWE-ReX tries to interrupt the command in the sandbox.
        check: Raise when the exit code is not 0.
        step: Distinguishes identical calls in one flow run whose order may change between attempts.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Returns:
        The outcome; a shell has one stream for both kinds of output, which is in `stdout`.

    Raises:
        CommandFailedError: With `check=True`, for an exit code other than 0.
        CommandTimeoutError: The time limit was reached.
        BashIncorrectSyntaxError: Of SWE-ReX; nothing was executed.
        OutcomeUnknownError: The connection, the step or the shell was lost while the command ran.
        InstanceGoneError: The sandbox ended.

    Example:
        ```python
        run_in_shell(server, "cd /testbed && export MODE=fast")
        print(run_in_shell(server, "pwd; echo $MODE").stdout)
        ```
    """
    made = identify("run_in_shell", {"command": command, "session": session}, step=step)
    plane = open_plane(resolve_config(config).connection(), server.instance_id).plane
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
            f"Command ran into its limit of {timeout:g} s: {command}",
            hint="Give it more time, or redirect long output to a file: a terminal is slow. A program that waits for "
            "input gets none: pass it as options.",
            result=result,
        )
    return result


async def _run(runtime: GatewayRuntime, command: str, session: str, timeout: float) -> Outcome:
    """Run a command in a shell, and in a new one if an earlier step has left a shell that does not take it."""
    began, mark = time.monotonic(), f"ags-step-{uuid.uuid4().hex}"
    file = f"/tmp/.{mark}"
    try:
        await runtime.write_file(WriteFileRequest(path=file, content=command))
    except (SwerexException, OSError) as error:
        raise ServiceError(
            f"The command cannot be written to {file} in {runtime.instance_id} ({_reason(error)}).",
            hint="Nothing was executed. Look at the disk of the sandbox.",
        ) from error
    # `ignore`: the step prints its exit code itself, and SWE-ReX would remove its own markers from the output.
    action = BashAction(command=step_line(file, mark), session=session, timeout=timeout, check="ignore")
    for _ in range(2):
        try:
            observed = await _send(runtime, action)
        except ShellTimeoutError:
            output = await _interrupted(runtime, session)
            if await _is_begun(runtime, file) or await _close(runtime, session, file):
                return _outcome(output, 124, began, timed_out=True)
            reason = "it did not respond"
        except (SwerexException, OSError) as error:
            reason = f"its shell ended without an exit code ({_reason(error)})"
            if await _close(runtime, session, file):
                raise _unknown(runtime, command, reason) from error
        else:
            end = read_end(str(observed.output), mark)
            if end is not None:
                return await _ended(runtime, command, session, began, end)
            reason = (
                "its shell was interrupted, or cannot report the end of the command, or the output has the word "
                "SHELLPS1PREFIX, the prompt of SWE-ReX"
            )
            if await _close(runtime, session, file):
                raise _unknown(runtime, command, reason)
        run_logger().warning("The shell %r did not take the command: it runs in a new shell.", session)
    raise UnsupportedError(
        f"A new shell in {runtime.instance_id} did not take the command: {reason}.",
        hint="Nothing was executed. Look at the files that bash reads at its start (~/.bashrc).",
    )


async def _ended(runtime: GatewayRuntime, command: str, session: str, began: float, end: StepEnd) -> Outcome:
    if end.exit_code is None:
        raise BashIncorrectSyntaxError(f"The command is not correct bash: {command!r}\n{end.output.strip()}")
    if end.shell_ended:
        await _close(runtime, session)
        run_logger().warning(
            "The command ended its shell %r (exit code %s): the next step opens a new one. Write (exit 1) to keep it.",
            session,
            end.exit_code,
        )
    if end.is_spoiled:
        await _close(runtime, session)
        run_logger().warning(
            "The command has disabled builtins of the shell %r that steps need, or made its variables PS1 or ags_* "
            "read-only: the next step opens a new shell.",
            session,
        )
    return _outcome(end.output, end.exit_code, began)


def _reason(error: Exception) -> str:
    """Return an error of SWE-ReX without the object of its terminal, whose text follows in many lines."""
    return " ".join(str(error).partition("<pexpect")[0].split())[:200].rstrip(".")


def _unknown(runtime: GatewayRuntime, command: str, reason: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"The outcome of a command in {runtime.instance_id} is unknown: {reason}: {command}",
        hint="The next step opens a new shell. A command must not replace, interrupt or kill its shell "
        "('exec', 'kill $$'), and not end it in the step in which it sets a trap on EXIT.",
    )


async def _close(runtime: GatewayRuntime, session: str, file: str = "") -> bool:
    """Close a shell that ended, or that is out of step with SWE-ReX, so that the next step opens a new one.

    Returns:
        Whether the shell may have begun the command of the file.
    """
    try:
        await runtime.close_session(CloseBashSessionRequest(session=session))
    except SessionDoesNotExistError:
        pass
    except (SwerexException, OSError):
        return True
    return not file or await _is_begun(runtime, file)


async def _is_begun(runtime: GatewayRuntime, file: str) -> bool:
    """Return whether a shell may have begun the command of a file: it removes it."""
    try:
        return not (await runtime.read_file(ReadFileRequest(path=file, encoding="latin-1"))).content
    except (SwerexException, OSError, AGSFlowsError):
        return True


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
    except (SwerexException, OSError):
        # It does not respond: what it has of directory and variables is lost, but the next step works.
        await _close(runtime, session)
        return ""


def _outcome(output: str, exit_code: int, began: float, timed_out: bool = False) -> Outcome:
    seconds = time.monotonic() - began
    return {"output": output, "exit_code": exit_code, "seconds": seconds, "timed_out": timed_out}
