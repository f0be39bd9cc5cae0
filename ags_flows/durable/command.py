"""Durable commands: they belong to the sandbox, not to the process that started them.

A command is started once for a step and writes its output to files of a journal in the sandbox. A later attempt of the
step claims the same journal, reads the output from the beginning, and waits for the exit code. A poll lists one
directory, at intervals from 0.25 to 5 seconds. Lost connections are opened again. If the supervisor of a command ended
without an exit code, the outcome is unknown, and the command is never started again.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.durable.claims import NEEDS, remember, request_for, superseded
from ags_flows.durable.environment import directory_of, start_environment, unusable_directory
from ags_flows.durable.journal_output import JournalOutput
from ags_flows.durable.output import OnLine
from ags_flows.durable.scripts import (
    JOURNALS,
    LINGER,
    MARK,
    STALE,
    Limits,
    input_path,
    kill_script,
    look_script,
    start_script,
    upload_path,
)
from ags_flows.durable.uploads import uploaded_files
from ags_flows.durable.waiting import INTERRUPTIONS, PATIENCE, Repeat, Waiting, may_be_wrong, may_pass
from ags_flows.errors import (
    AGSFlowsError,
    CommandTimeoutError,
    NotFoundError,
    OutcomeUnknownError,
    OutputTooLargeError,
    UnsupportedError,
)
from ags_flows.models import ExecResult
from ags_flows.models.checks import LONGEST_VALUE
from ags_flows.ownership import Holder, Step

FIRST_INTERVAL = 0.25
LAST_INTERVAL = 5.0
GROWTH = 1.5
LARGEST_END = 1 << 16
"""Bytes of the file with the exit code that are read: a sandbox is not trusted."""

LOOK_AFTER = 20.0
"""Seconds without new output after which the supervisor is checked; also the interval of further checks."""

CALL_TIMEOUT = 30.0
MOST_OUTPUT = 8 << 30
"""Default for the most bytes that a command may write to both streams together, because disks are finite."""

VOLATILE_ENVIRONMENT = frozenset({"ITEM_INDEX"})
"""Variables that are not part of the step key: the index of an item changes when its list grows."""


@dataclass(frozen=True)
class Command:
    """A shell command.

    Attributes:
        text: The command line, executed by `bash -l`.
        user: `user` (default) or `root`.
        cwd: Working directory. Default: the user's home.
        env: Environment of the command. It is not written to the journal.
        stdin: Standard input. Default: empty.
        timeout: Seconds after which the whole process group is killed. None: no limit.
        most_output: Bytes of output after which the command is killed.
        linger: Seconds that the start waits for its end. A command that ends in time costs one request; the output of
            a longer one is read from then on.
        title: What stands for the text in errors and in the result, where it is not the caller's. Default: the text.
        more_time: What to do about a time limit that was reached.
        runner: Name of a process in the sandbox that executes it, if that is alive: see `ags_flows.functions.runner`.
    """

    text: str
    user: str | None = None
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes | None = None
    timeout: float | None = None
    most_output: int = MOST_OUTPUT
    linger: float = LINGER
    title: str = ""
    more_time: str = "Give it more time with timeout=..., in a new sandbox, or with another step=..."
    runner: str = ""

    @property
    def shown(self) -> str:
        """The command as a reader sees it."""
        return self.title or self.text

    def does(self, env: Mapping[str, str] | None = None, secrets: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the part of the command that belongs to its step key: without time limits and values of secrets.

        Args:
            env: The environment without secrets, if `self.env` has values of secrets.
            secrets: Variable name to the name of its Secret block.
        """
        return {
            "command": self.text,
            "user": self.user,
            "cwd": self.cwd,
            "env": {
                name: value
                for name, value in (self.env if env is None else env or {}).items()
                if name not in VOLATILE_ENVIRONMENT
            },
            "secrets": dict(secrets or {}),
            "stdin": None if self.stdin is None else hashlib.sha256(self.stdin).hexdigest(),
        }


@dataclass(frozen=True)
class Following:
    """Options for following a command.

    Attributes:
        on_line: Called with each line of output.
        on_note: Called with a sentence for the log, for example when the sandbox does not respond.
        cancelled: If this event is set, the wait ends within a second. The command continues.
        limit: Bytes of each stream that the result has: head and tail of longer output.
    """

    on_line: OnLine | None = None
    on_note: Callable[[str], None] = lambda text: None
    cancelled: threading.Event = field(default_factory=threading.Event)
    limit: int = 1 << 20


