"""An event loop of this process in which all connections to SWE-ReX live.

The event loops of agents come and go, and synchronous steps have none. So connections belong to neither, and are shared
by all.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import httpx

from ags_flows.cloud.certificates import certificate_file, verification

T = TypeVar("T")

KEEP_IDLE = 3.0
"""Seconds that an idle connection is kept: less than servers do, so that none is closed under a request."""

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None
_clients: dict[tuple[bool, str | None, str | None], httpx.AsyncClient] = {}


def begin(work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
    """Run a coroutine in the own loop and return a future of the loop that runs here; to cancel it cancels the work."""
    return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, _running_loop()))


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and return its result, whether or not this thread runs a loop already.

    Ctrl-C and SIGTERM end the wait immediately, and cancel the coroutine.
    """
    future = asyncio.run_coroutine_threadsafe(work, _running_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def client(*, verify: bool, proxy: str | None) -> httpx.AsyncClient:
    """Return the client of this process; only the own loop may call it.

    Args:
        verify: Whether certificates are checked.
        proxy: The URL of a proxy, or None for direct connections.
    """
    key = (verify, proxy, certificate_file())
    if key not in _clients:
        limits = httpx.Limits(max_connections=None, keepalive_expiry=KEEP_IDLE)
        _clients[key] = httpx.AsyncClient(verify=verification(verify), proxy=proxy, trust_env=False, limits=limits)
    return _clients[key]


def _running_loop() -> asyncio.AbstractEventLoop:
    """Return the loop; a fork leaves its thread behind, and makes another."""
    global _loop, _thread
    with _lock:
        if _loop is None or _thread is None or not _thread.is_alive():
            _clients.clear()
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_loop.run_forever, name="ags-swerex", daemon=True)
            _thread.start()
        return _loop
