"""Images cached ahead of their first use. There is nothing to cache here; the records are kept as AGS keeps them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ags_flows.emulator.world.clock import iso
from ags_flows.emulator.world.configuration import REGISTRIES, digest_of, unpullable
from ags_flows.emulator.world.refusal import Refusal
from ags_flows.emulator.world.transitions import Pending, StepFailed

if TYPE_CHECKING:
    from ags_flows.emulator.world.region import Region

Json = dict[str, Any]


@dataclass
class PrecachedImage:
    """One record."""

    precache_id: str
    number: int
    image: str
    registry: str
    created: float
    status: str = "PROCESSING"
    message: str = ""
    pending: Pending | None = None

    def shown(self, *, listed: bool = False) -> Json:
        """Return it as the Cloud API shows it; ``listed`` as ``PreCacheImage``, else as the task's response."""
        shown = {
            "Image": self.image,
            "ImageDigest": digest_of(self.image),
            "ImageRegistryType": self.registry,
            "Status": self.status,
            "CreateTime": iso(self.created),
            "PreCacheImageId": self.precache_id,
            "SourceType": "EXPLICIT",
            "CachedImageSizeBytes": 0,
            "LastUsedTime": "",
        }
        if not listed:
            shown["Message"] = self.message
        return shown


class PrecachedImages:
    """The records of one region."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._world = region.world
        self._images: dict[str, PrecachedImage] = {}

    def __iter__(self) -> Iterator[PrecachedImage]:
        """Iterate over the records, newest first."""
        return iter(sorted(self._images.values(), key=lambda each: -each.number))

    def create(self, image: str | None, registry: str | None) -> PrecachedImage:
        """Begin to cache an image; a second call for the same image returns the first one's record.

        Raises:
            Refusal: when the image has neither tag nor digest or the registry type is unknown.
        """
        if not image:
            raise Refusal("MissingParameter", "The request is missing a required parameter `Image`.")
        if not re.fullmatch(r"[A-Za-z0-9][\w.:/-]*?(:[\w.-]+)?(@sha256:[0-9a-f]{64})?", image, re.ASCII) or (
            ":" not in image.rsplit("/", 1)[-1]
        ):
            raise Refusal("InvalidParameterValue.Image", f"Image {image[:80]!r} needs a tag or a digest.")
        if registry not in REGISTRIES:
            raise Refusal("InvalidParameterValue.ImageRegistry", f"ImageRegistryType {registry!r} is not known.")
        found = next((each for each in self if (each.image, each.registry) == (image, registry)), None)
        if found is not None and found.status != "FAILED":
            return found
        record = PrecachedImage(
            "pci-" + secrets.token_hex(4), self._world.next_number(), image, registry, self._world.clock.now()
        )
        record.pending = self._world.transitions.begin("precache.create")
        self._images[record.precache_id] = record
        self._world.spawn(self._finish(record))
        return record

    def find(self, request: Json) -> PrecachedImage:
        """Return the record by its id, or by image, digest and registry.

        Raises:
            Refusal: ``ResourceNotFound.Image``; ``MissingParameter`` when neither is given.
        """
        precache_id, image = request.get("PreCacheImageId"), request.get("Image")
        if precache_id:
            record = self._images.get(precache_id)
            if record is None:
                raise Refusal("ResourceNotFound.Image", f"There is no pre-cached image {precache_id}.")
            return record
        if not image:
            raise Refusal("MissingParameter", "Give either PreCacheImageId, or Image with ImageRegistryType.")
        digest, registry = request.get("ImageDigest"), request.get("ImageRegistryType")
        for record in self:
            if record.image == image and registry in (None, record.registry):
                if digest in (None, "", digest_of(record.image)):
                    return record
        raise Refusal("ResourceNotFound.Image", f"The image {image} is not pre-cached.")

    def delete(self, request: Json) -> None:
        """Forget a record.

        Raises:
            Refusal: as `find` does.
        """
        record = self.find(request)
        if record.status == "PROCESSING":
            raise Refusal("ResourceUnavailable.ImagePreheating", f"The image {record.image} is still being cached.")
        del self._images[record.precache_id]

    async def _finish(self, record: PrecachedImage) -> None:
        if record.pending is None:
            return
        failure = unpullable(record.image)
        try:
            await record.pending.wait()
        except StepFailed as failed:
            failure = str(failed)
        record.pending = None
        record.status, record.message = ("FAILED", failure) if failure else ("SUCCESS", "")
