"""What is done with one item: a command or a function, and what its outcome means."""

from __future__ import annotations

import functools
import json
import shlex
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from ags_flows.batch.functions import Function, described, function_named, name_of
from ags_flows.batch.items import Item
from ags_flows.batch.records import record_of
from ags_flows.durable.command import Command
from ags_flows.durable.queue import Outcome, is_queueable
from ags_flows.errors import (
    AGSFlowsError,
    CommandFailedError,
    CommandTimeoutError,
    ConfigurationError,
    InstanceFailedError,
    InstanceGoneError,
    OutcomeUnknownError,
    OutputTooLargeError,
    SupersededError,
    WaitCancelledError,
    WaitTimeoutError,
)
from ags_flows.functions import is_remote
from ags_flows.models import ExecResult, ItemResult
from ags_flows.models.checks import check_environment, check_name, check_seconds, check_user
from ags_flows.ownership import digest, fingerprint
from ags_flows.run.redaction import Redactor
from ags_flows.run.secrets import load_secrets, recorded_secrets
from ags_flows.session import SandboxSession

T = TypeVar("T")

KEPT_OUTPUT = 8_000
OUTPUT_LIMIT = 2 * KEPT_OUTPUT
LONGEST_IN_ENVIRONMENT = 32_000
LARGEST_ENVIRONMENT = 500_000
"""Bytes of the key and the simple fields of an item: half of what a command's whole environment may have."""

INBOX = "/tmp/ags-items"
_QUEUED_OPTIONS = {"timeout", "cwd", "user", "env", "secrets"}
COMMAND_OPTIONS = {*_QUEUED_OPTIONS, "durable"}

LOST_SANDBOX = (InstanceGoneError, InstanceFailedError, WaitCancelledError, WaitTimeoutError)
"""Errors after which the sandbox is of no use any more, and the item gets another one."""


