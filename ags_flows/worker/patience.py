"""Requests to the Prefect server, which are repeated until it responds: a worker outlives its server.

Prefect's client repeats some of them for a minute. Its part of the worker reports Crashed after that, or ends.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from json import JSONDecodeError
from typing import Any, TypeVar

import httpx
from prefect.client.orchestration import PrefectClient

T = TypeVar("T")

logger = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0


def is_transient(error: Exception) -> bool:
    """Return True if the Prefect server, or what is in front of it, may respond later."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code == 429
    return isinstance(error, (httpx.TransportError, JSONDecodeError))


async def patiently(action: Callable[[], Awaitable[T]]) -> T:
    """Do something with the Prefect server until it responds."""
    pause = FIRST_PAUSE
    while True:
        try:
            return await action()
        except Exception as error:
            if not is_transient(error):
                raise
            logger.warning("The Prefect server does not respond, and is asked again: %s", error)
        await asyncio.sleep(pause)
        pause = min(LONGEST_PAUSE, pause * 2)


class PatientClient:
    """A client of the Prefect server whose methods repeat a request until the server responds.

    Args:
        client: The client that makes the requests.
    """

    def __init__(self, client: PrefectClient) -> None:
        self.impatient = client

    def __getattr__(self, name: str) -> Any:
        """Return what the client has, a method as one that repeats."""
        found = getattr(self.impatient, name)
        if not inspect.iscoroutinefunction(found):
            return found

        @functools.wraps(found)
        async def repeated(*args: Any, **options: Any) -> Any:
            return await patiently(partial(found, *args, **options))

        return repeated
