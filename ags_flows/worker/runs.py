"""What the Prefect server and the metadata report about a flow run and its sandbox."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import InfrastructurePending

from ags_flows.models import Instance
from ags_flows.ownership import LEASE, OWNER_HOST, OWNER_PID, lease_is_kept


def attempt_of(run: FlowRun) -> int:
    """Return a number that is greater in every later execution of a flow run: of the one that starts next.

    Prefect raises `run_count` when an execution starts. It does not when a suspended run is resumed; then the total
    run time has grown.
    """
    return (run.run_count or 0) + 1 + (run.total_run_time or timedelta()) // timedelta(microseconds=1)


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


def show_waiting(run: UUID, reason: str) -> None:
    """Show in the state of a flow run why it waits for a sandbox. Called in a thread."""
    with suppress(Exception), get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
        if state is not None and state.type == StateType.PENDING:
            client.set_flow_run_state(
                run, InfrastructurePending(message=f"Waiting for a sandbox: {reason}"), force=True
            )
