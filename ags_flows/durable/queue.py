"""A queue in a sandbox: many commands handed over in one request, executed one after the other, followed together."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.data_planes import Cancellation
from ags_flows.cloud.head_and_tail import HeadAndTail
from ags_flows.cloud.retry import Backoff, persistently
from ags_flows.durable.claims import NEEDS, superseded
from ags_flows.durable.command import Command
from ags_flows.durable.environment import directory_of, start_environment, unusable_directory
from ags_flows.durable.journal_output import PIECE
from ags_flows.durable.queue_scripts import MARK, revoke_script, start_script
from ags_flows.durable.scripts import Limits
from ags_flows.durable.waiting import PATIENCE, may_pass
from ags_flows.errors import (
    AGSFlowsError,
    InstanceFailedError,
    InstanceGoneError,
    NotFoundError,
    OutcomeUnknownError,
    UnsupportedError,
)
from ags_flows.models import ExecResult
from ags_flows.models.checks import LONGEST_VALUE
from ags_flows.ownership import Holder

CALL_TIMEOUT = 30.0
FIRST_INTERVAL = 0.25
LAST_INTERVAL = 5.0
GROWTH = 1.5

KILLED_STARTS = 3
"""How often a bundle is handed over, or looked at, if that is killed: an item may kill all processes of its user."""

LOOK_AFTER = 20.0
"""Seconds without an entry after which the runner is looked for, and from then on as often."""

SLOW = 1.0
"""Seconds of one item after which the items behind it are taken back."""

MOST_ITEMS = 64
MOST_BYTES = 400_000
"""Bounds of what one request hands over: Linux takes about two megabytes of arguments and environment."""

T = TypeVar("T")


@dataclass(frozen=True)
class QueuedItem:
    """One execution of the queue's command.

    Attributes:
        name: Letters and digits: the same in every attempt, and for no other item of the queue.
        env: What its environment has beside that of the command.
    """

    name: str
    env: Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes that it needs of a request, about."""
        return sum(len(name) + len(value.encode()) + 16 for name, value in self.env.items())


@dataclass(frozen=True)
class Outcome:
    """The outcome of an item.

    Attributes:
        name: The item.
        how: `done`; `lost`: it began, and its end is not known; `revoked`: it was taken back before it began.
        result: Of an item that is done.
        why: Why it was killed: `timeout` or `output`; otherwise empty.
    """

    name: str
    how: Literal["done", "lost", "revoked"]
    result: ExecResult | None = None
    why: str = ""


