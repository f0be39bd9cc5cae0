"""What is done with one item: a command or a function, and what its outcome means."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ags_flows.batch.items import Item
from ags_flows.errors import (
    AGSFlowsError,
    CommandFailedError,
    ConfigurationError,
    InstanceFailedError,
    InstanceGoneError,
    WaitTimeoutError,
)
from ags_flows.functions import is_remote
from ags_flows.models import ItemResult
from ags_flows.ownership import digest
from ags_flows.run.redaction import Redactor
from ags_flows.run.secrets import recorded_secrets
from ags_flows.session import SandboxSession

Function = Callable[[SandboxSession, Any], Any]
"""What is done with an item: it gets a running sandbox and the item, and returns something JSON-like."""

KEPT_OUTPUT = 8_000
LONGEST_IN_ENVIRONMENT = 32_000
INBOX = "/tmp/ags-items"

LOST_SANDBOX = (InstanceGoneError, InstanceFailedError, WaitTimeoutError)
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
    """

    command: str | None = None
    function: Function | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse neither and both."""
        if (self.command is None) == (self.function is None):
            raise ConfigurationError("Give a command or a function, one of them.", hint="Nothing was started.")
        if self.command is not None and not self.command.strip():
            raise ConfigurationError("The command is empty.", hint="Nothing was started.")

    def do(self, sandbox: SandboxSession, item: Item, attempt: int) -> ItemResult:
        """Do it, and return the outcome, good or bad.

        Raises:
            AGSFlowsError: The sandbox or the cloud failed, not the item.
        """
        started = time.monotonic()
        common: dict[str, Any] = {"key": item.key, "index": item.index, "attempts": attempt}
        try:
            with recorded_secrets() as secrets:
                outcome = self._call(sandbox, item) if self.function is not None else self._run(sandbox, item)
        except CommandFailedError as error:
            result = error.result
            code = result.exit_code if result else None
            outcome = {"status": "failed", "exit_code": code, **_failure(error, secrets)}
            if result:
                outcome |= {"stdout": _ends(result.stdout), "stderr": _ends(result.stderr)}
        except (AGSFlowsError, MemoryError):
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the function raises is the item's failure
            outcome = {"status": "failed", **_failure(error, secrets)}
        if "value" in outcome:
            # What the function returns may have the secrets of its steps.
            outcome["value"] = Redactor(secrets).data(outcome["value"])
        return ItemResult(
            **common, **outcome, seconds=round(time.monotonic() - started, 3), instance_id=sandbox.instance.id
        )

    def _call(self, sandbox: SandboxSession, item: Item) -> dict[str, Any]:
        assert self.function is not None
        if is_remote(self.function):
            value = sandbox.call(cast(Callable[[Any], Any], self.function), item.value)
        else:
            value = self.function(sandbox, item.value)
        try:
            return {"status": "ok", "value": json.loads(json.dumps(value, ensure_ascii=False).encode())}
        except (TypeError, ValueError) as error:
            message = f"The function returned a {type(value).__name__} that is not JSON: {error}."
            return {"status": "failed", "error": message, "error_class": type(error).__name__}

    def _run(self, sandbox: SandboxSession, item: Item) -> dict[str, Any]:
        options = {"log_output": False, "limit": 2 * KEPT_OUTPUT, **self.options}
        options["env"] = {**(options.get("env") or {}), **self._deliver(sandbox, item, options.get("user"))}
        result = sandbox.run(str(self.command), **options)
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

    def _deliver(self, sandbox: SandboxSession, item: Item, user: str | None) -> dict[str, str]:
        text = item.value if isinstance(item.value, str) else json.dumps(item.value, ensure_ascii=False)
        environment = {"ITEM_KEY": item.key, "ITEM_INDEX": str(item.index)}
        if isinstance(item.value, dict):
            for name, value in item.value.items():
                if isinstance(value, (str, int, float, bool)) and name.isidentifier() and len(str(value)) < 4_000:
                    shown = json.dumps(value) if isinstance(value, bool) else str(value)
                    environment[f"ITEM_{name.upper()}"] = shown
        # Named by the key: the index of an item changes when its list grows.
        file = f"{INBOX}/{digest(item.key)}/{item.path.name if item.path else 'item.json'}"
        if item.path is not None:
            sandbox.upload(item.path, file, user=user)
        elif len(text.encode()) > LONGEST_IN_ENVIRONMENT:
            sandbox.write(file, text, user=user)
            return {**environment, "ITEM_FILE": file}
        return {**environment, "ITEM": text, **({"ITEM_FILE": file} if item.path else {})}


def function_named(name: str) -> Function:
    """Return the function that `package.module:function` names.

    Raises:
        ConfigurationError: There is none.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"function={name!r} cannot be found: {error}.", hint="Write package.module:function. Nothing was started."
        ) from error
    if not callable(found):
        raise ConfigurationError(f"function={name!r} is no function.", hint="Write package.module:function.")
    named: Function = found
    return named


def worth_another(error: AGSFlowsError) -> bool:
    """Whether an item whose attempt ended with this error is tried again: the error's class decides.

    A sandbox that died takes what was done in it along: the item is done anew in another one. What may have had an
    effect outside and cannot be known is never done again.
    """
    return error.retryable or isinstance(error, LOST_SANDBOX)


def _failure(error: BaseException, secrets: Collection[str]) -> dict[str, Any]:
    # A file's name in it need not be text.
    message = (str(error) or type(error).__name__).encode(errors="backslashreplace").decode()
    return {"error": Redactor(secrets).text(message)[:2_000], "error_class": type(error).__name__}


def _ends(text: str) -> str:
    if len(text) <= KEPT_OUTPUT:
        return text
    half = KEPT_OUTPUT // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"
