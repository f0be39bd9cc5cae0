"""Whether the flow runs that own sandboxes are over: asked of the Prefect server, many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterId, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, StateType

from ags_flows.errors import UnreachableError
from ags_flows.ownership import RunState

AT_ONCE = 100


@dataclass(frozen=True)
class Owned:
    """What the Prefect server says of one flow run.

    Attributes:
        standing: See `ags_flows.ownership.RunState`.
        state: The name of its state, empty for a run that the server does not know.
        waits: Whether it is suspended or paused, and waits for an answer.
        ended_at: When it ended.
    """

    standing: RunState
    state: str = ""
    waits: bool = False
    ended_at: datetime | None = None


class Owners(Protocol):
    """Knows of flow runs. What cannot be asked is an error: nothing may be concluded from it."""

    def look_up(self, runs: Mapping[str, str]) -> dict[str, Owned]:
        """Return what is known of each run.

        Args:
            runs: Ids of flow runs to the ids of their flows, which may be empty.

        Raises:
            UnreachableError: The server did not answer.
        """
        ...


class PrefectOwners:
    """Asks a Prefect server.

    Args:
        client: A client of it.
        sole_server: No other Prefect server uses this account: a run whose flow is unknown too is nobody's.
    """

    def __init__(self, client: SyncPrefectClient, sole_server: bool = False) -> None:
        """Ask nothing yet."""
        self._client = client
        self._sole_server = sole_server
        self._flows: dict[UUID, bool] = {}

    def look_up(self, runs: Mapping[str, str]) -> dict[str, Owned]:
        """Return what the server says of each run, one request a hundred of them."""
        wanted = {run: identifier for run in runs if (identifier := _uuid(run)) is not None}
        found = {str(run.id): run for run in self._read_runs(wanted.values())}
        missing = {run: _uuid(runs[run]) for run in runs if str(wanted.get(run)) not in found}
        self._read_flows(flow for flow in missing.values() if flow is not None)
        known = {run: _standing(found[str(wanted[run])]) for run in runs if run not in missing}
        for run, flow in missing.items():
            ours = flow is not None and self._flows.get(flow, False)
            known[run] = Owned("unknown" if ours or self._sole_server else "foreign")
        return known

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
        f"The Prefect server did not say which flow runs are over: {type(error).__name__}: {error}",
        hint="Nothing is stopped without its word. Check PREFECT_API_URL and the server.",
    )
