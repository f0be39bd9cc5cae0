"""Short commands without a journal: cheaper than durable ones, and lost when the connection is."""

from __future__ import annotations

from collections.abc import Callable

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.durable.claims import superseded
from ags_flows.durable.command import Command, has_no_directory
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
        command: What is run. Its time limit is 60 seconds by default.
        holder: Who runs it.
        on_stdout: Gets pieces of text as they arrive.
        on_stderr: The same for stderr.
        limit: How many bytes of each stream the result holds.

    Raises:
        ConfigurationError: Command and input are too long for this path.
        OutcomeUnknownError: The connection was lost after the command was sent: it may have run.
        CommandTimeoutError: The time limit was reached.
        SupersededError: A later attempt of the same run has the sandbox.
    """
    text = command.text if command.stdin is None else _with_input(command.text, command.stdin)
    if len(text.encode()) > LONGEST_VALUE:
        raise ConfigurationError(
            f"command: {len(text.encode()):,} bytes with its input, more than {LONGEST_VALUE:,}.",
            hint="Leave durable=True: longer ones are uploaded.",
        )
    try:
        result = plane.run(
            direct_script(holder),
            user=command.user,
            env=start_environment(text, command.env, command.cwd),
            timeout=command.timeout or DEFAULT_TIMEOUT,
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
            f"The connection to {plane.instance_id} was lost while a command ran: it may have run, or run in part. "
            f"Command: {command.text}",
            hint="Leave durable=True, so that a retry finds the command.",
        ) from error
    if result.exit_code == NO_DIRECTORY and SUPERSEDED_MARK in result.stderr:
        raise superseded(plane.instance_id, result.stderr.partition(SUPERSEDED_MARK)[2].strip())
    if result.exit_code == NO_DIRECTORY and NO_DIRECTORY_MARK in result.stderr:
        raise has_no_directory(plane.instance_id, command)
    return result.model_copy(update={"command": command.text})


def _with_input(command: str, stdin: bytes) -> str:
    """Return a command that reads its input from its own text."""
    octal = "".join(f"\\{byte:03o}" for byte in stdin)
    return f"exec < <(builtin printf '{octal}')\n{command}"
