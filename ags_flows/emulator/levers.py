"""The controls as methods, to be called from any thread of the program that embeds the emulator."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ags_flows.emulator.controls import Controls

Json = dict[str, Any]


class Levers:
    """What tests make an emulator do. The methods raise RuntimeError while it does not run."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._controls: Controls | None = None

    def fault(self, kind: str, operation: str = "*", *, times: int | None = 1, **more: Any) -> int:
        """Declare a fault of the control planes and return its number.

        Args:
            kind: ``lost``, ``cut``, ``hang``, ``error``, ``status``, ``slow`` or ``late``; see `world.faults`.
            operation: An action (``StopSandboxInstance``), a route (``POST /sandboxes``), or ``*``.
            times: How many requests it hits; None: until `clear_faults`.
            **more: ``skip``, ``code``, ``message``, ``status``, ``seconds``, ``retry_after``.

        Raises:
            ValueError: for an unknown kind or field.
        """
        body = {"kind": kind, "operation": operation, "times": times, **more}
        return int(self._control(Controls.add_fault, body)["fault"])

    def clear_faults(self) -> None:
        """Forget all faults, of the control planes and of connections to sandboxes."""
        self._control(Controls.clear_faults, {})
        self._control(Controls.clear_stream_faults, {})

    def stream_fault(self, kind: str, **more: Any) -> Any:
        """Declare a fault of connections to sandboxes, see `gateway.faults`.

        Raises:
            ValueError: for an unknown kind or field.
        """
        return self._control(Controls.add_stream_fault, {"kind": kind, **more})["fault"]

    def transition(
        self, step: str, mode: str, value: float = 0.0, *, reason: str = "", times: int | None = None
    ) -> None:
        """Set how an asynchronous step goes, such as ``("tool.create", "fail", reason="...")``.

        Args:
            step: See `world.transitions`.
            mode: ``at_once``, ``reads``, ``seconds``, ``never`` or ``fail``.
            value: A count or seconds.
            reason: The reason that a failure shows.
            times: For how many uses. None: until the next declaration.

        Raises:
            ValueError: for an unknown step or mode.
        """
        body = {"step": step, "mode": mode, "value": value, "reason": reason, "times": times}
        self._control(Controls.set_transition, body)

    def reset_transitions(self) -> None:
        """Return to the default steps; what hangs goes on."""
        self._control(Controls.reset_transitions, {})

    def limits(self, **values: Any) -> Json:
        """Change limits and return them: ``quotas, rates, instances, paused, tools, api_keys, rate``.

        Raises:
            ValueError: for an unknown name or a wrong value.
        """
        limits: Json = self._control(Controls.set_limits, values)["limits"]
        return limits

    def advance(self, seconds: float) -> None:
        """Advance the clock: timeouts, tokens and retention follow."""
        self._control(Controls.advance_clock, {"advance": seconds})

    def repeat_client_tokens(self, how: str) -> None:
        """Set whether a repeated ClientToken returns the original resource (``replay``) or is refused."""
        self._control(Controls.set_client_tokens, {"on_repeat": how})

    def expire_tokens(self, instance_id: str | None = None) -> None:
        """End the access tokens of one instance or of all now."""
        self._control(Controls.expire_tokens, {"instance": instance_id} if instance_id else {})

    def kill_sandbox(self, instance_id: str, reason: str = "the sandbox died") -> None:
        """Kill a sandbox without a request to stop it: its instance becomes FAILED."""
        self._control(Controls.die, {"instance": instance_id, "reason": reason})

    def fill_disk(self, instance_id: str, full: bool = True) -> None:
        """Make a sandbox's disk full, or as it was."""
        self._control(Controls.fill_disk, {"instance": instance_id, "full": full})

    def reset(self) -> None:
        """Make the account as new: no resources but the built-in tools, no faults, the default limits."""
        self._control(Controls.reset, {})

    def overview(self) -> Json:
        """Return everything there is, as JSON values; of the instances that have ended, the latest ones."""
        return self._control(Controls.overview, {})

    def requests(self) -> list[Json]:
        """Return the latest requests, newest first."""
        entries: list[Json] = self._control(Controls.requests, {})["requests"]
        return entries

    def _control(self, what: Callable[[Controls, Json], Awaitable[Json]], body: Json) -> Json:
        loop, controls = self._loop, self._controls
        if loop is None or controls is None:
            raise RuntimeError("the emulator does not run")

        async def run() -> Json:
            return await what(controls, body)

        return asyncio.run_coroutine_threadsafe(run(), loop).result(timeout=120)
