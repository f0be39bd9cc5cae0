"""Pause and resume an instance. Repeated requests are safe."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.gone import telling_of_its_end
from ags_flows.errors import ConflictError
from ags_flows.lifecycle.waiting import wait_instance_status
from ags_flows.models import Instance
from ags_flows.ownership import RESUMABLE


def pause(control: ControlPlane, instance_id: str, *, memory: bool, timeout: float) -> Instance:
    """Pause an instance and wait until it is PAUSED. An instance that is paused already is not an error.

    Args:
        control: The control plane.
        instance_id: The instance.
        memory: Whether to keep the memory.
        timeout: Seconds to wait.

    Raises:
        InstanceGoneError: The instance has ended.
        ConflictError: The instance cannot be paused in its current state.
        WaitTimeoutError: The instance was not PAUSED in time.
    """
    _unless(control, instance_id, RESUMABLE, lambda: control.pause_instance(instance_id, memory=memory))
    return wait_instance_status(control, instance_id, goal="PAUSED", timeout=timeout)


def resume(
    control: ControlPlane, instance_id: str, *, lease: str | int, timeout: float, is_paused: bool = False
) -> Instance:
    """Resume an instance and wait until it is RUNNING. Wait first for a pause that is in progress.

    An instance that is running already is not an error.

    Args:
        control: The control plane.
        instance_id: The instance.
        lease: New timeout of the instance.
        timeout: Seconds for each wait.
        is_paused: Whether the caller knows that no pause is in progress. This saves a request.

    Raises:
        InstanceGoneError: The instance has ended.
        WaitTimeoutError: The instance was not RUNNING in time.
    """
    if not is_paused and control.get_instance(instance_id).status == "PAUSING":
        wait_instance_status(control, instance_id, goal="PAUSED", timeout=timeout)
    underway = ("RESUMING", "RUNNING")
    _unless(control, instance_id, underway, lambda: control.resume_instance(instance_id, timeout=lease))
    return wait_instance_status(control, instance_id, goal="RUNNING", timeout=timeout)


def _unless(control: ControlPlane, instance_id: str, reached: Collection[str], change: Callable[[], None]) -> None:
    """Apply a state change. Ignore ConflictError if the instance is in one of the target states already."""
    with telling_of_its_end(control, instance_id):
        try:
            change()
        except ConflictError:
            if control.get_instance(instance_id).status not in reached:
                raise
