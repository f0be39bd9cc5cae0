"""Durable commands: they belong to the sandbox, and whoever comes later finds them.

A command is started once under a key and writes its output to files of a journal in the sandbox. Whoever runs the same
key again attaches: reads the output from its start and waits for the exit code. Polling is one listing of a directory,
between a quarter of a second and five seconds apart; a connection that is lost is found again; a command whose
supervisor vanished without an exit code is an outcome of its own, and never started again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.durable.attachment import Attachment, Tell, kill
from ags_flows.models import ExecResult

MOST_OUTPUT = 8 << 30
"""The most bytes that a command may write to both streams together, unless another limit is given: disks are finite."""


def run_durable(
    plane: DataPlane,
    command: str,
    *,
    key: str,
    user: str | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout: float | None = None,
    on_line: Tell | None = None,
    on_note: Callable[[str], None] | None = None,
    cancelled: threading.Event | None = None,
    limit: int = 1 << 20,
    most_output: int = MOST_OUTPUT,
) -> ExecResult:
    """Run a command once in a sandbox, or attach to it when it was started before.

    Args:
        plane: The sandbox.
        command: Run by `bash -l`.
        key: Names the command in this sandbox: letters and digits.
        user: `user` (default) or `root`.
        cwd: Working directory, by default the user's home.
        env: Environment of the command; it is not written to the journal.
        stdin: What the command reads, by default nothing.
        timeout: Seconds from its start, then its whole process group is killed. None for no limit.
        on_line: Gets `stdout` or `stderr`, and a line of it, without its end.
        on_note: Gets a sentence when something happens that a reader of the log should know.
        cancelled: Ends the wait within a second when set, without touching the command.
        limit: How many bytes of each stream the result holds: head and tail of longer output.
        most_output: Bytes of output after which the command is killed.

    Returns:
        The outcome; an exit code other than 0 is a value. The journal, with the whole output, stays in the sandbox
        at `journal`.

    Raises:
        CommandTimeoutError: The time limit was reached.
        OutputTooLargeError: It wrote more than `most_output`.
        OutcomeUnknownError: Its supervisor, or its journal, vanished: it may have run, or run in part.
        ConflictError: Another command was started under this key.
        InstanceGoneError: The sandbox ended, or the wait was cancelled.
        UnreachableError: The sandbox could not be reached for two minutes; the command goes on.
    """
    attachment = Attachment(plane, command, key, user, on_line, on_note, cancelled, limit)
    attachment.start(cwd, dict(env or {}), stdin, timeout, most_output)
    return attachment.to_the_end(timeout, most_output)


def start_durable(
    plane: DataPlane,
    command: str,
    *,
    key: str,
    user: str | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout: float | None = None,
    on_note: Callable[[str], None] | None = None,
    most_output: int = MOST_OUTPUT,
) -> None:
    """Start a command once, and do not wait for it. Arguments and errors are those of `run_durable`."""
    attachment = Attachment(plane, command, key, user, None, on_note, None, 0)
    attachment.start(cwd, dict(env or {}), stdin, timeout, most_output)


def follow_durable(
    plane: DataPlane,
    command: str,
    *,
    key: str,
    user: str | None = None,
    timeout: float | None = None,
    on_line: Tell | None = None,
    on_note: Callable[[str], None] | None = None,
    cancelled: threading.Event | None = None,
    limit: int = 1 << 20,
    most_output: int = MOST_OUTPUT,
) -> ExecResult:
    """Attach to a command that was started before, and wait for it.

    Args, returns and errors are those of `run_durable`; `command` and `timeout` are only for messages.
    """
    attachment = Attachment(plane, command, key, user, on_line, on_note, cancelled, limit)
    attachment.find()
    return attachment.to_the_end(timeout, most_output)


def kill_durable(plane: DataPlane, key: str, *, user: str | None = None) -> None:
    """Kill a durable command: TERM to its process group, then KILL to it and to what left it."""
    kill(plane, key, user)
