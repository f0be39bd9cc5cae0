"""Tasks that run commands in a sandbox, in the foreground and in the background."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.cloud.data_planes import open_plane
from ags_flows.cloud.tracing import request_span
from ags_flows.durable.command import Command, DurableCommand, Following
from ags_flows.durable.direct import run_direct
from ags_flows.errors import CommandFailedError, CommandTimeoutError, ConfigurationError
from ags_flows.models import CommandHandle, ExecResult, Instance
from ags_flows.models.checks import check_command
from ags_flows.run.awaitable import flag_of_wait
from ags_flows.run.holder import identify
from ags_flows.run.logs import OutputLog, run_logger
from ags_flows.run.redaction import Redactor
from ags_flows.run.secrets import load_secrets, merged
from ags_flows.run.task_options import sandbox_task
from ags_flows.tasks.instances import instance_id

DEFAULT_LIMIT = 1 << 20
SHOWN_OF_A_COMMAND = 500
SHOWN_OF_A_FAILURE = 2_000


@sandbox_task("exec", "command")
def exec_command(
    instance: Instance | str,
    command: str | Sequence[str],
    durable: bool = True,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: str | None = None,
    stdin: str | bytes | None = None,
    background: bool = False,
    check: bool = False,
    limit: int = DEFAULT_LIMIT,
    log_output: bool = True,
    step: str = "",
    config: AGSConfig | str | None = None,
) -> ExecResult:
    """Run a command in a sandbox; its output streams into the run's log.

    A durable command (the default) belongs to the sandbox, not to this process: it runs on when the flow dies, and a
    retry of the task or of the flow run finds it, goes on with its output where it was, and never runs it a second
    time. `durable=False` is the direct path for short commands: cheaper, and lost when the connection is.

    Args:
        instance: The instance or its id.
        command: Run by `bash -l -c`; or a program and its arguments, which no shell interprets.
        durable: See above.
        timeout: Seconds, then its whole process group is killed. 0 means no limit. Default: no limit if it is durable,
            otherwise 60.
        env: Environment of the command: texts; numbers and booleans are converted (`true`, `false`).
        secrets: Environment of the command from Prefect Secret blocks: variable name to name of the block. The
            values are masked in the log, in the result and in errors.
        cwd: Working directory, by default the user's home.
        user: `user` (default) or `root`.
        stdin: What the command reads, by default nothing.
        background: Return a `CommandHandle` immediately, for `wait_command` and `kill_command`. For type checkers use
            `start_command`, which does the same and has this return type.
        check: Raise when the exit code is not 0.
        limit: How many bytes of each stream the result may hold; head and tail of longer output.
        log_output: Whether the output goes to the run's log.
        step: Distinguishes identical calls in one flow run whose order may change between attempts.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Returns:
        The outcome. An exit code other than 0 is a value, unless `check=True`.

    Raises:
        CommandFailedError: With `check=True`, for an exit code other than 0.
        CommandTimeoutError: The time limit was reached.
        OutcomeUnknownError: It may have run; it is not repeated.
        InstanceGoneError: The sandbox ended.

    Example:
        ```python
        result = exec_command(instance, "python3 etl.py --day 2026-11-22", timeout=3600)
        result = exec_command(instance, ["grep", "-c", "it's", "notes.txt"])
        ```
    """
    if background:
        if not durable:
            raise ConfigurationError("background: a command in the background is durable; got durable=False.")
        handle = start_command.fn(
            instance,
            command,
            timeout=timeout,
            env=env,
            secrets=secrets,
            cwd=cwd,
            user=user,
            stdin=stdin,
            step=step,
            config=config,
        )
        return cast(ExecResult, handle)
    text, env = as_text(command), env or {}
    reference = instance_id(instance)
    plane, cancelled = open_plane(resolve_config(config).connection(), reference)
    environment, hidden = merged(env, secrets)
    what = Command(text, user, cwd, environment, _as_bytes(stdin), timeout)
    with (
        request_span("ags.exec", instance=reference, durable=durable),
        _masked(hidden, log_output, text) as (log, note, mask),
    ):
        following = Following(log, note, flag_of_wait(cancelled), limit)
        if durable:
            made = identify("exec_command", what.does(env, secrets), step=step)
            result = DurableCommand(plane, what, following).start(made).wait()
        else:
            result = run_direct(
                plane,
                what,
                identify("exec_command", what.does(env, secrets), step=step).holder,
                following,
                on_stdout=log.reader("stdout") if log else None,
                on_stderr=log.reader("stderr") if log else None,
            )
        result = mask(result)
    return _checked(result, check)


@sandbox_task("start command", "command")
def start_command(
    instance: Instance | str,
    command: str | Sequence[str],
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: str | None = None,
    stdin: str | bytes | None = None,
    step: str = "",
    config: AGSConfig | str | None = None,
) -> CommandHandle:
    """Start a durable command in a sandbox and leave it to run in the background.

    A retry of the task or of the flow run does not start it a second time. The handle is a value: it survives in
    results of Prefect, and any process can wait for the command, or kill it. Arguments are those of `exec_command`.

    Example:
        ```python
        server = start_command(instance, "python3 -m http.server 8000")
        ...
        kill_command(server)
        ```
    """
    text, env = as_text(command), env or {}
    reference = instance_id(instance)
    plane, _ = open_plane(resolve_config(config).connection(), reference)
    environment, hidden = merged(env, secrets)
    redactor = Redactor(hidden.values())
    what = Command(text, user, cwd, environment, _as_bytes(stdin), timeout)
    with _masked(hidden, False, text) as (_, note, _):
        made = identify("exec_command", what.does(env, secrets), step=step)
        key = DurableCommand(plane, what, Following(on_note=note)).start(made).journal
    run_logger().info("Runs in the background of %s: %s", reference, redactor.text(text))
    return CommandHandle(
        instance_id=reference,
        key=key,
        command=redactor.text(text),
        user=user,
        timeout=timeout,
        secrets=dict(secrets or {}),
    )


@sandbox_task("wait for", "handle")
def wait_command(
    handle: CommandHandle,
    check: bool = False,
    limit: int = DEFAULT_LIMIT,
    log_output: bool = True,
    config: AGSConfig | str | None = None,
) -> ExecResult:
    """Wait for a command in the background; its whole output, from the start, goes to the run's log.

    Args:
        handle: Of `start_command`.
        check: Raise when the exit code is not 0.
        limit: How many bytes of each stream the result may hold; head and tail of longer output.
        log_output: Whether the output goes to the run's log.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Raises:
        CommandFailedError: With `check=True`, for an exit code other than 0.
        CommandTimeoutError: Its time limit was reached.
        OutcomeUnknownError: It vanished without an exit code.
        InstanceGoneError: The sandbox ended.

    Example:
        ```python
        handle = start_command(instance, "sleep 1; echo done")
        assert wait_command(handle).exit_code == 0
        ```
    """
    plane, cancelled = open_plane(resolve_config(config).connection(), handle.instance_id)
    hidden = load_secrets(handle.secrets)
    with (
        request_span("ags.wait", instance=handle.instance_id),
        _masked(hidden, log_output, handle.command) as (log, note, mask),
    ):
        following = Following(log, note, flag_of_wait(cancelled), limit)
        result = mask(
            DurableCommand(plane, _command_of(handle), following, handle.key)
            .find(identify("wait_command", handle.key).holder)
            .wait()
        )
    return _checked(result, check)


@sandbox_task("kill", "handle")
def kill_command(handle: CommandHandle, config: AGSConfig | str | None = None) -> None:
    """Kill a command in the background, with its whole process group; one that has ended is left alone.

    Args:
        handle: Of `start_command`.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Example:
        ```python
        kill_command(start_command(instance, "sleep 3600"))
        ```
    """
    plane, _ = open_plane(resolve_config(config).connection(), handle.instance_id)
    DurableCommand(plane, _command_of(handle), journal=handle.key).kill(identify("kill_command", handle.key).holder)


def require_success(result: ExecResult) -> ExecResult:
    """Return the result.

    Raises:
        CommandFailedError: Its exit code is not 0.
    """
    if result.ok:
        return result
    output = (result.stderr or result.stdout).strip()[-SHOWN_OF_A_FAILURE:]
    raise CommandFailedError(
        f"Command ended with exit code {result.exit_code}: {result.command}" + (f"\n{output}" if output else ""),
        result=result,
    )


def _command_of(handle: CommandHandle) -> Command:
    return Command(handle.command, handle.user, timeout=handle.timeout)


def as_text(command: str | Sequence[str]) -> str:
    """Return a command as a shell takes it.

    Raises:
        ConfigurationError: It is empty, or no program can be given it.
    """
    check_command(command)
    return command if isinstance(command, str) else shlex.join(command)


def _as_bytes(stdin: str | bytes | None) -> bytes | None:
    return stdin.encode() if isinstance(stdin, str) else stdin


@contextmanager
def _masked(
    hidden: Mapping[str, str], log_output: bool, text: str
) -> Iterator[tuple[OutputLog | None, Callable[[str], None], Callable[[ExecResult], ExecResult]]]:
    """Mask all that comes of a command: its lines in the log, notes, its result, and errors with their results.

    Args:
        hidden: The secrets.
        log_output: Whether output goes to the log.
        text: The command, which replaces the one that was sent in results and in messages of errors.

    Yields:
        The log of output if there is one, a function that logs a note, and a function that masks a result.
    """
    redactor = Redactor(hidden.values())
    logger = run_logger()
    log = OutputLog(logger, redactor) if log_output else None

    def note(message: str) -> None:
        logger.info("%s", redactor.text(message))

    def mask(result: ExecResult) -> ExecResult:
        return redactor.data(result.model_copy(update={"command": text}))

    try:
        with redactor.errors():
            try:
                yield log, note, mask
            except CommandTimeoutError as error:
                if error.result is not None:
                    # The direct path runs the command by a script.
                    error.message = error.message.replace(error.result.command, text)
                    error.args = (error.message,)
                    error.result = error.result.model_copy(update={"command": text})
                raise
    finally:
        if log:
            log.close()


def _checked(result: ExecResult, check: bool) -> ExecResult:
    """Log a failure, and raise it with `check`."""
    if not result.ok:
        run_logger().warning(
            "Exit code %s: %s", result.exit_code, " ".join(result.command.split())[:SHOWN_OF_A_COMMAND]
        )
    return require_success(result) if check else result
