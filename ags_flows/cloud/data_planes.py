"""The data planes that this process has open: one an instance, shared by all tasks and threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple
from weakref import WeakSet

from ags_flows.cloud.connection import Connection
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.forks import ModuleLock
from ags_flows.cloud.gone import telling_of_its_end
from ags_flows.errors import AGSFlowsError
from ags_flows.models import AccessToken

MOST_OPEN = 1_000
"""An attached sandbox needs about 26 KiB and no separate connection: the limit only prevents unbounded growth."""

_lock = ModuleLock()


class Cancellation(threading.Event):
    """A flag that ends waits in a sandbox.

    Args:
        causes: Flags that set this one too.

    Attributes:
        reason: The exception that the waits end with, None for the usual one.
    """

    def __init__(self, *causes: Cancellation) -> None:
        super().__init__()
        self.reason: BaseException | None = None
        self._effects: WeakSet[Cancellation] = WeakSet()
        for cause in causes:
            with _lock:
                cause._effects.add(self)
            if cause.is_set():
                self.end(cause.reason)

    def end(self, reason: BaseException | None = None) -> None:
        """Set the flag, and those that it causes."""
        self.reason = reason
        self.set()
        with _lock:
            effects = list(self._effects)
        for effect in effects:
            effect.end(reason)


class OpenPlane(NamedTuple):
    """A data plane, and the flag that stops threads that still follow a command in it."""

    plane: DataPlane
    cancelled: Cancellation


_open: OrderedDict[tuple[Connection, str], OpenPlane] = OrderedDict()


def open_plane(connection: Connection, instance_id: str) -> OpenPlane:
    """Return the data plane of an instance; its token is acquired by the first call that needs it."""
    key = (connection, instance_id)
    with _lock:
        if key not in _open:
            control = ControlPlane.of(connection)
            plane = DataPlane(connection, instance_id, lambda: _token(control, instance_id))
            _open[key] = OpenPlane(plane, Cancellation())
        _open.move_to_end(key)
        found = _open[key]
        surplus = [_open.popitem(last=False)[1] for _ in range(max(0, len(_open) - MOST_OPEN))]
    for old in surplus:
        old.plane.close()
    return found


def open_new_plane(connection: Connection, instance_id: str) -> OpenPlane:
    """Return a new data plane of an instance that a later attempt has taken over in the same process.

    The earlier attempt keeps the old one, with its own flag: what ends its waits does not end those of its successor.
    """
    with _lock:
        _open.pop((connection, instance_id), None)
    return open_plane(connection, instance_id)


def close_plane(
    connection: Connection,
    instance_id: str,
    opened: OpenPlane | None = None,
    reason: AGSFlowsError | None = None,
) -> None:
    """End the waits in an instance within a second: a thread of a task runner is not interrupted by Prefect.

    Args:
        connection: Of the data plane.
        instance_id: The instance.
        opened: Only this data plane. Default: the present one, of an instance that ends.
        reason: The error that the waits end with.
    """
    with _lock:
        known = _open.get((connection, instance_id))
        closing = opened or known
        if known is not None and known is closing:
            del _open[connection, instance_id]
    if closing is not None:
        closing.cancelled.end(reason)
        closing.plane.close()


def _token(control: ControlPlane, instance_id: str) -> AccessToken:
    with telling_of_its_end(control, instance_id):
        return control.acquire_token(instance_id)
