"""Short commands without a journal: cheaper than durable ones, but lost if the connection is lost."""

from __future__ import annotations

from collections.abc import Callable

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.durable.claims import superseded
from ags_flows.durable.command import Command, directory_of, has_no_directory
from ags_flows.durable.scripts import (
    LONGEST_VALUE,
    NO_DIRECTORY,
    NO_DIRECTORY_MARK,
    SUPERSEDED_MARK,
    direct_script,
    start_environment,
)
from ags_flows.errors import ConfigurationError, OutcomeUnknownError, ServiceError, UnreachableError
from ags_flows.models import ExecResult
from ags_flows.ownership import Holder

DEFAULT_TIMEOUT = 60.0
OnPiece = Callable[[str], object]


def run_direct(
    plane: DataPlane,
    command: Command,
    holder: Holder,
    *,
    on_stdout: OnPiece | None = None,
    on_stderr: OnPiece | None = None,
    limit: int = 1 << 20,
) -> ExecResult:
    """Run a command and wait for it.

    Args:
        plane: The sandbox.
        command: The command. Its default time limit is 60 seconds.
        holder: The holder that runs it.
        on_stdout: Called with each received piece of stdout.
        on_stderr: Called with each received piece of stderr.
        limit: Bytes of each stream that the result has: head and tail of longer output.

    Raises:
        ConfigurationError: Command, input or environment is too long.
        OutcomeUnknownError: The connection was lost after the command was sent. The command may have run.
        CommandTimeoutError: The time limit was reached.
        SupersededError: A later attempt of the same run has the sandbox.
    """
    environment = start_environment(command.text, command.env, directory_of(command.cwd))
    if len(command.text.encode()) > LONGEST_VALUE:
        raise _too_long("command", len(command.text.encode()), LONGEST_VALUE)
    if command.stdin is not None:
        # Four characters a byte.
        if len(command.stdin) > LONGEST_VALUE // 4:
            raise _too_long("stdin", len(command.stdin), LONGEST_VALUE // 4)
        environment["AGS_FLOWS_INPUT"] = "".join(f"\\{byte:03o}" for byte in command.stdin)
    try:
        result = plane.run(
            direct_script(holder),
            user=command.user,
            env=environment,
            timeout=DEFAULT_TIMEOUT if command.timeout is None else command.timeout,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
            limit=limit,
            profile=False,
        )
    except (UnreachableError, ServiceError) as error:
        from ags_flows.cloud.sandbox_errors import was_never_sent

        if was_never_sent(error):
            raise
        raise OutcomeUnknownError(
            f"The connection to {plane.instance_id} was lost while a command ran. It may have run completely or "
            f"partly. Command: {command.text}",
            hint="Use durable=True, so that a retry finds the command.",
        ) from error
    if result.exit_code == NO_DIRECTORY and SUPERSEDED_MARK in result.stderr:
        raise superseded(plane.instance_id, result.stderr.partition(SUPERSEDED_MARK)[2].strip())
    if result.exit_code == NO_DIRECTORY and NO_DIRECTORY_MARK in result.stderr:
        raise has_no_directory(plane.instance_id, command)
    return result.model_copy(update={"command": command.text})


def _too_long(what: str, size: int, limit: int) -> ConfigurationError:
    return ConfigurationError(
        f"{what}: {size:,} bytes, more than the {limit:,} of a command that is not durable.",
        hint="Use durable=True, which has no such limit.",
    )