class DurableCommand:
    """One command in one sandbox, and the state of this process that follows it.

    Args:
        plane: The sandbox.
        command: The command.
        following: Options for following it.
        journal: Name of the journal, for a command that was started before.

    Attributes:
        journal: Name of the journal, once the command was started.
    """

    def __init__(
        self, plane: DataPlane, command: Command, following: Following | None = None, journal: str = ""
    ) -> None:
        self.journal = journal
        self._plane = plane
        self._command = command
        self._following = following or Following()
        self._waiting = Waiting(plane.instance_id, self._following.on_note, self._following.cancelled)
        self._output = JournalOutput(plane, self._waiting, command.user, self._following.limit, self._following.on_line)
        self._started = time.monotonic()
        self._directory = ""
        self._ended: str | None = None
        self._missed = 0.0
        self._holder: Holder | None = None

    @property
    def directory(self) -> str:
        """Path of the journal in the sandbox, once the command was started."""
        return self._directory

    def start(self, step: Step) -> DurableCommand:
        """Start the command for a step, or attach to the command that an earlier attempt started.

        A short command has ended when this method returns.

        Returns:
            This command.

        Raises:
            SupersededError: A later attempt of the same run has the command or the sandbox.
            InvalidRequestError: The command cannot start in its working directory.
            OutcomeUnknownError: The command was started before, and its supervisor ended without an exit code.
            UnsupportedError: The sandbox does not support journals.
            UnreachableError: The sandbox was unreachable for two minutes.
        """
        self._holder = step.holder
        command, call = self._command, step.holder.call
        text = command.text.encode()
        uploaded = upload_path(call) if len(text) > LONGEST_VALUE else ""
        stdin = input_path(call) if command.stdin is not None else ""
        files = {path: content or b"" for path, content in ((uploaded, text), (stdin, command.stdin)) if path}
        env = start_environment(None if uploaded else command.text, command.env, directory_of(command.cwd))
        limits = Limits(command.timeout or 0, command.most_output, command.linger)
        deadline = time.monotonic() + STALE * 2
        while True:
            request = request_for(self._plane, JOURNALS, step)
            script = start_script(request, limits, uploaded=uploaded, stdin=stdin, runner=command.runner)
            # Each start script deletes its uploaded input, so a repeated one needs it again.
            with uploaded_files(self._plane, self._waiting, files, command.user):
                state = self._ask(script, env)
            if state in ("missing", "closed"):
                raise unusable_directory(self._plane.instance_id, command.cwd, state)
            if state == "lost":
                raise self._unknown("its supervisor vanished without leaving an exit code")
            if state in ("started", "running", "done"):
                remember(self._plane, JOURNALS, step, self.journal)
                if state != "started":
                    over = "has ended" if state == "done" else "is still running"
                    self._following.on_note(f"Attached to the command that an earlier attempt started; it {over}.")
                return self
            if time.monotonic() > deadline:
                raise self._unknown("its start took too long")
            self._waiting.pause(1.0)

    def find(self, by: Holder | None = None) -> DurableCommand:
        """Find a command that was started before, by the name of its journal.

        Args:
            by: The holder that waits for it. None: the holder is not compared.

        Raises:
            OutcomeUnknownError: Its supervisor ended without an exit code, or it was never started.
            SupersededError: A later attempt of `by` has the sandbox or the command.
        """
        self._holder = by
        self._look("its supervisor vanished without leaving an exit code, or it was never started", may_pass)
        return self

    def wait(self) -> ExecResult:
        """Follow the command and return its outcome. Ctrl-C and a timeout of a Prefect task or flow kill the command.

        Returns:
            The outcome. An exit code other than 0 is a value. The journal with the whole output remains in the
            sandbox, at the path `result.journal`.

        Raises:
            CommandTimeoutError: The time limit was reached.
            OutputTooLargeError: It wrote more than `most_output`.
            OutcomeUnknownError: Its supervisor or its journal vanished. It may have run completely or partly.
            InstanceGoneError: The sandbox ended, or the wait was cancelled.
            UnreachableError: The sandbox was unreachable for two minutes. The command continues.
        """
        try:
            self._follow()
        except INTERRUPTIONS:
            try:
                self.kill(gives_up=True)
            except AGSFlowsError as error:
                self._following.on_note(f"The command could not be killed: {error}")
            raise
        return self._result()

    def kill(self, by: Holder | None = None, *, gives_up: bool = False) -> None:
        """Kill the command: TERM to its process group, then KILL to it and to what left it.

        Args:
            by: The holder that kills. Default: the call that started the command. If a later attempt of it holds the
                command, nothing is killed.
            gives_up: Whether a retry runs the command again. If not, it gets the exit code of the killed one.
        """
        script = kill_script(self.journal, by or self._holder, gives_up=gives_up)
        self._plane.script(script, user=self._command.user, timeout=CALL_TIMEOUT)

    def _follow(self) -> None:
        """Read the output until the command ends."""
        interval, last_output = FIRST_INTERVAL, time.monotonic()
        while self._ended is None:
            if not self._output.is_behind:
                self._waiting.pause(interval)
            if self._poll():
                interval, last_output = FIRST_INTERVAL, time.monotonic()
            else:
                interval = min(LAST_INTERVAL, interval * GROWTH)
                if time.monotonic() - last_output > LOOK_AFTER:
                    last_output = time.monotonic()
                    self._check_not_lost()
        self._output.close()

    def _check_not_lost(self) -> None:
        """Raise an error if the command has neither an end nor a supervisor, or no journal any more."""
        lost = "its supervisor or its journal vanished without leaving an exit code"
        self._look(lost, lambda error: may_be_wrong(error) or isinstance(error, NotFoundError))

    def _look(self, if_lost: str, repeat: Repeat) -> None:
        # The command may have removed the home, in which scripts start otherwise.
        if self._ask(look_script(self.journal, self._holder), {}, repeat, "/") == "lost":
            raise self._unknown(if_lost)

    def _result(self) -> ExecResult:
        """Return the outcome, or raise the error for the reason why it was killed."""
        command = self._command
        out, err = self._output.kept
        code, _, why = (self._ended or "").strip().partition(" ")
        if not code.isdecimal():
            raise self._unknown(f"its exit code is damaged ({self._ended!r})")
        result = ExecResult(
            command=command.shown,
            exit_code=int(code),
            stdout=out.text(),
            stderr=err.text(),
            stdout_size=out.size,
            stderr_size=err.size,
            truncated=out.truncated or err.truncated,
            seconds=time.monotonic() - self._started,
            instance_id=self._plane.instance_id,
            journal=self._directory,
        )
        if why.startswith("timeout"):
            # An earlier attempt may have set another limit.
            limit = why.partition(" ")[2] or f"{command.timeout or 0:g}"
            raise CommandTimeoutError(
                f"Command ran into its limit of {limit} s and was killed: {command.shown}.",
                hint=command.more_time,
                result=result,
            )
        if why.startswith("output"):
            # The sandbox may have allowed less, because a part of its disk is kept free.
            allowed = int(why.split()[1]) if why.split()[1:] else command.most_output
            raise OutputTooLargeError(
                f"Command wrote more than {allowed:,} bytes and was killed: {command.shown}.",
                hint="Redirect its output to a file in the sandbox and download that.",
            )
        return result

    def _poll(self) -> bool:
        """Read new output and return whether there was any. The command has ended when all of it was read."""
        try:
            moved = self._read()
        except NotFoundError:
            # A script in the sandbox knows better than one response of a gateway.
            self._check_not_lost()
            self._missed = self._missed or time.monotonic()
            if time.monotonic() - self._missed > PATIENCE:
                raise
            return False
        self._missed = 0.0
        return moved

    def _read(self) -> bool:
        user, path = self._command.user, self._directory

        def ending() -> bytes:
            return self._plane.read(f"{path}/rc", user=user, limit=LARGEST_END)

        entries = self._waiting.patiently(lambda: self._plane.list(path, user=user), may_be_wrong)
        sizes = {entry.name: entry.size for entry in entries}
        end = self._waiting.patiently(ending, may_be_wrong).decode() if sizes.get("rc") else None
        # The middle of the output of a command that was killed is skipped: its time is over.
        killed = end is not None and " " in end.strip()
        if not self._output.read(path, sizes, skips=killed):
            raise self._unknown("a file of its journal was truncated")
        if not self._output.is_behind:
            self._ended = end
        return self._output.has_moved

    def _ask(self, script: str, env: dict[str, str], repeat: Repeat = may_pass, cwd: str | None = None) -> str:
        """Run one of the journal's scripts, process its report, and return the command's state.

        Raises:
            SupersededError: A later attempt holds the journal.
            UnsupportedError: The script failed.
        """

        def ask() -> ExecResult:
            user = self._command.user
            return self._plane.run(
                script, user=user, cwd=cwd, env=env, timeout=CALL_TIMEOUT, limit=1 << 18, profile=False
            )

        response = self._waiting.patiently(ask, repeat)
        _, found, report = f"\n{response.stdout}".partition(f"\n{MARK} ")
        if not found:
            shown = (response.stderr or response.stdout).strip()[-500:]
            raise UnsupportedError(
                f"The sandbox {self._plane.instance_id} could not start the command (exit code {response.exit_code}): "
                f"{shown}",
                hint=NEEDS,
            )
        first, *parts = report.split(f"\n{MARK}-")
        state, _, _, self._directory = first.rstrip("\n").split(" ", 3)
        self.journal = self._directory.rpartition("/")[2]
        inline = {name: value.strip() for name, _, value in (part.partition(" ") for part in parts)}
        if state == "stale":
            raise superseded(self._plane.instance_id, inline["holder"])
        # The report has the whole output. Ignore it if a part was read before, so that no line is repeated.
        if "whole" in inline and not self._output.has_begun:
            self._output.take_whole({name: base64.b64decode(inline.get(name, "")) for name in ("out", "err")})
            self._ended = inline["rc"]
        return state

    def _unknown(self, why: str) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"It is not known whether the command in {self._plane.instance_id} has run: {why}. "
            f"It is not run again. Command: {self._command.shown}",
            hint=f"Look at {self._directory or 'the journal'} in the sandbox, or run the flow in a new one.",
        )