class SandboxQueue:
    """A queue in one sandbox, for one command.

    Args:
        plane: The sandbox.
        cancelled: Ends the waits within a second when set. What was handed over goes on in the sandbox.
        command: What is executed for each item: its text, user, directory, environment and limits.
        family: The name of the queue: the same in every attempt.
        holder: The attempt on whose behalf it is used.
        limit: How many bytes of each stream a result holds: head and tail of longer output.
    """

    def __init__(
        self, plane: DataPlane, cancelled: Cancellation, command: Command, family: str, holder: Holder, limit: int
    ) -> None:
        self._plane = plane
        self._cancelled = cancelled
        self._command = command
        self._family = family
        self._holder = holder
        self._limit = limit
        self._forget: list[str] = []
        self._paths: list[str] = []
        self._directory = ""

    def forget(self, names: Sequence[str], paths: Sequence[str] = ()) -> None:
        """Have the files of items removed with the next request: their results are recorded elsewhere.

        Args:
            names: The items. They are still known as executed.
            paths: More paths, without spaces.
        """
        self._forget += names
        self._paths += paths

    def keep(self, path: str) -> None:
        """Do not remove a path that was to be removed: an item is executed again, and its files were sent again."""
        self._paths = [one for one in self._paths if one != path]

    def run(self, items: Sequence[QueuedItem]) -> Iterator[list[Outcome]]:
        """Hand items over, and yield each outcome when it is known, until each item has one.

        Raises:
            SupersededError: A later attempt of the same run has the sandbox.
            InstanceFailedError: The disk of the sandbox is full.
            InstanceGoneError: The sandbox ended, or the wait was cancelled.
            UnsupportedError: The sandbox cannot hold a queue.
            UnreachableError: The sandbox could not be reached for two minutes.
        """
        remaining = {item.name: item for item in items}
        for _ in range(len(items) + 3):
            bundle = _Bundle(uuid.uuid4().hex[:16], list(remaining.values()))
            for outcomes in self._follow(bundle):
                for outcome in outcomes:
                    remaining.pop(outcome.name, None)
                yield outcomes
            self._forget.append(bundle.name)
            if not remaining:
                return
        raise InstanceFailedError(f"The queue in sandbox {self._plane.instance_id} ends without executing its items.")

    def _follow(self, bundle: _Bundle) -> Iterator[list[Outcome]]:
        """Hand a bundle over and yield outcomes until it ends. Items may be left: then another bundle needs them."""
        state, end, log = self._start(bundle)
        yield self._outcomes(bundle, log)
        interval, heard, looked = FIRST_INTERVAL, time.monotonic(), time.monotonic()
        while end == "-" and state != "lost" and not bundle.is_over:
            self._pause(interval)
            piece = self._piece(bundle.log(self._directory), bundle.read)
            outcomes = self._outcomes(bundle, piece)
            if outcomes:
                yield outcomes
                interval, heard, looked = FIRST_INTERVAL, time.monotonic(), time.monotonic()
                continue
            interval = min(LAST_INTERVAL, interval * GROWTH)
            now = time.monotonic()
            if now - heard > SLOW and (behind := bundle.behind()):
                yield self._revoke(bundle, behind)
            if now - looked > LOOK_AFTER:
                state, end, log = self._start(bundle)
                looked = time.monotonic()
        # What was written between the last look and the end.
        yield self._outcomes(bundle, self._piece(bundle.log(self._directory), bundle.read))
        if "full" in (end, bundle.end):
            raise self._full("an item could not be executed")

    def _start(self, bundle: _Bundle) -> tuple[str, str, bytes]:
        """Hand a bundle over, or look at it again; return state, end, and what is new in its log."""
        self._pause(0)
        command = self._command
        env = start_environment(command.text, command.env, directory_of(command.cwd))
        for number, item in enumerate(bundle.items):
            for name, piece in start_environment(None, item.env).items():
                env[name.replace("ENV_", f"ITEM_{number:03d}_")] = piece
        limits = Limits(command.timeout or 0, command.most_output)
        names = [item.name for item in bundle.items]
        forget, paths = list(self._forget), list(self._paths)
        script = start_script(self._family, bundle.name, names, self._holder, limits, forget=forget, paths=paths)
        for _ in range(KILLED_STARTS):
            response = self._patiently(
                lambda: self._plane.run(
                    script, user=command.user, env=env, timeout=CALL_TIMEOUT, limit=1 << 20, profile=False
                )
            )
            _, found, report = f"\n{response.stdout}".partition(f"\n{MARK} ")
            if found or 0 <= response.exit_code < 128:
                break
        if not found:
            shown = (response.stderr or response.stdout).strip()[-500:]
            if "No space left" in shown:
                raise self._full(shown)
            raise UnsupportedError(
                f"The sandbox {self._plane.instance_id} could not start the commands (exit code "
                f"{response.exit_code}): {shown}",
                hint=NEEDS,
            )
        first, _, log = report.partition("\n")
        state, end, rest = first.split(" ", 2)
        if state == "stale":
            raise superseded(self._plane.instance_id, rest)
        if state in ("missing", "closed"):
            raise unusable_directory(self._plane.instance_id, command.cwd, state)
        self._directory = rest
        del self._forget[: len(forget)], self._paths[: len(paths)]
        return state, end, base64.b64decode(log)[bundle.read :]

    def _revoke(self, bundle: _Bundle, names: list[str]) -> list[Outcome]:
        script = revoke_script(self._family, bundle.name, names)
        response = self._patiently(
            lambda: self._plane.run(script, user=self._command.user, timeout=CALL_TIMEOUT, profile=False)
        )
        lines = [line for line in response.stdout.splitlines() if line.startswith(f"{MARK} ")]
        bundle.asked_back = True
        revoked = [Outcome(line.split(" ", 1)[1], "revoked") for line in lines]
        bundle.seen.update(outcome.name for outcome in revoked)
        return revoked

    def _outcomes(self, bundle: _Bundle, piece: bytes) -> list[Outcome]:
        return [self._outcome(entry) for entry in bundle.take(piece)]

    def _outcome(self, entry: _Entry) -> Outcome:
        if entry.how != "done":
            return Outcome(entry.name, entry.how)  # type: ignore[arg-type]
        streams = {"out": HeadAndTail(self._limit), "err": HeadAndTail(self._limit)}
        for stream, content in (("out", entry.out), ("err", entry.err)):
            if content is not None:
                streams[stream].add(content)
                continue
            path, offset = f"{self._directory}/{entry.name}.{stream}", 0
            while piece := self._piece(path, offset):
                streams[stream].add(piece)
                offset += len(piece)
        result = ExecResult(
            command=self._command.text,
            exit_code=int(entry.code) if entry.code.isdecimal() else 255,
            stdout=streams["out"].text(),
            stderr=streams["err"].text(),
            stdout_size=streams["out"].size,
            stderr_size=streams["err"].size,
            truncated=any(stream.truncated for stream in streams.values()),
            seconds=entry.took / 1000,
            instance_id=self._plane.instance_id,
        )
        return Outcome(entry.name, "done", result, "" if entry.why == "-" else entry.why)

    def _piece(self, path: str, offset: int) -> bytes:
        """Return what is in a file from an offset on, at most half a megabyte; nothing where the file ends."""
        user = self._command.user
        try:
            piece = self._patiently(lambda: self._plane.read_range(path, offset, PIECE, user=user))
            if piece is not None:
                return piece
            # This sandbox serves no ranges.
            return self._patiently(lambda: self._plane.read(path, user=user))[offset : offset + PIECE]
        except NotFoundError as error:
            raise OutcomeUnknownError(
                f"It is not known how the command in {self._plane.instance_id} has ended: its records in "
                f"{self._directory} were removed, by the command itself or by one that runs beside it.",
                hint="Leave the hidden directories of the home directory that this package creates.",
            ) from error

    def _patiently(self, action: Callable[[], T]) -> T:
        return persistently(
            action,
            Backoff(attempts=None, patience=PATIENCE, first_pause=0.5, longest_pause=10.0),
            repeat=may_pass,
            sleep=self._pause,
        )

    def _pause(self, seconds: float) -> None:
        if self._cancelled.wait(seconds):
            raise self._cancelled.reason or InstanceGoneError(
                f"The wait for the queue in {self._plane.instance_id} was ended: the sandbox is being stopped."
            )

    def _full(self, shown: str) -> AGSFlowsError:
        return InstanceFailedError(
            f"The disk of sandbox {self._plane.instance_id} is full: {shown}",
            hint="Remove in each item what it leaves, give the tool a larger disk, or set items_per_sandbox.",
        )


