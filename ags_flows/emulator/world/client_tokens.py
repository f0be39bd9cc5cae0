"""ClientToken: a repeated request makes no second resource."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, Literal

from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.store import Store

Repeat = Literal["replay", "refuse"]
_DAY = 24 * 3600.0


class ClientTokens:
    """The resources that were created for tokens.

    Whether AGS responds to a repeated request with the original resource or with ``FailedOperation.DuplicateRequest``
    is not documented; both can be switched on.

    Args:
        now: The clock, in seconds; a token is remembered for a day.
        store: Where tokens survive a restart.
        usual: Returns what a repeated request of an action does.

    Attributes:
        on_repeat: What every repeated request does; None for what is usual.
    """

    def __init__(
        self, now: Callable[[], float], store: Store, usual: Callable[[str], Repeat] = lambda action: "replay"
    ) -> None:
        self._now = now
        self._store = store
        self._usual = usual
        self.on_repeat: Repeat | None = None
        kept = sorted(store.all("client_tokens"), key=lambda each: float(each["at"]))
        self._made: dict[str, dict[str, Any]] = {each["name"]: each for each in kept}

    def recall(self, scope: str, token: str | None, request: dict[str, Any]) -> str | None:
        """Return the id of what an earlier request with this token made, or None.

        Raises:
            Refusal: when the token is too long, was used for another request, or repeats are refused.
        """
        if not token:
            return None
        if len(token) > 64:
            raise Refusal("InvalidParameterValue", "ClientToken must have at most 64 characters.")
        found = self._made.get(_digest([scope, token]))
        if found is None or self._now() - found["at"] > _DAY:
            return None
        if found["request"] != _digest(request):
            raise Refusal(
                "FailedOperation.DuplicateRequest",
                f"ClientToken {token!r} was used for a request with other parameters.",
            )
        if (self.on_repeat or self._usual(scope.rpartition("/")[2])) == "refuse":
            raise Refusal(
                "FailedOperation.DuplicateRequest", f"The request with ClientToken {token!r} was carried out."
            )
        return str(found["made"])

    def remember(self, scope: str, token: str | None, request: dict[str, Any], made: str) -> None:
        """Note what a request made."""
        if token:
            self._prune()
            name = _digest([scope, token])
            self._made[name] = {"name": name, "made": made, "request": _digest(request), "at": self._now()}
            self._store.put("client_tokens", name, self._made[name])

    def _prune(self) -> None:
        """Forget the tokens that are too old; the oldest come first."""
        while self._made:
            name, oldest = next(iter(self._made.items()))
            if self._now() - oldest["at"] <= _DAY:
                return
            del self._made[name]
            self._store.drop("client_tokens", name)

    def clear(self) -> None:
        """Forget all tokens, and handle repeated ones as at the start."""
        for name in self._made:
            self._store.drop("client_tokens", name)
        self._made.clear()
        self.on_repeat = None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:40]
