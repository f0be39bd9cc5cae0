"""One attachment to one durable command: start it or find it, read its output, wait for its exit code."""

from __future__ import annotations

import base64
import codecs
import hashlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.head_and_tail import HeadAndTail
from ags_flows.durable.scripts import (
    LONGEST_VALUE,
    MARK,
    STALE,
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
    ConflictError,
    InstanceGoneError,
    NotFoundError,
    OutcomeUnknownError,
    OutputTooLargeError,
    ServiceError,
)
from ags_flows.models import ExecResult

FIRST_INTERVAL = 0.25
LAST_INTERVAL = 5.0
GROWTH = 1.5
LOOK_AFTER = 20.0
"""Seconds without news after which the supervisor is asked for, and from then on as often."""

PATIENCE = 120.0
"""Seconds of an unreachable sandbox after which the wait is given up; the command runs on, and can be attached to."""

CALL_TIMEOUT = 30.0
PIECE = 1 << 19
LONGEST_LINE = 1 << 16

Tell = Callable[[str, str], None]
Answer = TypeVar("Answer")


@dataclass
class _Stream:
    """One stream of the command: how far it is read, and the line that has no end yet."""

    name: str
    kept: HeadAndTail
    tell: Tell | None
    offset: int = 0
    unfinished: str = ""
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )

    def take(self, piece: bytes, final: bool = False) -> None:
        self.offset += len(piece)
        self.kept.add(piece)
        if self.tell is None:
            return
        text = self.unfinished + self.decoder.decode(piece, final)
        *lines, rest = text.split("\n")
        while len(rest) > LONGEST_LINE:
            lines.append(rest[:LONGEST_LINE])
            rest = rest[LONGEST_LINE:]
        if final and rest:
            lines.append(rest)
            rest = ""
        self.unfinished = rest
        for line in lines:
            self.tell(self.name, line.rstrip("\r"))


