"""Global limits of the Prefect server: a slot of a concurrency limit for each sandbox, one of a rate for its start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.concurrency.sync import concurrency, rate_limit
from prefect.exceptions import ObjectNotFound

from ags_flows.batch.runner import Gate
from ags_flows.errors import ConfigurationError

LOOK = 5.0
"""Seconds of waiting for a slot, after which is asked whether it is still wanted."""

LEASE = 120.0
"""Seconds after which the server frees the slots of a process that died: a retry needs them for what it adopts."""


def limited_by(name: str) -> tuple[Gate, int]:
    """Return a gate that takes a slot of a limit for each sandbox, and how many slots there are.

    Raises:
        ConfigurationError: There is no such limit, or it lets nobody in.
    """
    limit = _limit("concurrency_limit", name)

    @contextmanager
    def gate(over: Callable[[], bool]) -> Iterator[bool]:
        with ExitStack() as held:
            while not over():
                try:
                    held.enter_context(concurrency(name, timeout_seconds=LOOK, strict=True, lease_duration=LEASE))
                except TimeoutError:
                    continue
                yield True
                return
            yield False

    return gate, limit.limit


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
    def paced(over: Callable[[], bool]) -> Iterator[bool]:
        with gate(over) as entered:
            yield entered and _in_time(name, over)

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
