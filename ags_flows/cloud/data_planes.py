"""The data planes that this process has open: one an instance, shared by all tasks and threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

from ags_flows.cloud.connection import Connection
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.gone import telling_of_its_end
from ags_flows.models import AccessToken

MOST_OPEN = 1_000
"""An attached sandbox costs some 26 KiB and no connection of its own: the bound only stops growth without end."""


class OpenPlane(NamedTuple):
    """A data plane, and the flag that tells threads that still follow a command in it to stop."""

    plane: DataPlane
    cancelled: threading.Event


_open: OrderedDict[tuple[Connection, str], OpenPlane] = OrderedDict()
_lock = threading.Lock()


def open_plane(connection: Connection, instance_id: str) -> OpenPlane:
    """Return the data plane of an instance; its token is acquired by the first call that needs it."""
    key = (connection, instance_id)
    with _lock:
        if key not in _open:
            control = ControlPlane.of(connection)
            plane = DataPlane(connection, instance_id, lambda: _token(control, instance_id))
            _open[key] = OpenPlane(plane, threading.Event())
        _open.move_to_end(key)
        found = _open[key]
        surplus = [_open.popitem(last=False)[1] for _ in range(max(0, len(_open) - MOST_OPEN))]
    for old in surplus:
        old.plane.close()
    return found


def close_plane(connection: Connection, instance_id: str) -> None:
    """Let go of an instance that is ending: whoever still follows a command in it stops within a second.

    A pooled thread is not interrupted by Prefect, so that the flag is what ends it.
    """
    with _lock:
        found = _open.pop((connection, instance_id), None)
    if found is not None:
        found.cancelled.set()
        found.plane.close()


def _token(control: ControlPlane, instance_id: str) -> AccessToken:
    with telling_of_its_end(control, instance_id):
        return control.acquire_token(instance_id)