class Attachment:
    """One attachment to one durable command. Arguments are those of `ags_flows.durable.command.run_durable`."""

    def __init__(
        self,
        plane: DataPlane,
        command: str,
        key: str,
        user: str | None,
        on_line: Tell | None,
        on_note: Callable[[str], None] | None,
        cancelled: threading.Event | None,
        limit: int,
    ) -> None:
        """Ask nothing yet."""
        self._plane = plane
        self._command = command
        self._key = key
        self._user = user
        self._note = on_note or (lambda _text: None)
        self._cancelled = cancelled or threading.Event()
        self._streams = {name: _Stream(name, HeadAndTail(limit), on_line) for name in ("stdout", "stderr")}
        self._started = time.monotonic()
        self._directory = ""
        self._ended: str | None = None
        self._ranges = True

    def start(
        self, cwd: str | None, env: dict[str, str], stdin: bytes | None, timeout: float | None, most_output: int
    ) -> None:
        """Start the command, or find it; short ones are over when this returns."""
        text = self._command if stdin is None else self._feed(stdin)
        uploaded = len(text.encode()) > LONGEST_VALUE
        if uploaded:
            self._plane.write(upload_path(self._key), text.encode(), user=self._user)
        sha = hashlib.sha256(text.encode()).hexdigest()
        script = start_script(self._key, sha, uploaded=uploaded, seconds=math.ceil(timeout or 0), output=most_output)
        env = start_environment(None if uploaded else text, env)
        deadline = time.monotonic() + STALE * 2
        while True:
            state = self._ask(script, cwd, env)
            if state == "conflict":
                raise ConflictError(
                    f"Another command was started under the key {self._key}.", hint="Give this one another step."
                )
            if state == "lost":
                raise self._unknown("its supervisor vanished without leaving an exit code")
            if state in ("started", "running", "done"):
                if state != "started":
                    over = "has ended" if state == "done" else "still runs"
                    self._note(f"Attached to the command that an earlier attempt started; it {over}.")
                    if stdin is not None:
                        self._plane.remove(input_path(self._key), user=self._user)
                return
            if time.monotonic() > deadline:
                raise self._unknown("it was being started for too long")
            self._pause(1.0)

    def find(self) -> None:
        """Find a command that was started before."""
        if self._ask(look_script(self._key), None, {}) == "lost":
            raise self._unknown("its supervisor vanished without leaving an exit code, or it never was started")

    def to_the_end(self, timeout: float | None, most_output: int) -> ExecResult:
        """Follow the command and return its outcome; Ctrl-C reaches it."""
        try:
            self._follow()
        except (KeyboardInterrupt, GeneratorExit):
            kill(self._plane, self._key, self._user)
            raise
        return self._result(timeout, most_output)

    def _feed(self, stdin: bytes) -> str:
        """Upload what the command reads; return the command that opens it first and leaves nothing of it behind."""
        path = input_path(self._key)
        self._plane.write(path, stdin, user=self._user)
        return f"exec <{path} && rm -f {path}\n{self._command}"

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
                    if self._ask(look_script(self._key), None, {}) == "lost":
                        raise self._unknown("its supervisor vanished without leaving an exit code")
            if self._ended is not None:
                for stream in self._streams.values():
                    stream.take(b"", final=True)

    def _result(self, timeout: float | None, most_output: int) -> ExecResult:
        """Return the outcome, or raise what the reason of its end says."""
        out, err = self._streams["stdout"].kept, self._streams["stderr"].kept
        code, _, why = (self._ended or "").strip().partition(" ")
        if not code.isdecimal():
            raise self._unknown(f"its exit code is damaged ({self._ended!r})")
        result = ExecResult(
            command=self._command,
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
        if why == "timeout":
            raise CommandTimeoutError(
                f"Command ran into its limit of {timeout or 0:g} s and was killed: {self._command}",
                hint="Give it more time with timeout=...",
                result=result,
            )
        if why.startswith("output"):
            # The sandbox may have allowed less: a part of its disk stays free.
            allowed = int(why.split()[1]) if why.split()[1:] else most_output
            raise OutputTooLargeError(
                f"Command wrote more than {allowed:,} bytes and was killed: {self._command}",
                hint="Redirect its output to a file in the sandbox and download that.",
            )
        return result

    def _poll(self) -> bool:
        """Read what is new; return whether there was anything. The end is seen before the last bytes are read."""

        def listing() -> dict[str, int]:
            return {entry.name: entry.size for entry in self._plane.list(self._directory, user=self._user)}

        try:
            sizes = self._patiently(listing)
        except NotFoundError as error:
            raise self._unknown("its journal was removed") from error
        moved = self._read(self._streams["stdout"], "out", sizes.get("out", 0))
        moved |= self._read(self._streams["stderr"], "err", sizes.get("err", 0))
        if sizes.get("rc"):
            path = f"{self._directory}/rc"
            self._ended = self._patiently(lambda: self._plane.read(path, user=self._user)).decode()
        return moved

    def _read(self, stream: _Stream, name: str, size: int) -> bool:
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
            piece = self._plane.read_range(path, offset, PIECE, user=self._user)
            if piece is not None:
                return piece
            self._ranges = False
        # No ranges here: base64 keeps bytes whole that are no UTF-8.
        text = self._plane.run(
            f"tail -c +{offset + 1} {path} | head -c {PIECE} | base64 | tr -d '\\n'",
            user=self._user,
            timeout=CALL_TIMEOUT,
            limit=PIECE * 2,
        ).stdout
        return base64.b64decode(text)

    def _ask(self, script: str, cwd: str | None, env: dict[str, str]) -> str:
        """Run one of the journal's scripts and take in what it says."""

        def ask() -> ExecResult:
            return self._plane.run(script, user=self._user, cwd=cwd, env=env, timeout=CALL_TIMEOUT, limit=1 << 18)

        answer = self._patiently(ask)
        found = [line for line in answer.stdout.splitlines() if line.startswith(MARK)]
        if not found:
            told = (answer.stderr or answer.stdout).strip()[-500:]
            raise ServiceError(
                f"The sandbox {self._plane.instance_id} could not start the command (exit code {answer.exit_code}): "
                f"{told}",
                hint="Durable commands need bash and coreutils, and a home or /tmp that can be written to.",
            )
        _, state, _, _, self._directory = found[0].split(" ", 4)
        inline = {line.split(" ", 1)[0]: line.split(" ", 1)[-1] for line in found[1:]}
        if f"{MARK}-whole" in inline:
            for name, stream in (("out", self._streams["stdout"]), ("err", self._streams["stderr"])):
                stream.take(base64.b64decode(inline.get(f"{MARK}-{name}", "").strip()), final=True)
            self._ended = inline[f"{MARK}-rc"]
        return state

    def _patiently(self, action: Callable[[], Answer]) -> Answer:
        """Do something that is safe to repeat, over and over, until the sandbox answers or patience is at its end."""
        lost: float | None = None
        pause = 0.5
        while True:
            try:
                answer = action()
            except CommandTimeoutError as error:
                problem: AGSFlowsError = error
            except AGSFlowsError as error:
                if not error.retryable:
                    raise
                problem = error
            else:
                if lost is not None:
                    self._note(f"The sandbox answers again after {time.monotonic() - lost:.0f} s.")
                return answer
            if lost is None:
                lost = time.monotonic()
                self._note(f"The sandbox does not answer; trying again. {problem}")
            elif time.monotonic() - lost > PATIENCE:
                raise problem
            self._pause(max(pause, problem.retry_after or 0))
            pause = min(10.0, pause * 2)

    def _pause(self, seconds: float) -> None:
        self._cancelled.wait(seconds)
        self._check_cancelled()

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise InstanceGoneError(
                f"Nobody waits any more for the command in {self._plane.instance_id}: the sandbox is being stopped."
            )

    def _unknown(self, why: str) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"It is not known whether the command in {self._plane.instance_id} has run: {why}. "
            f"It is not run again. Command: {self._command}",
            hint=f"Look at {self._directory or 'the journal'} in the sandbox, or run the flow in a new one.",
        )


def kill(plane: DataPlane, key: str, user: str | None) -> None:
    """Kill a durable command: TERM to its process group, then KILL to it and to what left it."""
    plane.run(kill_script(key), user=user, timeout=CALL_TIMEOUT)
