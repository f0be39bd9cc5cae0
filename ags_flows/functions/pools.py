"""All pools of this process, and the thread that stops their sandboxes in time."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.util import Finalize
from uuid import UUID

from prefect.events.worker import EventsWorker

from ags_flows.blocks import AGSConfig
from ags_flows.cloud.forks import reset_in_children
from ags_flows.functions.pool import LOOK_EVERY, Kind, Pool, Setup
from ags_flows.ownership import Frame, Place
from ags_flows.run.holder import current_execution

logger = logging.getLogger(__name__)

_BEFORE_QUEUES = 100
"""Greater than the priority with which `multiprocessing` closes queues, which is 10."""


class Pools:
    """The pools of this process, and the thread that stops idle sandboxes."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget all pools: after a fork they belong to the parent process."""
        self._changed = threading.Condition()
        self._pools: dict[tuple[Frame | None, Kind, str], Pool] = {}
        self._watched: set[Pool] = set()
        self._thread: threading.Thread | None = None
        self._looking = threading.Lock()

    def pool(self, kind: Kind, config: AGSConfig, flow_run_id: UUID | None, setup: Setup) -> Pool:
        """Return the pool of a kind for the root execution around the caller.

        Args:
            kind: What its sandboxes are.
            config: Where AGS is.
            flow_run_id: The flow run around the caller.
            setup: How its sandboxes are made.
        """
        execution = current_execution()
        root = execution.frames[0] if execution.frames else None
        name = (root, kind, config.place_key)
        with self._changed:
            if name not in self._pools:
                own = replace(execution, frames=(root,) if root else (), place=Place()).rooted()
                self._pools[name] = Pool(kind, config, own, flow_run_id, setup, self)
            return self._pools[name]

    def watch(self, pool: Pool) -> None:
        """Stop the sandboxes of a pool when they are idle for too long, and when its run is over."""
        with self._changed:
            if pool not in self._watched:
                self._watched.add(pool)
                # The last function comes first: before the one by which Prefect ends its events, which have begun.
                before_events_end(self.end_over)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="ags-functions", daemon=True)
                self._thread.start()

    def drop(self, pool: Pool) -> None:
        """Forget a pool: the next call makes a new one."""
        with self._changed:
            self._watched.discard(pool)
            self._pools = {name: one for name, one in self._pools.items() if one is not pool}

    def end_over(self) -> None:
        """Stop the sandboxes of runs that are over."""
        with self._looking:
            for pool in self._all():
                try:
                    if _is_done(pool):
                        pool.end("completed")
                except Exception:  # noqa: BLE001 - the other pools are ended nevertheless
                    logger.warning("The sandboxes of a pool are left to their leases", exc_info=True)

    def end_all(self) -> None:
        """Stop all sandboxes of runs that are over; those of a run that is not are left to its retry."""
        # The thread may be stopping sandboxes now, and would die with the process.
        with self._looking:
            for pool in self._all():
                pool.end("completed" if pool.is_outside_of_runs or _is_done(pool) else "crashed")

    def _all(self) -> set[Pool]:
        with self._changed:
            return {*self._watched, *self._pools.values()}

    def _look_at(self, pool: Pool) -> None:
        if pool.is_over():
            pool.end("completed")
        else:
            pool.end_idle()
        if pool.is_empty:
            self.drop(pool)

    def _work(self) -> None:
        while True:
            with self._changed:
                pools = list(self._watched)
            for pool in pools:
                try:
                    with self._looking:
                        self._look_at(pool)
                except Exception:  # noqa: BLE001 - the other pools are checked nevertheless
                    logger.warning("The sandboxes of a pool are left to their leases", exc_info=True)
                    self.drop(pool)
            with self._changed:
                if not self._watched:
                    self._thread = None
                    return
                self._changed.wait(LOOK_EVERY)


def _is_done(pool: Pool) -> bool:
    """Return True if no call comes any more; called when the main thread has ended.

    A process of a pool that ends before its parent has done its tasks.
    """
    parent = multiprocessing.parent_process()
    is_dismissed = parent is not None and parent.is_alive()
    return (is_dismissed and pool.is_of_another_process) or pool.is_over()


def before_events_end(action: Callable[[], None]) -> None:
    """Call a function when the main thread has ended, while events can be emitted: those of `atexit` come later.

    Python has no public function for this in a process that no other has started; Prefect ends its events in the same
    way. A process of a pool has a queue to its parent instead, by which its events go.
    """
    if multiprocessing.parent_process() is None:
        with suppress(RuntimeError):
            # The interpreter is shutting down already.
            threading._register_atexit(action)  # type: ignore[attr-defined]
        return

    def act_and_send() -> None:
        action()
        EventsWorker.instance().drain()

    Finalize(None, act_and_send, exitpriority=_BEFORE_QUEUES)


_pools_of_process = Pools()
reset_in_children(_pools_of_process.forget)


@atexit.register
def end_pools() -> None:
    """Stop the sandboxes of the functions of this process, see `Pools.end_all`. Also called at its end."""
    _pools_of_process.end_all()


def pool_of(kind: Kind, config: AGSConfig, flow_run_id: UUID | None, setup: Setup) -> Pool:
    """Return the pool of this process for a kind of sandbox, and the run around the caller. See `Pools.pool`."""
    return _pools_of_process.pool(kind, config, flow_run_id, setup)
