"""What to say of an instance that was refused something because it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.errors import AGSFlowsError, ConflictError, InstanceGoneError, NotFoundError
from ags_flows.models import Instance
from ags_flows.ownership import LIVE


@contextmanager
def telling_of_its_end(control: ControlPlane, instance_id: str) -> Iterator[None]:
    """Turn the refusal of a call about an instance into the news that it has ended, where that is the reason.

    Raises:
        InstanceGoneError: It has ended.
    """
    try:
        yield
    except (ConflictError, NotFoundError) as error:
        known = _known(control, instance_id)
        if known is None and isinstance(error, NotFoundError):
            # Mistyped, as likely as ended: the refusal says it as it is.
            raise
        if ended := _ended(instance_id, known):
            raise ended from None
        raise


def end_of(control: ControlPlane, instance_id: str) -> InstanceGoneError | None:
    """Return the news that an instance has ended, None while it lives, or when AGS cannot be asked."""
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
