"""Access tokens of one instance, for its ports."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence


class Tokens:
    """The tokens of one instance.

    The main token is what E2B clients get; it lives as long as the instance, across pauses. Each call of
    AcquireSandboxInstanceToken gives one more, with its own lifetime.

    Args:
        now: The clock, in seconds.
        open_to_all: Whether everything is open without a token (AuthMode NONE).
    """

    def __init__(self, now: Callable[[], float], *, open_to_all: bool = False) -> None:
        """Draw a main token and a traffic token."""
        self._now = now
        self.open_to_all = open_to_all
        self.main = _draw()
        self.traffic = _draw()
        self._acquired: dict[str, float] = {}

    def acquire(self, lifetime: float) -> tuple[str, float]:
        """Return a new token and when it ends."""
        now = self._now()
        self._acquired = {token: end for token, end in self._acquired.items() if end > now}
        token, end = _draw(), now + lifetime
        self._acquired[token] = end
        return token, end

    def expire(self) -> None:
        """End all tokens now; the main and the traffic token are replaced."""
        self._acquired.clear()
        self.main, self.traffic = _draw(), _draw()

    def accepts(self, token: str | None) -> bool:
        """Return True if a request with this token may reach envd."""
        if self.open_to_all:
            return True
        if not token:
            return False
        return any(secrets.compare_digest(token.encode(), each.encode()) for each in self.signing_tokens())

    def accepts_traffic(self, token: str | None) -> bool:
        """Return True if a request with this token may reach the other ports."""
        if token and secrets.compare_digest(token.encode(), self.traffic.encode()):
            return True
        return self.accepts(token)

    def signing_tokens(self) -> Sequence[str]:
        """Return the tokens that may have signed a URL, the main one first."""
        now = self._now()
        return [self.main, *(token for token, end in self._acquired.items() if end > now)]

    def dump(self) -> dict[str, object]:
        """Return the tokens as JSON values."""
        return {"main": self.main, "traffic": self.traffic, "acquired": self._acquired}

    def load(self, dumped: dict[str, object]) -> None:
        """Take the tokens from what `dump` returned."""
        self.main, self.traffic = str(dumped["main"]), str(dumped["traffic"])
        acquired = dumped.get("acquired")
        self._acquired = dict(acquired) if isinstance(acquired, dict) else {}


def _draw() -> str:
    return "sit_" + secrets.token_hex(24)