@dataclass(frozen=True)
class Work:
    """What is done with each item: exactly one of a command and a function.

    Attributes:
        command: Run by `bash -l -c`, with the item in its environment: `ITEM` (text, or JSON), `ITEM_KEY`,
            `ITEM_INDEX`, and for an item with fields `ITEM_<FIELD>` for each that is text, a number or a truth value.
            Items that are files lie in the sandbox at `ITEM_FILE`, and so do items that are longer than 32 kB.
        function: Called with a session and the item; one that `in_sandbox` decorated runs there, with the item alone.
        options: Of `SandboxSession.run`, for the command: `timeout`, `cwd`, `user`, `env`, `secrets`, `durable`.
        hidden: Values of the command's secrets, by variable.
    """

    command: str | None = None
    function: Function | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    hidden: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse neither and both."""
        _check_one(self.command, self.function)
        if self.command is not None and not self.command.strip():
            raise ConfigurationError("The command is empty.", hint="Nothing was started.")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Work:
        """Return the work that JSON-like settings describe: `command` or `function`, and the options of the command.

        Raises:
            ConfigurationError: A function or a Secret block does not exist.
        """
        options = {name: value for name, value in settings.items() if value not in (None, "", {}, 0, 0.0)}
        options["durable"] = settings.get("durable", True)
        command, function = options.pop("command", None), options.pop("function", None)
        _check_one(command, function)
        hidden = load_secrets(options.get("secrets"))
        return cls(command, function_named(function) if function else None, options, hidden)

    @property
    def text(self) -> str:
        """What is done, as one line of text without secrets."""
        if self.function is not None:
            return f"function {name_of(self.function)}"
        first, *more = self._redactor.text(str(self.command).strip()).splitlines()
        return f"command {first[:100]}{' ...' if more or len(first) > 100 else ''}"

    def masked(self, shown: T) -> T:
        """Return what is shown of an item, without secrets: a key may have some."""
        return self._redactor.data(shown)

    @functools.cached_property
    def _redactor(self) -> Redactor:
        return Redactor(self.hidden.values())

    @property
    def does(self) -> str:
        """Fingerprint of the command or function."""
        return fingerprint([self.command, described(self.function) if self.function else ""])

    @property
    def version(self) -> str:
        """Fingerprint of all that decides about the outcome but the item. Values of secrets and time limits do not."""
        options = {name: value for name, value in self.options.items() if name in ("cwd", "user", "env", "secrets")}
        return fingerprint([self.does, options])

    @property
    def queued(self) -> Command | None:
        """The command to hand over to a sandbox for many items in one request; None for all other work."""
        options = dict(self.options)
        if self.command is None or not options.pop("durable", True) or set(options) - _QUEUED_OPTIONS:
            return None
        made = Command(
            self.command,
            check_user(options.get("user")),
            check_name(options.get("cwd"), "cwd"),
            {**check_environment(options.get("env")), **self.hidden},
            timeout=check_seconds(options.get("timeout")),
        )
        return made if is_queueable(made) else None

    def check(self, item: Item) -> None:
        """Refuse an item that a command cannot get.

        Raises:
            ConfigurationError: It has a zero byte where its environment has it, or its environment is too large.
        """
        if self.command is None:
            return
        fields = item.value if isinstance(item.value, dict) else {"": item.value}
        if not all(isinstance(name, str) for name in fields):
            raise ConfigurationError(
                f"items: {item.where}, key {item.key!r}, has a field whose name is not a text.",
                hint="Nothing was started.",
            )
        size = len(item.key.encode()) + sum(len(value.encode()) for value in _simple_fields(item).values())
        if size > LARGEST_ENVIRONMENT or len(shlex.quote(item.key).encode()) > LONGEST_IN_ENVIRONMENT:
            raise ConfigurationError(
                f"items: {item.where}, key {item.key[:60]!r}, has {size:,} bytes in its key and its simple fields, "
                f"more than the environment of a command can have ({LONGEST_IN_ENVIRONMENT:,} for the key, "
                f"{LARGEST_ENVIRONMENT:,} together).",
                hint="Nothing was started; use shorter keys, or put the fields into a nested object or a file.",
            )
        for name, value in fields.items():
            if isinstance(value, str) and "\0" in value or "\0" in name:
                where = f" (field {name!r})" if name else ""
                raise ConfigurationError(
                    f"items: {item.where}, key {item.key!r}{where}, has the character U+0000, which no command can "
                    "be given.",
                    hint="Nothing was started; remove it, or use a function.",
                )

    def do(self, sandbox: SandboxSession, item: Item, attempt: int) -> ItemResult:
        """Do it, and return the outcome, good or bad.

        Raises:
            AGSFlowsError: The sandbox or the cloud failed, not the item: by the error's class a repetition may
                succeed, or the sandbox is of no use any more.
        """
        started = time.monotonic()
        with recorded_secrets() as secrets:
            act = self._call if self.function is not None else self._run
            done = _charged(sandbox, lambda: act(sandbox, item, secrets))
            outcome = done if isinstance(done, dict) else _of_error(done, secrets)
        return self._result(item, attempt, outcome, time.monotonic() - started, sandbox.instance.id)

    def prepare(self, sandbox: SandboxSession, item: Item, attempt: int) -> dict[str, str] | ItemResult:
        """Return the environment of an item's command for the queue of a sandbox; the result, if that fails.

        Raises:
            AGSFlowsError: As `do`.
        """
        found = _charged(sandbox, lambda: self.environment_of(sandbox, item))
        if isinstance(found, dict):
            return found
        return self._result(item, attempt, _of_error(found, self.hidden.values()), 0.0, sandbox.instance.id)

    def result_of(self, item: Item, attempt: int, outcome: Outcome, instance_id: str) -> ItemResult:
        """Return the result of an item that was executed by the queue of a sandbox."""
        if outcome.result is None:
            error: AGSFlowsError = OutcomeUnknownError(
                f"It is not known whether the command in {instance_id} has run: its supervisor vanished without "
                "leaving an exit code. It is not run again."
            )
            return self._result(item, attempt, _of_error(error), 0.0, instance_id)
        result = Redactor(self.hidden.values()).data(outcome.result)
        why, _, limit = outcome.why.partition(":")
        if why == "timeout":
            error = CommandTimeoutError(f"Command ran into its limit of {limit} s and was killed.", result=result)
            found = _of_error(error)
        elif why:
            found = _of_error(OutputTooLargeError(f"Command wrote more than {limit} bytes and was killed."))
        else:
            found = _of_result(result)
        return self._result(item, attempt, found, result.seconds, instance_id)

    def environment_of(self, sandbox: SandboxSession, item: Item) -> dict[str, str]:
        """Return the environment of an item's command, and deliver what does not fit into it as a file."""
        text = item.value if isinstance(item.value, str) else json.dumps(item.value, ensure_ascii=False)
        environment = {"ITEM_KEY": item.key, "ITEM_INDEX": str(item.index)}
        environment = {**_simple_fields(item), **environment}
        file = f"{inbox_of(item)}/{item.path.name if item.path else 'item.json'}"
        # A command that is not durable runs again in a retry, and needs its file again.
        step = "" if self.options.get("durable", True) else uuid.uuid4().hex
        options = {"user": self.options.get("user"), "step": step}
        if item.path is not None:
            sandbox.upload(item.path, file, **options)
        elif len(shlex.quote(text).encode()) > LONGEST_IN_ENVIRONMENT:
            sandbox.write(file, text, **options)
            return {**environment, "ITEM_FILE": file}
        return {**environment, "ITEM": text, **({"ITEM_FILE": file} if item.path else {})}

    def _result(
        self, item: Item, attempt: int, outcome: dict[str, Any], seconds: float, instance_id: str
    ) -> ItemResult:
        common: dict[str, Any] = {"key": item.key, "index": item.index, "attempts": attempt}
        return ItemResult(**common, **outcome, seconds=round(seconds, 3), instance_id=instance_id)

    def _call(self, sandbox: SandboxSession, item: Item, secrets: Collection[str]) -> dict[str, Any]:
        assert self.function is not None
        if item.path is not None:
            # It may have vanished since the items were listed.
            item.path.open("rb").close()
        if is_remote(self.function):
            value = sandbox.call(cast(Callable[[Any], Any], self.function), item.value)
        else:
            value = self.function(sandbox, item.value)
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            outcome = {"status": "ok", "value": json.loads(text.encode())}
            record_of(ItemResult(key=item.key, index=item.index, **outcome))
        except (TypeError, ValueError, RecursionError) as error:
            message = f"The function returned a value of the type {type(value).__name__} that is not JSON: {error}."
            return {"status": "failed", "error": message, "error_class": type(error).__name__}
        # What the function returns may have the secrets of its steps.
        return {**outcome, "value": Redactor(secrets).data(outcome["value"])}

    def _run(self, sandbox: SandboxSession, item: Item, secrets: Collection[str]) -> dict[str, Any]:
        options = {"log_output": False, "limit": OUTPUT_LIMIT, **self.options}
        options["env"] = {**(options.get("env") or {}), **self.environment_of(sandbox, item)}
        return _of_result(sandbox.run(str(self.command), **options))


