"""Global limits of the Prefect server: a slot of a concurrency limit for each sandbox, one of a rate for its start.

Slots are taken by leases, which end by themselves when this process dies. Prefect's own `concurrency()` interrupts the
thread that holds one as soon as its lease cannot be renewed: a server that was restarted has forgotten all leases, if
it keeps them in memory, and counts their slots all the same. Here such slots stay held, and are given back by number.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.responses import ConcurrencyLimitWithLeaseResponse, GlobalConcurrencyLimitResponse
from prefect.concurrency.sync import rate_limit
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from ags_flows.batch.runner import Admission, Gate
from ags_flows.errors import ConfigurationError, UnreachableError
from ags_flows.run.logs import Logger, run_logger

LOOK = 5.0
"""Seconds of waiting for a slot, after which is asked again whether it is still wanted."""

LEASE = 120.0
"""Seconds after which the server frees the slots of a process that died: a retry needs them for what it takes over."""

RENEWAL = 30.0
PATIENCE = 600.0
"""Seconds to wait for a server that does not answer, before a sandbox is given up for it."""

FULL = 423
FORGOTTEN = (404, 410)


@dataclass
class Slot(Admission):
    """A slot of a limit.

    Attributes:
        lease: None when the server has forgotten the lease, and counts the slot.
        renewed: When the lease was taken or renewed last, in seconds that only grow.
        taken: When the slot was taken, likewise.
    """

    lease: UUID | None = None
    renewed: float = 0.0
    taken: float = 0.0


def limited_by(name: str) -> tuple[Gate, int]:
    """Return a gate that takes a slot of a limit for each sandbox, and how many slots there are.

    Raises:
        ConfigurationError: There is no such limit, or it lets nobody in.
    """
    limit = _limit("concurrency_limit", name)
    # The threads that come to the gate have no context: which server it is, and whose log.
    context, logger = copy_context(), run_logger()

    @contextmanager
    def gate(over: Callable[[], bool]) -> Iterator[Admission]:
        slot = context.copy().run(_take, name, over)
        if slot is None:
            yield Admission(held=False)
            return
        ended = threading.Event()
        work = (_keep, name, slot, ended, logger)
        keeper = threading.Thread(target=context.copy().run, args=work, name=f"ags-slot-of-{name}", daemon=True)
        keeper.start()
        try:
            yield slot
        finally:
            ended.set()
            keeper.join()
            context.copy().run(_give_back, name, slot, logger)

    return gate, limit.limit


def _take(name: str, over: Callable[[], bool]) -> Slot | None:
    """Return a slot as soon as there is one; None when none is wanted any more."""
    unanswered: float | None = None
    while not over():
        try:
            with _client() as client:
                answer = client.increment_concurrency_slots_with_lease([name], 1, "concurrency", LEASE)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != FULL:
                raise UnreachableError(f"The Prefect server gives no slot of {name!r}: {error}") from error
            unanswered = None
        except (httpx.HTTPError, RuntimeError) as error:
            unanswered = unanswered or time.monotonic()
            if time.monotonic() - unanswered > PATIENCE:
                raise UnreachableError(f"The Prefect server gave no answer: {type(error).__name__}: {error}") from error
        else:
            granted, now = ConcurrencyLimitWithLeaseResponse.model_validate(answer.json()), time.monotonic()
            if not granted.limits:
                raise ConfigurationError(f"The Prefect server has no global concurrency limit {name!r} any more.")
            return Slot(lease=granted.lease_id, renewed=now, taken=now)
        _pause(over)
    return None


def _pause(over: Callable[[], bool]) -> None:
    ends = time.monotonic() + LOOK
    while time.monotonic() < ends and not over():
        time.sleep(0.2)


def _keep(name: str, slot: Slot, ended: threading.Event, logger: Logger) -> None:
    """Renew the lease of a slot until the slot is given back, or lost."""
    while slot.lease is not None and not ended.wait(RENEWAL):
        asked = time.monotonic()
        try:
            with _client() as client:
                client.renew_concurrency_lease(slot.lease, LEASE)
        except PrefectHTTPStatusError as error:
            if error.response.status_code not in FORGOTTEN:
                continue
            slot.lease = None
            # A lease that was young cannot have ended: the server lost it, and its count has the slot still.
            slot.held = asked - slot.renewed < LEASE
            told = "it is held without" if slot.held else "its sandbox waits for another one"
            logger.warning("The Prefect server has forgotten the lease of a slot of %r: %s", name, told)
        except (httpx.HTTPError, RuntimeError):
            # A server that does not answer now may in a while.
            continue
        else:
            slot.renewed = asked


def _give_back(name: str, slot: Slot, logger: Logger) -> None:
    if not slot.held:
        return
    try:
        with _client() as client:
            if slot.lease is not None:
                client.release_concurrency_slots_with_lease(slot.lease)
            else:
                client.release_concurrency_slots([name], 1, time.monotonic() - slot.taken)
    except (httpx.HTTPError, RuntimeError) as error:
        logger.warning("A slot of %r is left to the end of its lease: %s", name, error)


def _client() -> SyncPrefectClient:
    """Return a client of this thread's own: with settings of its own it is not the one that the flow run uses."""
    return get_client(httpx_settings={"timeout": 30.0}, sync_client=True)


def paced_by(name: str, gate: Gate) -> Gate:
    """Return a gate that lets nobody in faster than a rate limit says.

    Raises:
        ConfigurationError: There is no such limit, or its slots do not come back by themselves.
    """
    limit = _limit("rate_limit", name)
    if not limit.slot_decay_per_second:
        raise ConfigurationError(
            f"rate_limit={name!r} is no rate: its slots do not come back by themselves.",
            hint=f"Change it: prefect gcl update {name} --slot-decay-per-second 20. Nothing was started.",
        )

    @contextmanager
    def paced(over: Callable[[], bool]) -> Iterator[Admission]:
        with gate(over) as admission:
            if admission.held and not _in_time(name, over):
                admission = Admission(held=False)
            yield admission

    return paced


def _in_time(name: str, over: Callable[[], bool]) -> bool:
    while not over():
        try:
            rate_limit(name, timeout_seconds=LOOK, strict=True)
        except TimeoutError:
            continue
        return True
    return False


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
            f"{parameter}={name!r} lets no sandbox in: it is {'not active' if not limit.active else 'zero'}.",
            hint=f"Change it: prefect gcl update {name}, or prefect gcl enable {name}. Nothing was started.",
        )
    return limit
