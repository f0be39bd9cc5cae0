"""The access token of one instance, always a fresh one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from ags_flows.models import AccessToken

REFRESH_BEFORE = timedelta(seconds=60)
REFRESH_PAUSE = 30.0
"""Seconds between two early refreshes, for tokens that live shorter than a minute."""


class LiveToken:
    """A token that is acquired by the first call, and again a minute before it expires. Thread-safe.

    Args:
        acquire: Gets an access token from the control plane.
        on_renewal: Gets a token that took the place of another one; called with no lock held.
    """

    def __init__(self, acquire: Callable[[], AccessToken], on_renewal: Callable[[AccessToken], None]) -> None:
        self._acquire = acquire
        self._on_renewal = on_renewal
        self._lock = threading.Lock()
        self._held: AccessToken | None = None
        self._acquired = 0.0

    def at_hand(self) -> AccessToken | None:
        """Return the token if it is still valid, without a request. If None, call `fresh`."""
        token, acquired = self._held, self._acquired
        if token is None:
            return None
        expires = token.expires_at
        if expires is None or expires - datetime.now(timezone.utc) > REFRESH_BEFORE:
            return token
        return token if time.monotonic() - acquired <= REFRESH_PAUSE else None

    def fresh(self) -> AccessToken:
        """Return a token that does not expire within the next minute, acquired now if it must be."""
        token = self.at_hand()
        return token if token is not None else self.renewed(self._held)

    def renewed(self, used: AccessToken | None) -> AccessToken:
        """Return a new token, or the one that another thread acquired since `used` was used."""
        with self._lock:
            if self._held is not None and self._held is not used:
                return self._held
            anew = self._held is not None
            self._held = None
            token = self._acquire()
            self._held, self._acquired = token, time.monotonic()
        if anew:
            self._on_renewal(token)
        return token

    def forget(self) -> None:
        """Drop the token."""
        with self._lock:
            self._held = None