@dataclass(frozen=True)
class _Entry:
    """One entry of a bundle's log. `out` and `err` are None where the output has to be read from its files."""

    name: str
    how: str
    code: str
    why: str
    took: int
    out: bytes | None
    err: bytes | None


class _Bundle:
    """What was handed over in one request, and how far its log was read."""

    def __init__(self, name: str, items: list[QueuedItem]) -> None:
        self.name = name
        self.items = items
        self.read = 0
        self.seen: set[str] = set()
        self.asked_back = False
        self.end = "-"
        self._rest = b""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is executed of it."""
        return self.end != "-" or len(self.seen) >= len(self.items)

    def log(self, directory: str) -> str:
        """Return the path of the log."""
        return f"{directory}/{self.name}.log"

    def behind(self) -> list[str]:
        """Return the items behind the one that is being executed, until they were asked for."""
        waiting = [item.name for item in self.items if item.name not in self.seen]
        return [] if self.asked_back else waiting[1:]

    def take(self, piece: bytes) -> Iterator[_Entry]:
        """Take the next piece of the log, and yield each whole entry that is new."""
        self.read += len(piece)
        content = self._rest + piece
        while b"\n" in content:
            line, _, rest = content.partition(b"\n")
            kind, *fields = line.decode().split(" ")
            if kind == "@end":
                self.end, content = fields[0], rest
                continue
            out, err = (int(size) if size.isdecimal() else 0 for size in fields[5:7])
            if len(rest) <= out + err:
                break
            content = rest[out + err + 1 :]
            if fields[0] not in self.seen:
                self.seen.add(fields[0])
                short = (None if fields[5] == "-" else rest[:out], None if fields[6] == "-" else rest[out : out + err])
                name, how, code, why, took = fields[:5]
                yield _Entry(name, how, code, why, int(took), *short)
        self._rest = content


def fits(items: Sequence[QueuedItem], item: QueuedItem) -> bool:
    """Return True if one more item fits into a request. An item that fits into none is sent alone."""
    return len(items) < MOST_ITEMS and item.size + sum(one.size for one in items) <= MOST_BYTES


def is_queueable(command: Command) -> bool:
    """Return True if a command can be queued with many items. A longer one, or one with input, has its own journal."""
    return command.stdin is None and len(command.text.encode()) <= LONGEST_VALUE
