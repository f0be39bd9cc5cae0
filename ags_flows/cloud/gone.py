"""The error of calls that AGS refuses because the instance has ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.errors import AGSFlowsError, ConflictError, InstanceGoneError, NotFoundError
from ags_flows.models import Instance
from ags_flows.ownership import LIVE


@contextmanager
def telling_of_its_end(control: ControlPlane, instance_id: str) -> Iterator[None]:
    """Raise InstanceGoneError in place of the error of a call if the reason is that the instance has ended.

    Raises:
        InstanceGoneError: It has ended.
    """
    try:
        yield
    except (ConflictError, NotFoundError) as error:
        known = _known(control, instance_id)
        if known is None and isinstance(error, NotFoundError):
            # The id may be mistyped: then the error of AGS is the better one.
            raise
        if ended := _ended(instance_id, known):
            raise ended from None
        raise


def end_of(control: ControlPlane, instance_id: str) -> InstanceGoneError | None:
    """Return the error for an instance that has ended. Return None while it lives, or if AGS cannot be asked."""
    try:
        return _ended(instance_id, _known(control, instance_id))
    except AGSFlowsError:
        return None


def _known(control: ControlPlane, instance_id: str) -> Instance | None:
    return next(iter(control.list_instances(ids=[instance_id])), None)


def _ended(instance_id: str, known: Instance | None) -> InstanceGoneError | None:
    if known is not None and known.status in LIVE:
        return None
    if known is None:
        told = "AGS does not know it any more"
    else:
        told = "its timeout was over" if known.stop_reason == "timeout" else known.stop_reason or known.status
    return InstanceGoneError(
        f"Instance {instance_id} has ended ({told}).",
        hint="Start another one; give it a longer timeout, or use sandbox_session, which renews it.",
    )
