"""Global limits of the Prefect server: a slot of a concurrency limit for each sandbox, one of a rate for its start.

Prefect holds and renews the slots. A server that has forgotten their leases does not interrupt the batch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import Context, copy_context
from typing import TypeVar

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.concurrency.sync import concurrency, rate_limit
from prefect.exceptions import ObjectNotFound

from ags_flows.cloud.retry import Backoff, persistently
from ags_flows.errors import ConfigurationError, UnreachableError
from ags_flows.run.logs import Logger, run_logger

Gate = Callable[[Callable[[], bool]], AbstractContextManager[bool]]
"""Lets one sandbox in: entered before it is started, left after it has ended. Gets a function that returns whether the
batch is over; gives False if it was over before there was room."""

LOOK = 5.0
"""Seconds of waiting for a slot after which the gate asks whether the slot is still wanted."""

PAUSE = 1.0
"""Seconds between two looks at a limit that is full."""

LEASE = 120.0
"""Seconds after which the server frees the slots of a process that died: a retry needs them for what it takes over."""

BACKOFF = Backoff(attempts=None, patience=600.0, first_pause=1.0, longest_pause=10.0)
"""How long a Prefect server that does not respond is waited for, before a sandbox is given up for it."""

R = TypeVar("R")


@contextmanager
def open_gate(over: Callable[[], bool]) -> Iterator[bool]:
    """Let every sandbox in."""
    yield True


def limited_by(name: str) -> tuple[Gate, int]:
    """Return a gate that takes a slot of a concurrency limit for each sandbox, and how many slots there are.

    Raises:
        ConfigurationError: The limit does not exist, or has no slots.
    """
    limit = _limit("concurrency_limit", name)
    # The threads that come to the gate have no context: which server it is, and whose log.
    outer, logger, asking = copy_context(), run_logger(), threading.Lock()

    @contextmanager
    def gate(over: Callable[[], bool]) -> Iterator[bool]:
        context, stack = outer.copy(), ExitStack()

        def enter() -> None:
            # One sandbox of the batch at a time, and only if there is a slot: Prefect logs an error for each request
            # that has waited for one in vain.
            with asking:
                if over():
                    raise TimeoutError
                if _is_full(name):
                    time.sleep(PAUSE)
                    raise TimeoutError
                stack.enter_context(concurrency(name, timeout_seconds=LOOK, lease_duration=LEASE))

        admitted = _until(over, context, enter)
        try:
            yield admitted
        finally:
            _give_back(name, context, stack, logger)

    return gate, limit.limit


def paced_by(name: str, gate: Gate) -> Gate:
    """Return a gate that also lets sandboxes in no faster than a rate limit allows.

    Raises:
        ConfigurationError: The limit does not exist, or its slots do not come back with time.
    """
    limit = _limit("rate_limit", name)
    if not limit.slot_decay_per_second:
        raise ConfigurationError(
            f"rate_limit={name!r} is not a rate: its slots do not come back with time.",
            hint=f"Change it: prefect gcl update {name} --slot-decay-per-second 20. Nothing was started.",
        )
    outer = copy_context()

    @contextmanager
    def paced(over: Callable[[], bool]) -> Iterator[bool]:
        with gate(over) as admitted:
            yield admitted and _until(over, outer.copy(), lambda: rate_limit(name, timeout_seconds=LOOK))

    return paced


def _until(over: Callable[[], bool], context: Context, take: Callable[[], None]) -> bool:
    """Take a slot as soon as there is one; return False if the batch is over before."""

    def attempt() -> bool:
        if over():
            return False
        try:
            context.run(take)
        except TimeoutError:
            return False
        except Exception as error:
            # Prefect wraps what the request raised.
            raise UnreachableError(f"The Prefect server gives no slot: {error.__cause__ or error}") from error
        return True

    def pause(seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and not over():
            time.sleep(0.2)

    while not over():
        if persistently(attempt, BACKOFF, sleep=pause):
            return True
    return False


def _give_back(name: str, context: Context, stack: ExitStack, logger: Logger) -> None:
    try:
        context.run(stack.close)
    except (httpx.HTTPError, RuntimeError) as error:
        logger.warning("A slot of %r is left to the end of its lease: %s", name, error)


def _is_full(name: str) -> bool:
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            # It was deleted in between, and limits nothing any more.
            return False
    # The slots of a limit with a decay come back with time: only a request for one shows whether there is one.
    return limit.active and not limit.slot_decay_per_second and limit.active_slots >= limit.limit


def _limit(parameter: str, name: str) -> GlobalConcurrencyLimitResponse:
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            raise ConfigurationError(
                f"{parameter}={name!r}: the Prefect server has no such global concurrency limit.",
                hint=f"Create it: prefect gcl create {name} --limit 10. Nothing was started.",
            ) from None
    if not limit.active or limit.limit < 1:
        raise ConfigurationError(
            f"{parameter}={name!r} allows no sandbox: it is {'not active' if not limit.active else 'zero'}.",
            hint=f"Change it: prefect gcl update {name}, or prefect gcl enable {name}. Nothing was started.",
        )
    return limit
