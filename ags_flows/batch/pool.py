"""The sandboxes of a batch: started at the API's pace, adopted by a retry, kept alive by leases, ended with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.data_planes import close_plane
from ags_flows.cloud.pace import PacedControlPlane
from ags_flows.errors import AGSFlowsError, ConfigurationError
from ags_flows.lifecycle.create_once import start_once
from ags_flows.lifecycle.lease import Lease, keep_lease
from ags_flows.lifecycle.waiting import wait_instance_running, wait_instance_status
from ags_flows.models import CustomConfiguration, Instance
from ags_flows.models.durations import format_duration, parse_duration
from ags_flows.ownership import LIVE, Identity, Owner, fingerprint, generation_of, is_ours
from ags_flows.run.events import tell_instance
from ags_flows.run.logs import Logger
from ags_flows.session import SandboxSession

STEP = "batch sandbox"
ENDERS = 16


@dataclass(frozen=True)
class Order:
    """What a sandbox is started from. Items that ask for the same can share one.

    Attributes:
        tool: A tool's id or name.
        custom: What the sandbox has different from its tool, such as another image.
    """

    tool: str
    custom: CustomConfiguration | None = None


@dataclass(eq=False)
class PooledSandbox:
    """A sandbox of the pool and who uses it."""

    slot: int
    order: Order
    session: SandboxSession
    lease: Lease
    used: int = 0

    @property
    def id(self) -> str:
        """The instance's id."""
        return self.session.instance.id

    @property
    def lost(self) -> bool:
        """Whether its lease could not be renewed any more."""
        return self.lease.gone


@dataclass
class _Earlier:
    """What earlier attempts of this batch started for one identity."""

    live: Instance | None = None
    generation: int = 0


@dataclass
class _Counts:
    started: int = 0
    most: int = 0
    open: dict[str, PooledSandbox] = field(default_factory=dict)


