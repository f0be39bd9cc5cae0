"""What the Prefect server and the metadata report about a flow run and its sandbox."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Pending

from ags_flows.blocks import AGSConfig
from ags_flows.errors import NotFoundError
from ags_flows.models import Instance
from ags_flows.ownership import ENDED, KEPT, LEASE, OWNER_HOST, OWNER_PID, Owner, lease_is_kept

NOT_STARTED = (StateType.PENDING, StateType.CANCELLING, StateType.CANCELLED)
"""States in which a submission goes on. One that is cancelled is ended by the look for cancellations."""

WAITING = "InfrastructurePending"
"""Prefect's name of the state of a run that waits for infrastructure, which Prefect 3.6 has not."""

PAGE = 200
"""Flow runs that one response of the Prefect server has at most."""


def attempt_of(run: FlowRun) -> int:
    """Return a number that is greater in every later execution of a flow run: of the one that starts next.

    Prefect raises `run_count` when an execution starts. It does not when a suspended run is resumed; then the total
    run time has grown.
    """
    return (run.run_count or 0) + 1 + (run.total_run_time or timedelta()) // timedelta(microseconds=1)


def owner_of(run: FlowRun) -> Owner:
    """Return the flow run as the owner of a sandbox that this process starts."""
    return Owner(
        flow_run_id=str(run.id),
        flow_run_name=run.name or "",
        flow_id=str(run.flow_id),
        deployment=str(run.deployment_id or ""),
        host=socket.gethostname(),
        pid=os.getpid(),
    )


async def runs_with_ids(client: PrefectClient, ids: Collection[UUID]) -> list[FlowRun]:
    """Return the flow runs that exist."""
    wanted, known = list(ids), []
    while wanted:
        page, wanted = wanted[:PAGE], wanted[PAGE:]
        known += await client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=page)))
    return known


async def runs_of_pool(client: PrefectClient, pool: str) -> list[FlowRun]:
    """Return the flow runs of a work pool that a worker has taken and that have not ended."""
    taken = FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    return await client.read_flow_runs(
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=taken)),
    )


def is_followed(instance: Instance) -> bool:
    """Return True if a live worker follows the sandbox: its lease was renewed in time, and its process has not died."""
    metadata = instance.metadata
    if not metadata.get(LEASE) or not lease_is_kept(metadata, instance.expires_at, datetime.now(timezone.utc)):
        return False
    pid = metadata.get(OWNER_PID, "")
    if metadata.get(OWNER_HOST) != socket.gethostname() or not pid.isdecimal():
        return True
    # An earlier worker of this process is gone too: its sandboxes are not among those of this one.
    return int(pid) != os.getpid() and _is_alive(int(pid))


def has_ended(config: AGSConfig, sandbox: str) -> bool:
    """Return True if a sandbox has ended, or is kept after the end of its process."""
    try:
        instance = config.control_plane().get_instance(sandbox)
    except NotFoundError:
        return True
    return instance.status in ENDED or bool(instance.metadata.get(KEPT))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # The state comes behind the name. A zombie has ended, and waits for its parent.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


def is_due(run: UUID, attempt: int) -> bool:
    """Return True if no other worker has started an attempt at a flow run. Called in a thread."""
    with suppress(ObjectNotFound), get_client(sync_client=True) as client:
        found = client.read_flow_run(run)
        return attempt_of(found) == attempt and found.state is not None and found.state.type in NOT_STARTED
    return False


def show_waiting(run: UUID, reason: str) -> None:
    """Show in the state of a flow run why it waits for a sandbox. Called in a thread.

    The server refuses it where the flow run is not PENDING, as when it is being cancelled, or shows a reason already.
    """
    with suppress(Exception), get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Pending(name=WAITING, message=f"Waiting for a sandbox: {reason}"))
