"""Who owns a tool, an instance or a step, and is anybody left: pure functions over text and time.

An **identity** names one step of one flow run: the same after a retry of the step or of the run, another one in every
other run. Creation derives its ClientToken from it, so that a lost answer cannot make a second resource, and writes it
on the resource, so that whoever comes later finds and adopts it.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

MANAGED_BY = "ags-flows"
"""Value of the metadata and tag `managed-by` on everything that this package creates."""

SYNCED_TAG = "ags-flows-synced"
"""Tag of a tool that `sync_tools` keeps: its list decides about it, not its use."""

LIVE = frozenset({"STARTING", "RUNNING", "UNHEALTHY", "PAUSING", "PAUSED", "RESUMING"})
"""States of an instance that can still be worked in, now or after a resume."""

KEPT = "kept"
"""Metadata of a failed run's sandbox that is kept for a look inside: `keep` or `pause`."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "ags-flows")


def fingerprint(value: Any) -> str:
    """Return a short hash of a JSON-like value; the order of mappings does not matter."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Identity:
    """One step of one flow run.

    Attributes:
        flow_run_id: The flow run, the outermost one where flows are nested.
        step: The task's name, and the name that the caller gave the step, if any.
        parameters: Fingerprint of the arguments that make the step what it is.
        occurrence: Which one of several identical calls in this attempt it is, from 0.
    """

    flow_run_id: str
    step: str
    parameters: str
    occurrence: int = 0

    @property
    def key(self) -> str:
        """32 hexadecimal digits that stand for the step everywhere outside."""
        parts = (self.flow_run_id, self.step, self.parameters, str(self.occurrence))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    def client_token(self, generation: int = 0) -> str:
        """Return the ClientToken of a creation, at most 64 characters.

        Args:
            generation: How many resources of this identity are known to be dead: their token is used up.
        """
        return str(uuid.uuid5(_NAMESPACE, f"{self.key}:{generation}"))

    def within(self, instance_id: str) -> str:
        """Return the key of a step inside a sandbox: another sandbox runs it anew, since its files are others."""
        return hashlib.sha256(f"{self.key}\0{instance_id}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Owner:
    """The flow run, and the process, on whose behalf something is created.

    The id of the flow says which Prefect server it was: a server that knows the flow, and not the run, has lost or
    deleted the run; one that knows neither is another server.
    """

    flow_run_id: str
    flow_run_name: str = ""
    flow_id: str = ""
    deployment: str = ""
    subflow_run_id: str = ""
    host: str = ""
    pid: int = 0


def label(identity: Identity, owner: Owner, created_at: datetime, generation: int = 0) -> dict[str, str]:
    """Return the metadata of an instance: whose it is, without any secret. Empty values are left out."""
    values = {
        "managed-by": MANAGED_BY,
        "flow-run-id": owner.flow_run_id,
        "flow-run-name": owner.flow_run_name,
        "flow-id": owner.flow_id,
        "subflow-run-id": owner.subflow_run_id,
        "deployment": owner.deployment,
        "step": identity.step,
        "identity": identity.key,
        "generation": str(generation),
        "created-at": created_at.isoformat(timespec="seconds"),
        "owner-host": owner.host,
        "owner-pid": str(owner.pid or ""),
    }
    return {name: value for name, value in values.items() if value}


def belonging_to(owner: Owner) -> dict[str, str]:
    """Return the tags of a tool that its flow run deletes at its end: when the run cannot any more, the reaper may."""
    values = {"flow-run-id": owner.flow_run_id, "flow-id": owner.flow_id}
    return {name: value for name, value in values.items() if value}


def is_ours(metadata: Mapping[str, str]) -> bool:
    """Whether this package created it, for a flow run that can be looked up."""
    return metadata.get("managed-by") == MANAGED_BY and bool(metadata.get("flow-run-id"))


def generation_of(metadata: Mapping[str, str]) -> int:
    """Return the generation that `label` wrote, 0 where it is missing or damaged."""
    text = metadata.get("generation", "0")
    return int(text) if text.isdecimal() else 0


RunState = Literal["active", "terminal", "unknown", "foreign"]
"""What a Prefect server says of a flow run: that it is not over; that it is; that it knows the run's flow and no such
run (deleted, or lost with a database that was set back); that it knows neither, so that the run may be another
server's."""


def is_orphan(
    metadata: Mapping[str, str],
    run_state: RunState,
    ended_at: datetime | None,
    now: datetime,
    grace: timedelta = timedelta(minutes=10),
) -> bool:
    """Whether an instance is provably ours and provably without an owner.

    Args:
        metadata: What the instance carries.
        run_state: What the Prefect server says of its flow run, re-read just before acting; never a guess for a
            server that did not answer.
        ended_at: When the run ended; for an unknown run, when the instance was created. Aware.
        now: The present. Aware.
        grace: How long a sandbox without an owner is left alone, for a retry to adopt.
    """
    if not is_ours(metadata) or run_state in ("active", "foreign") or ended_at is None:
        return False
    return now - ended_at >= grace
