"""A running sandbox whose lease this process renews, until it stops the sandbox or leaves it to a retry."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.data_planes import OpenPlane, close_plane, open_plane
from ags_flows.cloud.retry import persistently
from ags_flows.errors import AGSFlowsError, SupersededError
from ags_flows.lifecycle.lease import Lease, keep_lease
from ags_flows.lifecycle.open_sandbox import Launch, open_sandbox, release
from ags_flows.models import Instance
from ags_flows.ownership import Holder


@dataclass(eq=False)
class LeasedSandbox:
    """A running sandbox with its lease. Thread-safe.

    Attributes:
        instance: The instance.
        plane: Its data plane. The waits in it end when the lease is lost.
        lease: Its lease.
        taken_over: Whether an earlier attempt started it.
    """

    instance: Instance
    plane: OpenPlane
    lease: Lease
    taken_over: bool
    _control: ControlPlane = field(repr=False)
    _on_trouble: Callable[[str], None] = field(repr=False)

    @property
    def id(self) -> str:
        """The instance's id."""
        return self.instance.id

    @property
    def lost(self) -> bool:
        """Whether it has ended, or a later attempt of the run has it."""
        return self.lease.lost is not None

    @property
    def is_superseded(self) -> bool:
        """Whether a later attempt of the run has it."""
        return isinstance(self.lease.lost, SupersededError)

    def wake(self, reason: AGSFlowsError | None = None) -> None:
        """End the waits in it within a second.

        Args:
            reason: The error that they end with.
        """
        close_plane(self._control.connection, self.id, self.plane, reason)

    def leave(self) -> None:
        """Let go of it: a retry takes it over, or its lease ends it."""
        self.lease.release()
        self.wake()

    def give_up(self) -> bool:
        """Record in it that it is stopped now. Return False if it must not be: a later attempt of the run has it.

        From then on no retry takes it over, so the request to stop it must follow immediately.
        """
        self.lease.release()
        if self.is_superseded:
            return False
        if release(self._control, self._control.connection, self.instance):
            return True
        self._on_trouble(f"A later attempt of this run works in sandbox {self.id}: it is left alone.")
        return False

    def stop(self) -> bool:
        """Stop it, unless a later attempt has it. Return whether it was stopped; otherwise its lease ends it."""
        is_mine = self.give_up()
        self.wake()
        if not is_mine:
            return False
        # Its data plane may be another one since its lease was lost.
        close_plane(self._control.connection, self.id)
        try:
            persistently(lambda: self._control.stop_instance(self.id))
        except AGSFlowsError as error:
            self._on_trouble(f"Sandbox {self.id} is left to its lease and the reaper: {error}")
            return False
        return True


def lease_sandbox(
    control: ControlPlane,
    instance: Instance,
    seconds: int,
    holder: Holder | None,
    *,
    age: float,
    taken_over: bool = False,
    on_trouble: Callable[[str], None],
) -> LeasedSandbox:
    """Renew the lease of a running sandbox from now on.

    Args:
        control: The control plane.
        instance: The instance, whose timeout the caller has set to `seconds`.
        seconds: Length of the lease.
        holder: The caller. See `keep_lease`.
        age: Seconds since the timeout was set.
        taken_over: Whether an earlier attempt started it.
        on_trouble: Called with a sentence when a renewal fails, when the lease is lost, and when it cannot be stopped.
    """
    connection = control.connection
    plane = open_plane(connection, instance.id)
    lease = keep_lease(
        control,
        instance.id,
        seconds,
        holder,
        age=age,
        on_trouble=on_trouble,
        on_lost=lambda error: close_plane(connection, instance.id, plane, error),
    )
    return LeasedSandbox(instance, plane, lease, taken_over, control, on_trouble)


def open_leased(
    control: ControlPlane,
    launch: Launch,
    candidates: Iterable[Instance] | None = None,
    *,
    on_trouble: Callable[[str], None],
) -> LeasedSandbox:
    """Take over or start a sandbox, and renew its lease from now on. See `open_sandbox` and `lease_sandbox`.

    Args:
        control: The control plane.
        launch: The sandbox to get. Its `lease` is set.
        candidates: Instances of earlier attempts. Default: they are listed.
        on_trouble: Called with a sentence for each candidate that cannot be taken over, and as in `lease_sandbox`.
    """
    assert launch.lease is not None
    began = time.monotonic()
    instance, taken_over = open_sandbox(control, control.connection, launch, candidates, on_trouble=on_trouble)
    return lease_sandbox(
        control,
        instance,
        launch.lease,
        launch.step.holder,
        age=time.monotonic() - began,
        taken_over=taken_over,
        on_trouble=on_trouble,
    )
