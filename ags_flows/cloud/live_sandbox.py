"""The e2b sandbox objects that leave this package: for users of the SDK's own methods."""

from __future__ import annotations

from typing import Any

from e2b import CommandExitException, CommandResult, InvalidArgumentException
from e2b_code_interpreter import Sandbox

from ags_flows.cloud.cell_response import Cell, Handler, Received, send_cell
from ags_flows.cloud.connection import Connection
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.e2b_internals import RefreshedParts
from ags_flows.models import ExecResult
from ags_flows.ownership import ENDED

DEFAULT_TIMEOUT = 300.0


class CellSandbox(Sandbox):  # type: ignore[misc]
    """An `e2b_code_interpreter.Sandbox` whose `run_code` takes any text.

    The SDK's own `run_code` splits a response at every line separator of Unicode, which text may contain.
    """

    def run_code(
        self,
        code: str,
        language: str | None = None,
        context: Any = None,
        on_stdout: Handler | None = None,
        on_stderr: Handler | None = None,
        on_result: Handler | None = None,
        on_error: Handler | None = None,
        envs: dict[str, str] | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
    ) -> Any:
        """Run code, with the arguments, the result and the errors of the SDK.

        Of more than 64 million characters of a stream, head and tail are kept.
        """
        if language and context:
            raise InvalidArgumentException("Give a context or a language: a context has its language.")
        cell = Cell(
            code,
            DEFAULT_TIMEOUT if timeout is None else timeout,
            language,
            context.id if context else None,
            dict(envs or {}),
        )
        received = Received(on_stdout, on_stderr, on_result, on_error, keep_logs=True)
        return send_cell(self, cell, received, request_timeout).execution


class KeylessSandbox(RefreshedParts, CellSandbox):
    """An `e2b_code_interpreter.Sandbox` that needs no E2B API key.

    Files, commands, terminals and code use an access token that is acquired again before it expires. `kill`,
    `set_timeout`, `pause`, and the end of a `with` block, go to the control plane of AGS. The SDK's other methods of
    E2B's API (`get_info`, snapshots, metrics) do need a key.
    """

    _plane: DataPlane | None = None
    _control: ControlPlane

    @classmethod
    def of(cls, plane: DataPlane, control: ControlPlane) -> KeylessSandbox:
        """Return the live object of an instance."""
        sandbox: KeylessSandbox = plane.attached(cls)
        sandbox._plane, sandbox._control = plane, control
        return sandbox

    def refresh(self) -> None:
        """Acquire the token again if it is about to expire."""
        if self._plane is not None:
            self._plane.refresh_in_time()

    def kill(self, **_options: Any) -> bool:
        """Stop the instance permanently. Return False if it had ended already."""
        known = self._control.list_instances(ids=[self.sandbox_id])
        self._control.stop_instance(self.sandbox_id)
        return bool(known) and known[0].status not in ENDED

    def set_timeout(self, timeout: int, **_options: Any) -> None:
        """Restart the countdown: the instance ends in `timeout` seconds, 30 to 86,400."""
        self._control.update_instance(self.sandbox_id, timeout=timeout)

    def pause(self, keep_memory: bool | None = None, **_options: Any) -> bool:
        """Pause the instance, with its memory unless `keep_memory=False`."""
        self._control.pause_instance(self.sandbox_id, memory=keep_memory is not False)
        return True


def create_with_key(connection: Connection, template: str, *, api_key: str, timeout: int, idempotency: str) -> Any:
    """Create a sandbox through E2B's API, which needs its key and nothing else. Sent once."""
    return CellSandbox.create(template, timeout=timeout, **_idempotent(idempotency), **_options(connection, api_key))


def connect_with_key(connection: Connection, instance_id: str, *, api_key: str, timeout: int) -> Any:
    """Return a sandbox object with an E2B API key for an instance that runs."""
    return CellSandbox.connect(instance_id, timeout=timeout, **_options(connection, api_key))


def command_result(result: ExecResult) -> CommandResult:
    """Return an outcome as the SDK has it.

    Raises:
        CommandExitException: The exit code is not 0; it holds the outcome too.
    """
    streams = {"stdout": result.stdout, "stderr": result.stderr}
    if not result.ok:
        raise CommandExitException(**streams, exit_code=result.exit_code, error=f"exit status {result.exit_code}")
    return CommandResult(**streams, exit_code=0, error=None)


def _idempotent(key: str) -> dict[str, str]:
    import inspect

    return {"idempotency_key": key} if "idempotency_key" in inspect.signature(Sandbox.create).parameters else {}


def _options(connection: Connection, api_key: str) -> dict[str, Any]:
    """Return the SDK's options for where E2B's API is, instead of leaving that to the environment."""
    url = connection.data_url
    return {
        "api_key": api_key,
        "validate_api_key": False,
        "debug": False,
        "domain": "emulator.invalid" if url else connection.domain,
        "api_url": url or f"https://api.{connection.domain}",
        **({"sandbox_url": url} if url else {}),
    }
