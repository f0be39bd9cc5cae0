"""Short commands without a journal: cheaper than durable ones, but lost if the connection is lost."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.durable.claims import CALL_TIMEOUT, superseded
from ags_flows.durable.command import Command, Following
from ags_flows.durable.direct_scripts import direct_script, kill_script
from ags_flows.durable.environment import directory_of, start_environment, unusable_directory
from ags_flows.durable.waiting import INTERRUPTIONS, Waiting
from ags_flows.errors import (
    AGSFlowsError,
    CommandTimeoutError,
    ConfigurationError,
    OutcomeUnknownError,
    ServiceError,
    UnreachableError,
)
from ags_flows.models import ExecResult
from ags_flows.models.checks import LONGEST_VALUE
from ags_flows.ownership import Holder

DEFAULT_TIMEOUT = 60.0
LOOK_EVERY = 0.2
"""Seconds between two looks for an exception that Prefect raises in this thread: a read from a socket prevents it."""

MOST_KILLS = 5
"""Number of attempts to kill a command that was interrupted, perhaps before it began."""

OnPiece = Callable[[str], object]


def run_direct(
    plane: DataPlane,
    command: Command,
    holder: Holder,
    following: Following | None = None,
    *,
    on_stdout: OnPiece | None = None,
    on_stderr: OnPiece | None = None,
) -> ExecResult:
    """Run a command and wait for it. Ctrl-C and a timeout of a Prefect task or flow kill the command.

    Args:
        plane: The sandbox.
        command: The command. Its default time limit is 60 seconds.
        holder: The holder that runs it.
        following: Options for following it. Its `on_line` is not used.
        on_stdout: Called with each received piece of stdout.
        on_stderr: Called with each received piece of stderr.

    Raises:
        ConfigurationError: Command, input or environment is too long.
        InvalidRequestError: It cannot start in its working directory.
        OutcomeUnknownError: The connection was lost after the command was sent. The command may have run.
        CommandTimeoutError: The time limit was reached.
        SupersededError: A later attempt of the same run has the sandbox.
    """
    following = following or Following()
    if len(command.text.encode()) > LONGEST_VALUE:
        raise _too_long("command", len(command.text.encode()), LONGEST_VALUE)
    environment = start_environment(command.text, command.env, directory_of(command.cwd))
    if command.stdin is not None:
        # Four characters a byte.
        if len(command.stdin) > LONGEST_VALUE // 4:
            raise _too_long("stdin", len(command.stdin), LONGEST_VALUE // 4)
        environment["AGS_FLOWS_INPUT"] = "".join(f"\\{byte:03o}" for byte in command.stdin)
    refusal = _Refusal(on_stderr)

    def run() -> ExecResult:
        return plane.run(
            direct_script(holder, refusal.mark),
            user=command.user,
            env=environment,
            timeout=DEFAULT_TIMEOUT if command.timeout is None else command.timeout,
            on_stdout=on_stdout,
            on_stderr=refusal.take,
            limit=following.limit,
            profile=False,
        )

    call = _Call(run)
    try:
        result = call.wait(Waiting(plane.instance_id, following.on_note, following.cancelled))
    except (*INTERRUPTIONS, CommandTimeoutError):
        _kill(plane, command, holder, call, following)
        raise
    except (UnreachableError, ServiceError) as error:
        from ags_flows.cloud.sandbox_errors import was_never_sent

        if was_never_sent(error):
            raise
        raise OutcomeUnknownError(
            f"The connection to {plane.instance_id} was lost while a command ran. It may have run completely or "
            f"partly. Command: {command.text}",
            hint="Use durable=True, so that a retry finds the command.",
        ) from error
    finally:
        refusal.close()
    reason, _, theirs = refusal.reason.partition(" ")
    if reason == "superseded":
        raise superseded(plane.instance_id, theirs)
    if reason:
        raise unusable_directory(plane.instance_id, command.cwd, reason)
    return result.model_copy(update={"command": command.text})


class _Call:
    """A call in another thread, whose wait can be interrupted at any time.

    Args:
        work: What is called.
    """

    def __init__(self, work: Callable[[], ExecResult]) -> None:
        self._outcome: Future[ExecResult] = Future()
        self._work = work
        self._over = threading.Event()
        threading.Thread(target=copy_context().run, args=(self._run,), name="ags-direct", daemon=True).start()

    def _run(self) -> None:
        try:
            self._outcome.set_result(self._work())
        except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
            self._outcome.set_exception(error)
        self._over.set()

    def wait(self, waiting: Waiting) -> ExecResult:
        """Return the result, or raise the error."""
        while not self.is_over(LOOK_EVERY):
            waiting.check_cancelled()
        return self._outcome.result()

    def is_over(self, within: float) -> bool:
        """Return True if the call ends within some seconds."""
        return self._over.wait(within)


class _Refusal:
    """The reason why the script has not started the command: the first line of stderr, if that has the mark.

    Args:
        on_stderr: Gets all other output.

    Attributes:
        mark: Of this call alone.
        reason: The reason, empty if there is none.
    """

    def __init__(self, on_stderr: OnPiece | None) -> None:
        self.mark = f"@ags-{uuid.uuid4().hex}"
        self._on_stderr = on_stderr
        self._begun: str | None = ""

    @property
    def reason(self) -> str:
        """The reason, empty if the command was started."""
        return (self._begun or "").removeprefix(self.mark).strip() if self._is_refused else ""

    @property
    def _is_refused(self) -> bool:
        return (self._begun or "").startswith(self.mark)

    def take(self, piece: str) -> None:
        """Take a piece of stderr."""
        if self._begun is None:
            self._pass_on(piece)
            return
        self._begun += piece
        if not self._is_refused and not self.mark.startswith(self._begun):
            self.close()

    def close(self) -> None:
        """Pass on what may have been the start of a mark, and is not."""
        if self._begun is not None and not self._is_refused:
            begun, self._begun = self._begun, None
            self._pass_on(begun)

    def _pass_on(self, piece: str) -> None:
        if piece and self._on_stderr is not None:
            self._on_stderr(piece)


def _kill(plane: DataPlane, command: Command, holder: Holder, call: _Call, following: Following) -> None:
    """Kill an interrupted command with all that it has started, also if its start is still on its way."""
    with contextlib.suppress(AGSFlowsError):
        for _ in range(MOST_KILLS):
            plane.script(kill_script(holder), user=command.user, timeout=CALL_TIMEOUT)
            if call.is_over(1.0):
                return
    following.on_note("The command could not be killed, or something that it has started keeps its output open.")


def _too_long(what: str, size: int, limit: int) -> ConfigurationError:
    return ConfigurationError(
        f"{what}: {size:,} bytes, more than the {limit:,} of a command that is not durable.",
        hint="Use durable=True, which has no such limit.",
    )