class Pool:
    """Opens and closes the sandboxes of one batch. Thread-safe.

    Args:
        config: Where AGS is.
        owner: Whose the sandboxes are.
        run: The flow run, or what stands for it: sandboxes of the same run are adopted by a later attempt.
        lease: How long a sandbox outlives this process, by default the configuration's.
        metadata: More metadata on each.
        logger: Gets what goes wrong with leases.
        retried: Whether there may be sandboxes of an earlier attempt.
    """

    def __init__(
        self,
        config: AGSConfig,
        owner: Owner,
        run: str,
        *,
        lease: str | None = None,
        metadata: Mapping[str, str] | None = None,
        logger: Logger,
        retried: bool = False,
    ) -> None:
        """Look for what an earlier attempt started; start nothing."""
        self._config = config
        self._control = PacedControlPlane(config.connection())
        self._owner = owner
        self._run = run
        self._seconds = parse_duration(lease or config.lease, field="lease")
        self._metadata = dict(metadata or {})
        self._logger = logger
        self._lock = threading.Lock()
        self._counts = _Counts()
        self._earlier: dict[str, _Earlier] = {}
        self._adoptable: dict[int, Instance] = {}
        self._refused_since: float | None = None
        self._context = copy_context()
        if retried:
            self._find_earlier()

    @property
    def started(self) -> int:
        """How many sandboxes were started so far."""
        return self._counts.started

    @property
    def most(self) -> int:
        """How many were open at once at most."""
        return self._counts.most

    @property
    def refused_for(self) -> float:
        """For how many seconds this batch has had no sandbox at all, since AGS refused one for its quota."""
        with self._lock:
            since = self._refused_since
            return 0.0 if since is None or self._counts.open else time.monotonic() - since

    def note_refusal(self) -> None:
        """Note that AGS refused a sandbox for its quota."""
        with self._lock:
            if self._counts.open:
                self._refused_since = None
            elif self._refused_since is None:
                self._refused_since = time.monotonic()

    def adoptable(self, slot: int) -> str | None:
        """Return the id of the live sandbox that an earlier attempt had in a slot."""
        with self._lock:
            found = self._adoptable.get(slot)
        return found.id if found is not None else None

    def free_quota(self) -> int | None:
        """Return how many more instances the account may have, None where AGS does not say.

        Raises:
            ConfigurationError: The quota is zero.
        """
        quota = self._control.quotas().instances
        if quota is None:
            return None
        if quota.limit <= 0:
            raise ConfigurationError(
                f"This account may have no sandboxes in {self._config.region}: its quota of instances is 0.",
                hint="Ask for a quota, or choose another region. Nothing was started.",
            )
        return max(0, int(quota.limit - quota.used)) + len(self._adoptable)

    def open(self, slot: int, order: Order) -> PooledSandbox:
        """Return a running sandbox for a slot: the live one of an earlier attempt, or a new one.

        Raises:
            QuotaExceededError: The account may have no more at the moment.
        """
        identity = Identity(self._run, f"{STEP} {slot}", fingerprint(_of_order(order)))
        with self._lock:
            earlier = self._earlier.setdefault(identity.key, _Earlier())
            adopted, earlier.live = earlier.live, None
            if adopted is not None:
                self._adoptable.pop(slot, None)
        if adopted is None:
            instance, _ = start_once(
                self._control,
                identity,
                self._owner,
                lambda token, label: self._start(order, token, label),
                first=True,
                generation=earlier.generation,
            )
            earlier.generation = generation_of(instance.metadata) + 1
            with self._lock:
                self._counts.started += 1
            self._tell("started", instance)
        else:
            instance = adopted
            self._tell("adopted", instance)
        try:
            instance = self._running(instance)
            if adopted is not None:
                self._renew(instance.id)
        except BaseException:
            self._end(instance)
            raise
        session = SandboxSession(order.tool, instance, self._config, [])
        lease = keep_lease(instance.id, self._seconds, lambda: self._renew(instance.id), self._logger.warning)
        sandbox = PooledSandbox(slot, order, session, lease)
        with self._lock:
            self._counts.open[instance.id] = sandbox
            self._counts.most = max(self._counts.most, len(self._counts.open))
        return sandbox

    def close(self, sandbox: PooledSandbox) -> None:
        """Stop a sandbox; what cannot be stopped is told, and left to its lease."""
        with self._lock:
            self._counts.open.pop(sandbox.id, None)
        sandbox.lease.release()
        self._end(sandbox.session.instance)

    def interrupt(self) -> None:
        """Make whoever still waits for a command in one of the sandboxes stop within a second."""
        for sandbox in list(self._counts.open.values()):
            close_plane(self._config.connection(), sandbox.id)

    def leave(self) -> None:
        """Let go of all sandboxes without stopping them: a retry adopts them, or their leases end them."""
        with self._lock:
            left, self._counts.open = list(self._counts.open.values()), {}
        for sandbox in left:
            sandbox.lease.release()
        self._control.close()

    def end(self) -> None:
        """Stop all sandboxes, those of earlier attempts too that nobody has adopted."""
        with self._lock:
            left, self._counts.open = list(self._counts.open.values()), {}
            unused = [one.live for one in self._earlier.values() if one.live is not None]
            self._earlier.clear()
        for sandbox in left:
            sandbox.lease.release()
        with ThreadPoolExecutor(ENDERS, thread_name_prefix="ags-batch-end") as enders:
            list(enders.map(self._end, [*(sandbox.session.instance for sandbox in left), *unused]))
        self._control.close()

    def _start(self, order: Order, token: str, label: dict[str, str]) -> Instance:
        return self._control.start_instance(
            tool=order.tool,
            timeout=format_duration(self._seconds),
            metadata={**self._metadata, **label},
            client_token=token,
            custom=order.custom,
        )

    def _running(self, instance: Instance) -> Instance:
        timeout = self._config.startup_timeout
        if instance.status in ("PAUSING", "PAUSED"):
            self._control.resume_instance(instance.id, timeout=format_duration(self._seconds))
            return wait_instance_status(self._control, instance.id, goal="RUNNING", timeout=timeout)
        if instance.status == "RUNNING":
            return instance
        return wait_instance_running(self._control, instance.id, timeout=timeout)

    def _renew(self, instance_id: str) -> None:
        self._control.update_instance(instance_id, timeout=format_duration(self._seconds))

    def _end(self, instance: Instance) -> None:
        close_plane(self._config.connection(), instance.id)
        try:
            self._control.stop_instance(instance.id)
        except AGSFlowsError as error:
            self._logger.warning("Sandbox %s is left to its lease and the reaper: %s", instance.id, error)
        else:
            self._tell("stopped", instance)

    def _tell(self, what: str, instance: Instance) -> None:
        # The threads of a pool have no run context, and not its settings: which server is to be told.
        self._context.copy().run(tell_instance, what, instance)

    def _find_earlier(self) -> None:
        for instance in self._control.each_instance():
            metadata = instance.metadata
            if not is_ours(metadata) or metadata["flow-run-id"] != self._run:
                continue
            if not metadata.get("step", "").startswith(STEP):
                continue
            earlier = self._earlier.setdefault(metadata.get("identity", ""), _Earlier())
            earlier.generation = max(earlier.generation, generation_of(metadata) + 1)
            if instance.status in LIVE:
                earlier.live = instance
                slot = metadata["step"].removeprefix(STEP).strip()
                if slot.isdecimal():
                    self._adoptable[int(slot)] = instance


def _of_order(order: Order) -> dict[str, Any]:
    return {"tool": order.tool, "custom": order.custom.model_dump(mode="json") if order.custom else None}
