"""What the Prefect server knows of the flow runs that own sandboxes: read many at a time."""

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
"""Flow runs or flows in one request."""

DATE_TOLERANCE = 10.0
"""Seconds by which a `Date` header may be late: it has whole seconds, and a server does not compute it each time."""

_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class Owned:
    """What the Prefect server knows of one flow run, or of all flow runs on the path to a sandbox.

    Attributes:
        standing: See `ags_flows.ownership.RunState`.
        state: The name of its state, empty for a run that the server does not know.
        waits: Whether it is suspended or paused, and waits for input.
        ended_at: When it ended.
        newest_run: For an unknown run: when the newest run of its flow started. See `was_deleted`.
    """

    standing: RunState
    state: str = ""
    waits: bool = False
    ended_at: datetime | None = None
    newest_run: datetime | None = None

    def was_deleted(self, created_at: datetime | None) -> bool:
        """Whether an unknown run was provably deleted from this server, rather than never known to it.

        A server whose database is a copy of another server's, such as a staging server that was set up from a backup,
        knows the flows of the other one, and not the runs that came after the copy was made. So the server must know
        a run of the same flow that started after the sandbox was created: a copy that executes nothing has none.

        A copy that executes the same flows in the same account does. Give it another account or region, or protect
        the sandboxes by `ReapRules.protect`.

        Args:
            created_at: When the sandbox or the tool was created.
        """
        return self.newest_run is not None and created_at is not None and self.newest_run > created_at


def together(path: Sequence[Owned]) -> Owned:
    """Return what is known of something that several flow runs own, nested in each other.

    One run that is not over spares it; one run of another server does too. Only if all are over, or deleted, it is
    without an owner, since the last of them ended.
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
    """Knows of flow runs. A server that does not respond is an error: nothing may be concluded from it."""

    def look_up(self, runs: Mapping[str, str]) -> dict[str, Owned]:
        """Return what is known of each run.

        Args:
            runs: Ids of flow runs to the ids of their flows, which may be empty. For a flow run that is nested in
                another one, the id of the outermost flow.

        Raises:
            UnreachableError: The server did not respond.
        """
        ...


class PrefectOwners:
    """Asks a Prefect server.

    Args:
        client: A client of it.
        sole_server: No other Prefect server uses this account: a run that this server does not know is over, even
            where it does not know the flow.
    """

    def __init__(self, client: SyncPrefectClient, sole_server: bool = False) -> None:
        """Send nothing yet."""
        self._client = client
        self._sole_server = sole_server
        self._flows: dict[UUID, bool] = {}
        self._newest: dict[UUID, datetime | None] = {}

    def look_up(self, runs: Mapping[str, str]) -> dict[str, Owned]:
        """Return what the server knows of each run, one request for a hundred of them."""
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
        """Return a clock that is not ahead of the Prefect server's: a grace time must not be shortened by the host's.

        End times of flow runs are the server's. The `Date` of its responses tells by how much the clock of this host
        is ahead of it at least, which the returned clock subtracts. A host's clock that is behind only lengthens the
        grace time, and is used as it is.

        Times of instances are AGS's. The same clock is compared with them: it is the earlier one of two, and AGS
        refuses requests of a host whose clock differs from its own by more than five minutes.

        Raises:
            UnreachableError: The server did not respond.
        """
        before = time.time()
        try:
            response = self._client.request("GET", "/health")
            response.raise_for_status()
        except Exception as error:  # noqa: BLE001 - whatever it is, the server's time is unknown
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
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing is known of these runs
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
    """Return the latest moment at which a server may have sent a `Date` header."""
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
        hint="Nothing is stopped without that. Check PREFECT_API_URL and the server.",
    )
