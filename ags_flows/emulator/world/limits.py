"""Quotas and request rates: off unless switched on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from typing_extensions import TypedDict

from ags_flows.emulator.world.given import EXACT, Count, checked
from ags_flows.emulator.world.refusal import Refusal

_RATES = {"StartSandboxInstance": 100, "StopSandboxInstance": 100, "AcquireSandboxInstanceToken": 100}
"""Requests a second for each action, region and account, as AGS documents them."""

_OTHER_RATE = 20
_WITHOUT = 100_000


class _Change(TypedDict, total=False):
    quotas: bool
    rates: bool
    instances: Count
    paused: Count
    tools: Count
    api_keys: Count
    rate: Count | None

    __pydantic_config__ = EXACT  # type: ignore[misc]


class Limits:
    """What an account may use.

    Args:
        quotas: Whether the quotas are enforced.
        rates: Whether the request rates are enforced.
        instances: Running instances per region (AGS gives a new account 10).
        paused: Paused instances per region.
        tools: Tools per region.
        api_keys: API keys of the account.
        monotonic: The clock of the rates, in real seconds.
    """

    def __init__(
        self,
        *,
        quotas: bool = False,
        rates: bool = False,
        instances: int = 10,
        paused: int = 20,
        tools: int = 100,
        api_keys: int = 10,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.quotas = quotas
        self.rates = rates
        self.instances = instances
        self.paused = paused
        self.tools = tools
        self.api_keys = api_keys
        self.rate: int | None = None
        self._monotonic = monotonic
        self._seen: dict[tuple[str, str], list[float]] = {}

    def change(self, values: dict[str, Any]) -> None:
        """Change limits by their names.

        ``rate`` sets one rate for all actions (requests a second); None returns to the documented ones.

        Raises:
            ValueError: for an unknown name or a value of the wrong kind.
        """
        for name, value in checked(_Change, values).items():
            setattr(self, name, value)

    def describe(self) -> dict[str, Any]:
        """Return the limits as JSON values."""
        names = ("quotas", "rates", "instances", "paused", "tools", "api_keys", "rate")
        return {name: getattr(self, name) for name in names}

    def quota(self, name: str) -> int:
        """Return a quota, or a very large number while quotas are off."""
        return int(getattr(self, name)) if self.quotas else _WITHOUT

    def check(self, name: str, used: int, code: str) -> None:
        """Refuse to use one more than the quota.

        Raises:
            Refusal: with ``code`` when ``used`` has reached the quota.
        """
        if self.quotas and used >= self.quota(name):
            raise Refusal(code, f"The quota of {self.quota(name)} {name.replace('_', ' ')} is used up.")

    def pass_request(self, action: str, region: str) -> None:
        """Count a request against its rate.

        Raises:
            Refusal: ``RequestLimitExceeded`` when there were too many within the last second.
        """
        if not self.rates:
            return
        allowed = self.rate if self.rate is not None else _RATES.get(action, _OTHER_RATE)
        now = self._monotonic()
        key = (action, region)
        recent = [moment for moment in self._seen.get(key, []) if now - moment < 1.0]
        self._seen[key] = recent
        if len(recent) >= allowed:
            raise Refusal(
                "RequestLimitExceeded",
                f"Your current request times of {action} exceed the limit of {allowed} times per second.",
            )
        recent.append(now)
