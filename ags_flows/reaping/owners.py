"""Read the states of the flow runs that own sandboxes from the Prefect server, in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Protocol
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterStartTime,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from ags_flows.errors import UnreachableError
from ags_flows.ownership import RunState

AT_ONCE = 100
"""Flow runs or flows per request."""

DATE_TOLERANCE = 10.0
"""Seconds by which a `Date` header may lag: it has whole seconds, and servers cache it."""

_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class Owned:
    """The state of one flow run, or the combined state of all nested flow runs that own a sandbox.

    Attributes:
        standing: See `ags_flows.ownership.RunState`.
        state: The name of the run's state; empty if the server does not know the run.
        waits: Whether the run is suspended or paused and waits for input.
        ended_at: When the run ended, timezone-aware.
        newest_run: For an unknown run: when the newest run of its flow started. See `was_deleted`.
    """

    standing: RunState
    state: str = ""
    waits: bool = False
    ended_at: datetime | None = None
    newest_run: datetime | None = None

    def was_deleted(self, created_at: datetime | None) -> bool:
        """Return True if an unknown run was provably deleted from this server, as opposed to never known by it.

        A server whose database is a copy of another server's (for example a staging server restored from a backup)
        knows the flows of the other server, but not the runs that started after the copy was made. Therefore this
        server must know a run of the same flow that started after the sandbox was created. A copy that executes no
        flows knows no such run.

        A copy that executes the same flows in the same account does know such runs. Give it another account or
        region, or protect the sandboxes with `ReapRules.protect`.

        Args:
            created_at: When the sandbox or the tool was created, timezone-aware.
        """
        return self.newest_run is not None and created_at is not None and self.newest_run > created_at


def together(path: Sequence[Owned]) -> Owned:
    """Combine the states of the nested flow runs that own one resource.

    The resource is kept if any of the runs is still active or may belong to another server. It is orphaned only if
    all runs have ended or were deleted; `ended_at` is then the end of the last one.
    """
    active = [one for one in path if one.standing == "active"]
    if active:
        return next((one for one in active if not one.waits), active[0])
    foreign = [one for one in path if one.standing == "foreign"]
    if foreign or not path:
        return Owned("foreign")
    over = [one for one in path if one.ended_at is not None]
    latest = max(over, key=lambda one: one.ended_at or _LONG_AGO) if over else None
    unknown = [one for one in path if one.standing == "unknown"]
    if unknown:
        known = [one.newest_run for one in unknown]
        newest = None if None in known else min(moment for moment in known if moment is not None)
        return Owned("unknown", ended_at=latest.ended_at if latest else None, newest_run=newest)
    return latest or path[0]


class Owners(Protocol):
    """Looks up flow runs. A server that does not respond is an error, because it does not prove that runs ended."""

    def look_up(self, runs: Mapping[str, str]) -> dict[str, Owned]:
        """Return the state of each flow run.

        Args:
            runs: Flow run id to flow id (may be empty). For a nested flow run, the id of the outermost flow.

        Raises:
            UnreachableError: The server did not respond.
        """
        ...


class PrefectOwners:
    """Looks up flow runs on a Prefect server.

    Args:
        client: A client of the server.
        sole_server: Whether no other Prefect server uses this account. If True, a run that this server does not know
            has ended, even if the server does not know its flow.
    """

    def __init__(self, client: SyncPrefectClient, sole_server: bool = False) -> None:
        self._client = client
        self._sole_server = sole_server
        self._flows: dict[UUID, bool] = {}
        self._newest: dict[UUID, datetime | None] = {}

    def look_up(self, runs: Mapping[str, str]) -> dict[str, Owned]:
        """Return the state of each flow run, with one request per hundred runs."""
        wanted = {run: identifier for run in runs if (identifier := _uuid(run)) is not None}
        found = {str(run.id): run for run in self._read_runs(wanted.values())}
        missing = {run: _uuid(runs[run]) for run in runs if str(wanted.get(run)) not in found}
        self._read_flows(flow for flow in missing.values() if flow is not None)
        known = {run: _standing(found[str(wanted[run])]) for run in runs if run not in missing}
        for run, flow in missing.items():
            if flow is not None and self._flows.get(flow, False):
                known[run] = Owned("unknown", newest_run=self._newest_run(flow))
            else:
                known[run] = Owned("unknown" if self._sole_server else "foreign")
        return known

    def clock(self) -> Callable[[], datetime]:
        """Return a clock that is never ahead of the Prefect server's, so that grace times are not shortened.

        End times of flow runs come from the server. The `Date` header of its responses shows the least amount by
        which this host's clock is ahead; the returned clock subtracts it. A host clock that is behind only lengthens
        the grace time and is used unchanged.

        The same clock is compared with the times of instances, which come from AGS. That is safe: AGS rejects
        requests from a host whose clock differs from its own by more than five minutes.

        Raises:
            UnreachableError: The server did not respond.
        """
        before = time.time()
        try:
            response = self._client.request("GET", "/health")
            response.raise_for_status()
        except Exception as error:  # noqa: BLE001 - any failure means that the server's time is unknown
            raise _unreachable(error) from error
        ahead = timedelta(seconds=max(0.0, before - _latest_moment(response.headers.get("date", ""), before)))
        return lambda: datetime.now(timezone.utc) - ahead

    def _newest_run(self, flow: UUID) -> datetime | None:
        if flow not in self._newest:
            try:
                found = self._client.read_flow_runs(
                    flow_filter=FlowFilter(id=FlowFilterId(any_=[flow])),
                    flow_run_filter=FlowRunFilter(start_time=FlowRunFilterStartTime(is_null_=False)),
                    sort=FlowRunSort.START_TIME_DESC,
                    limit=1,
                )
            except Exception as error:  # noqa: BLE001
                raise _unreachable(error) from error
            self._newest[flow] = found[0].start_time if found else None
        return self._newest[flow]

    def _read_runs(self, ids: Iterable[UUID]) -> Iterable[FlowRun]:
        for chunk in _chunks(ids):
            only = FlowRunFilter(id=FlowRunFilterId(any_=chunk))
            try:
                yield from self._client.read_flow_runs(flow_run_filter=only, limit=len(chunk))
            except Exception as error:  # noqa: BLE001 - any failure means that the runs' states are unknown
                raise _unreachable(error) from error

    def _read_flows(self, ids: Iterable[UUID]) -> None:
        for chunk in _chunks(identifier for identifier in ids if identifier not in self._flows):
            try:
                found = self._client.read_flows(flow_filter=FlowFilter(id=FlowFilterId(any_=chunk)), limit=len(chunk))
            except Exception as error:  # noqa: BLE001
                raise _unreachable(error) from error
            known = {flow.id for flow in found}
            self._flows.update({identifier: identifier in known for identifier in chunk})


def _standing(run: FlowRun) -> Owned:
    state = run.state
    if state is None or not state.is_final():
        return Owned("active", state.name or "" if state else "", waits=bool(state and state.type == StateType.PAUSED))
    return Owned("terminal", state.name or "", ended_at=run.end_time or state.timestamp)


def _latest_moment(date: str, otherwise: float) -> float:
    """Return the latest time at which a server may have sent a `Date` header, as a Unix timestamp."""
    try:
        return parsedate_to_datetime(date).timestamp() + DATE_TOLERANCE
    except (TypeError, ValueError):
        return otherwise


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _chunks(ids: Iterable[UUID]) -> Iterable[list[UUID]]:
    distinct = list(dict.fromkeys(ids))
    for start in range(0, len(distinct), AT_ONCE):
        yield distinct[start : start + AT_ONCE]


def _unreachable(error: Exception) -> UnreachableError:
    return UnreachableError(
        f"The Prefect server did not report which flow runs are over: {type(error).__name__}: {error}",
        hint="Nothing is stopped without these states. Check PREFECT_API_URL and the server.",
    )
