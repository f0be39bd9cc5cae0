"""Durable commands: they belong to the sandbox, not to the process that started them.

A command is started once for a step and writes its output to files of a journal in the sandbox. A later attempt of the
step claims the same journal: it reads the output from its start and waits for the exit code. Polling is one listing of
a directory, between a quarter of a second and five seconds apart; a connection that is lost is found again; a command
whose supervisor vanished without an exit code is an outcome of its own, and never started again.
"""

from __future__ import annotations

import base64
import hashlib
import math
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.retry import Backoff, persistently
from ags_flows.durable.claims import NEEDS, remember, request_for, superseded
from ags_flows.durable.output import OnLine, OutputStream
from ags_flows.durable.scripts import (
    JOURNALS,
    LINGER,
    LONGEST_VALUE,
    MARK,
    STALE,
    Limits,
    input_path,
    kill_script,
    look_script,
    start_environment,
    start_script,
    upload_path,
)
from ags_flows.errors import (
    AGSFlowsError,
    CommandTimeoutError,
    InstanceGoneError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    OutputTooLargeError,
    UnsupportedError,
)
from ags_flows.models import ExecResult
from ags_flows.ownership import Holder, Step

FIRST_INTERVAL = 0.25
LAST_INTERVAL = 5.0
GROWTH = 1.5
LOOK_AFTER = 20.0
"""Seconds without news after which the supervisor is looked for, and from then on as often."""

PATIENCE = 120.0
"""Seconds of an unreachable sandbox after which the wait is given up; the command runs on, and can be attached to."""

CALL_TIMEOUT = 30.0
PIECE = 1 << 19
MOST_OUTPUT = 8 << 30
"""The most bytes that a command may write to both streams together, unless another limit is given: disks are finite."""

VOLATILE_ENVIRONMENT = frozenset({"ITEM_INDEX"})
"""Variables that are not a part of what a command does: the index of an item changes when its list grows."""

Response = TypeVar("Response")


@dataclass(frozen=True)
class Command:
    """What is run.

    Attributes:
        text: Run by `bash -l`.
        user: `user` (default) or `root`.
        cwd: Working directory, by default the user's home.
        env: Environment of the command; it is not written to the journal.
        stdin: What the command reads, by default nothing.
        timeout: Seconds from its start, then its whole process group is killed. None for no limit.
        most_output: Bytes of output after which the command is killed.
        linger: Seconds that the start waits for its end. A command that ends in time costs one request; the output of
            a longer one is read from then on.
        title: What stands for the text in errors and in the result, where it is not the caller's. Default: the text.
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

    @property
    def shown(self) -> str:
        """The command as a reader sees it."""
        return self.title or self.text

    def does(self, env: Mapping[str, str] | None = None, secrets: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return what the command does, for its step: time limits and values of secrets are no part of it.

        Args:
            env: The plain environment, where `self.env` has values of secrets too.
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


def has_no_directory(instance_id: str, command: Command) -> InvalidRequestError:
    """Return the error of a command whose directory does not exist."""
    return InvalidRequestError(
        f"cwd: there is no directory {command.cwd!r} in {instance_id}; the command was not started.",
        hint="Make it first, or give another one.",
    )


def _directory(cwd: str | None) -> str:
    """Return a working directory as the scripts take it, which begin in the user's home."""
    if cwd in (None, "", "~"):
        return ""
    return cwd[2:] or "." if cwd.startswith("~/") else cwd


@dataclass(frozen=True)
class Following:
    """How a command is followed.

    Attributes:
        on_line: Gets each line of output.
        on_note: Gets a sentence when something happens that a reader of the log should know.
        cancelled: Ends the wait within a second when set, without touching the command.
        limit: How many bytes of each stream the result holds: head and tail of longer output.
    """

    on_line: OnLine | None = None
    on_note: Callable[[str], None] = lambda text: None
    cancelled: threading.Event = field(default_factory=threading.Event)
    limit: int = 1 << 20