def _check_one(command: str | None, function: object) -> None:
    if (command is None) == (function is None):
        raise ConfigurationError("Give a command or a function, one of them.", hint="Nothing was started.")


def _charged(sandbox: SandboxSession, act: Callable[[], dict[str, T]]) -> dict[str, T] | BaseException:
    """Do what belongs to one item; return its error, if it is the item's failure."""
    try:
        return act()
    except AGSFlowsError as error:
        # Another sandbox than this one may have a successor: that of a session which the function has opened.
        superseded = isinstance(error, SupersededError) and error.instance_id == sandbox.instance.id
        if worth_another(error) or superseded or isinstance(error, OutcomeUnknownError):
            raise
        return error
    except BaseException as error:  # noqa: BLE001 - the item's failure: what ends the process comes in other threads
        return error


def worth_another(error: AGSFlowsError) -> bool:
    """Return True if an item whose attempt ended with this error is tried again: the error's class decides.

    A sandbox that died takes what was done in it along: the item is done again in another one. What may have had an
    effect outside and cannot be known is never done again.
    """
    return error.retryable or isinstance(error, LOST_SANDBOX)


def inbox_of(item: Item) -> str:
    """Return the directory in the sandbox for what an item's command finds as a file.

    It is named by the key: the index of an item changes when its list grows.
    """
    return f"{INBOX}/{digest(item.key)}"


def failed(turn: Item, attempt: int, error: AGSFlowsError, instance_id: str) -> ItemResult:
    """Return the result of an item that could not be executed."""
    return ItemResult(key=turn.key, index=turn.index, attempts=attempt, instance_id=instance_id, **_of_error(error))


def _simple_fields(item: Item) -> dict[str, str]:
    """Return the variables of an item's fields that are text, a number or a truth value."""
    variables = {}
    for name, value in (item.value if isinstance(item.value, dict) else {}).items():
        if isinstance(value, (str, int, float, bool)) and name.isidentifier() and len(str(value)) < 4_000:
            variables[f"ITEM_{name.upper()}"] = json.dumps(value) if isinstance(value, bool) else str(value)
    return variables


def _of_result(result: ExecResult) -> dict[str, Any]:
    outcome: dict[str, Any] = {
        "status": "ok" if result.ok else "failed",
        "exit_code": result.exit_code,
        "stdout": _ends(result.stdout),
        "stderr": _ends(result.stderr),
    }
    if not result.ok:
        lines = (result.stderr or result.stdout).strip().splitlines()
        outcome |= {"error": f"exit code {result.exit_code}" + (f": {lines[-1][:300]}" if lines else "")}
        outcome |= {"error_class": "ExitCode"}
    return outcome


def _of_error(error: BaseException, secrets: Collection[str] = ()) -> dict[str, Any]:
    # A file's name in it need not be text.
    try:
        message = (str(error) or type(error).__name__).encode(errors="backslashreplace").decode()
    except Exception:  # noqa: BLE001 - a class of the user may fail here
        message = type(error).__name__
    outcome: dict[str, Any] = {
        "status": "failed",
        "error": Redactor(secrets).text(message)[:2_000],
        "error_class": type(error).__name__,
    }
    result = error.result if isinstance(error, CommandFailedError) else None
    if result is not None:
        outcome |= {"exit_code": result.exit_code, "stdout": _ends(result.stdout), "stderr": _ends(result.stderr)}
    return outcome


def _ends(text: str) -> str:
    if len(text) <= KEPT_OUTPUT:
        return text
    half = KEPT_OUTPUT // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"
