"""Images that AGS caches before their first use."""

from __future__ import annotations

import time

from ags_flows.cloud import wire
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.error_mapping import IMAGE_CAUSES
from ags_flows.cloud.paging import by_token
from ags_flows.errors import NotFoundError, ServiceError, ToolFailedError, WaitTimeoutError
from ags_flows.models import PrecachedImage

INTERVAL = 2.0
_READY = ("SUCCESS", "ACTIVE", "READY")


def precache(control: ControlPlane, image: str, registry_type: str) -> PrecachedImage:
    """Request that AGS caches an image. A repeated request returns the existing cached image.

    Raises:
        ServiceError: The response of AGS has no id.
    """
    response = control.call("CreatePreCacheImageTask", {"Image": image, "ImageRegistryType": registry_type})
    if not response.get("PreCacheImageId"):
        raise ServiceError("CreatePreCacheImageTask: the response has no PreCacheImageId.")
    return look(control, str(response["PreCacheImageId"]))


def look(control: ControlPlane, precache_id: str) -> PrecachedImage:
    """Return the current state of a cached image."""
    fields = control.call("DescribePreCacheImageTask", {"PreCacheImageId": precache_id})
    return wire.precached_from_wire({"PreCacheImageId": precache_id, **fields})


def wait_precached(control: ControlPlane, known: PrecachedImage, *, timeout: float) -> PrecachedImage:
    """Return the image once it is cached.

    Raises:
        ToolFailedError: AGS could not pull it.
        WaitTimeoutError: It was not cached in time. AGS continues to pull it.
    """
    deadline = time.monotonic() + timeout
    while known.status not in _READY:
        if known.status == "FAILED":
            reason = known.message or "AGS gives no reason"
            raise ToolFailedError(f"Image {known.image!r} could not be cached: {reason}.", hint=IMAGE_CAUSES)
        if (left := deadline - time.monotonic()) <= 0:
            raise WaitTimeoutError(
                f"Image {known.image!r} is {known.status} after {timeout:g} s.",
                hint="AGS continues to pull it: wait again.",
            )
        time.sleep(min(INTERVAL, left))
        known = look(control, known.id)
    return known


def precached(control: ControlPlane, image: str | None = None) -> list[PrecachedImage]:
    """Return all cached images, or those of one image reference."""
    parameters = {"Filters": [{"Name": "Image", "Values": [image]}]} if image else {}
    listed = by_token(control.call, "DescribePreCacheImageList", parameters, "PreCacheImageList")
    found = [wire.precached_from_wire(fields) for fields in listed]
    return [one for one in found if image in (None, one.image)]


def forget_precached(control: ControlPlane, precache_id: str) -> None:
    """Remove a cached image. An image that was removed already is not an error."""
    try:
        control.call("DeletePreCacheImage", {"PreCacheImageId": precache_id})
    except NotFoundError:
        return