class DurableCommand:
    """One command in one sandbox, and how this process follows it.

    Args:
        plane: The sandbox.
        command: What is run.
        following: How it is followed.
        journal: The journal's name, of a command that was started before.

    Attributes:
        journal: The journal's name, once the command was started.
    """

    def __init__(
        self, plane: DataPlane, command: Command, following: Following | None = None, journal: str = ""
    ) -> None:
        self.journal = journal
        self._plane = plane
        self._command = command
        self._following = following or Following()
        self._streams = {
            name: OutputStream(name, self._following.limit, self._following.on_line) for name in ("stdout", "stderr")
        }
        self._started = time.monotonic()
        self._directory = ""
        self._ended: str | None = None
        self._ranges = True
        self._holder: Holder | None = None

    @property
    def directory(self) -> str:
        """Path of the journal in the sandbox, once the command was started."""
        return self._directory

    def start(self, step: Step) -> DurableCommand:
        """Start the command for a step, or find what an earlier attempt started; short ones are over on return.

        Returns:
            This command.

        Raises:
            SupersededError: A later attempt of the same run has the command, or the sandbox.
            OutcomeUnknownError: It was started before, and its supervisor vanished.
            UnsupportedError: The sandbox cannot hold a journal.
            UnreachableError: The sandbox could not be reached for two minutes.
        """
        self._holder = step.holder
        command, call = self._command, step.holder.call
        uploaded = upload_path(call) if len(command.text.encode()) > LONGEST_VALUE else ""
        stdin = input_path(call) if command.stdin is not None else ""
        env = start_environment(None if uploaded else command.text, command.env, _directory(command.cwd))
        limits = Limits(math.ceil(command.timeout or 0), command.most_output, command.linger)
        deadline = time.monotonic() + STALE * 2
        while True:
            # Each start takes its input along: a repeated one needs it again.
            if uploaded:
                self._patiently(lambda: self._plane.write(uploaded, command.text.encode(), user=command.user))
            if stdin:
                self._patiently(lambda: self._plane.write(stdin, command.stdin or b"", user=command.user))
            request = request_for(self._plane, JOURNALS, step)
            state = self._ask(start_script(request, limits, uploaded=uploaded, stdin=stdin), env)
            if state == "missing":
                raise has_no_directory(self._plane.instance_id, command)
            if state == "lost":
                raise self._unknown("its supervisor vanished without leaving an exit code")
            if state in ("started", "running", "done"):
                remember(self._plane, JOURNALS, step, self.journal)
                if state != "started":
                    over = "has ended" if state == "done" else "still runs"
                    self._following.on_note(f"Attached to the command that an earlier attempt started; it {over}.")
                return self
            if time.monotonic() > deadline:
                raise self._unknown("it was being started for too long")
            self._pause(1.0)

    def find(self, by: Holder | None = None) -> DurableCommand:
        """Find a command that was started before, by its journal's name.

        Args:
            by: Who waits for it.

        Raises:
            OutcomeUnknownError: It vanished, or it was never started.
            SupersededError: A later attempt of `by` has the sandbox, or the command.
        """
        self._holder = by
        if self._ask(look_script(self.journal, by), {}) == "lost":
            raise self._unknown("its supervisor vanished without leaving an exit code, or it never was started")
        return self

    def wait(self) -> ExecResult:
        """Follow the command and return its outcome; Ctrl-C, and a time limit of Prefect's, kill it.

        Returns:
            The outcome; an exit code other than 0 is a value. The journal, with the whole output, stays in the
            sandbox at `journal`.

        Raises:
            CommandTimeoutError: The time limit was reached.
            OutputTooLargeError: It wrote more than `most_output`.
            OutcomeUnknownError: Its supervisor, or its journal, vanished: it may have run, or run in part.
            InstanceGoneError: The sandbox ended, or the wait was cancelled.
            UnreachableError: The sandbox could not be reached for two minutes; the command goes on.
        """
        try:
            self._follow()
        except (KeyboardInterrupt, GeneratorExit, CancelledError, TimeoutError):
            # Prefect's time limit of a task or a flow arrives as one of the last two.
            try:
                self.kill()
            except AGSFlowsError as error:
                self._following.on_note(f"The command could not be killed: {error}")
            raise
        return self._result()

    def kill(self, by: Holder | None = None) -> None:
        """Kill the command: TERM to its process group, then KILL to it and to what left it.

        Args:
            by: Who kills; by default the call that started the command. Nothing is killed if a later attempt of it
                holds the command.
        """
        holder = by or self._holder
        self._plane.script(kill_script(self.journal, holder), user=self._command.user, timeout=CALL_TIMEOUT)

    def _follow(self) -> None:
        """Read output and wait for the end."""
        interval, news = FIRST_INTERVAL, time.monotonic()
        while self._ended is None:
            self._pause(interval)
            if self._poll():
                interval, news = FIRST_INTERVAL, time.monotonic()
            else:
                interval = min(LAST_INTERVAL, interval * GROWTH)
                if time.monotonic() - news > LOOK_AFTER:
                    news = time.monotonic()
                    if self._ask(look_script(self.journal, self._holder), {}) == "lost":
                        raise self._unknown("its supervisor vanished without leaving an exit code")
            if self._ended is not None:
                for stream in self._streams.values():
                    stream.take(b"", final=True)

    def _result(self) -> ExecResult:
        """Return the outcome, or raise what the reason of its end stands for."""
        command = self._command
        out, err = self._streams["stdout"].kept, self._streams["stderr"].kept
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
            # An earlier attempt may have given another limit.
            limit = why.partition(" ")[2] or f"{command.timeout or 0:g}"
            raise CommandTimeoutError(
                f"Command ran into its limit of {limit} s and was killed: {command.shown}",
                hint="Give it more time with timeout=..., in a new sandbox, or with another step=...",
                result=result,
            )
        if why.startswith("output"):
            # The sandbox may have allowed less: a part of its disk stays free.
            allowed = int(why.split()[1]) if why.split()[1:] else command.most_output
            raise OutputTooLargeError(
                f"Command wrote more than {allowed:,} bytes and was killed: {command.shown}",
                hint="Redirect its output to a file in the sandbox and download that.",
            )
        return result

    def _poll(self) -> bool:
        """Read what is new; return whether there was anything. The end is seen before the last bytes are read."""
        user = self._command.user

        def listing() -> dict[str, int]:
            return {entry.name: entry.size for entry in self._plane.list(self._directory, user=user)}

        try:
            sizes = self._patiently(listing)
        except NotFoundError as error:
            raise self._unknown("its journal was removed") from error
        moved = self._read(self._streams["stdout"], "out", sizes.get("out", 0))
        moved |= self._read(self._streams["stderr"], "err", sizes.get("err", 0))
        if sizes.get("rc"):
            path = f"{self._directory}/rc"
            self._ended = self._patiently(lambda: self._plane.read(path, user=user)).decode()
        return moved

    def _read(self, stream: OutputStream, name: str, size: int) -> bool:
        moved = stream.offset < size
        while stream.offset < size:
            piece = self._patiently(lambda: self._piece(f"{self._directory}/{name}", stream.offset))
            if not piece:
                raise self._unknown(f"the file {name} of its journal was cut")
            stream.take(piece)
            self._check_cancelled()
        return moved

    def _piece(self, path: str, offset: int) -> bytes:
        if self._ranges:
            piece = self._plane.read_range(path, offset, PIECE, user=self._command.user)
            if piece is not None:
                return piece
            self._ranges = False
        # No ranges here: base64 keeps bytes whole that are not UTF-8.
        text = self._plane.run(
            f"tail -c +{offset + 1} {path} | head -c {PIECE} | base64 | tr -d '\\n'",
            user=self._command.user,
            timeout=CALL_TIMEOUT,
            limit=PIECE * 2,
            profile=False,
        ).stdout
        return base64.b64decode(text)

    def _ask(self, script: str, env: dict[str, str]) -> str:
        """Run one of the journal's scripts, take in what it reports, and return the command's state.

        Raises:
            SupersededError: A later attempt holds the journal.
        """

        def ask() -> ExecResult:
            user = self._command.user
            return self._plane.run(script, user=user, env=env, timeout=CALL_TIMEOUT, limit=1 << 18, profile=False)

        response = self._patiently(ask)
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
        # A late look has the output from its start: what was read before is not taken again.
        if "whole" in inline and not any(stream.offset for stream in self._streams.values()):
            for name, stream in (("out", self._streams["stdout"]), ("err", self._streams["stderr"])):
                stream.take(base64.b64decode(inline.get(name, "")), final=True)
            self._ended = inline["rc"]
        return state

    def _patiently(self, action: Callable[[], Response]) -> Response:
        """Do what is safe to repeat, over and over, until the sandbox responds or patience is exhausted."""
        lost: list[float] = []

        def on_failure(error: AGSFlowsError) -> None:
            if not lost:
                lost.append(time.monotonic())
                self._following.on_note(f"The sandbox does not respond; trying again. {error}")

        response = persistently(
            action,
            Backoff(attempts=None, patience=PATIENCE, first_pause=0.5, longest_pause=10.0),
            repeat=lambda error: error.retryable or isinstance(error, CommandTimeoutError),
            on_failure=on_failure,
            sleep=self._pause,
        )
        if lost:
            self._following.on_note(f"The sandbox responds again after {time.monotonic() - lost[0]:.0f} s.")
        return response

    def _pause(self, seconds: float) -> None:
        self._following.cancelled.wait(seconds)
        self._check_cancelled()

    def _check_cancelled(self) -> None:
        if self._following.cancelled.is_set():
            raise getattr(self._following.cancelled, "reason", None) or InstanceGoneError(
                f"The wait for the command in {self._plane.instance_id} was ended: the sandbox is being stopped."
            )

    def _unknown(self, why: str) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"It is not known whether the command in {self._plane.instance_id} has run: {why}. "
            f"It is not run again. Command: {self._command.shown}",
            hint=f"Look at {self._directory or 'the journal'} in the sandbox, or run the flow in a new one.",
        )
