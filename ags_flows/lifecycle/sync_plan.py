"""Compare a list of images with the existing tools: missing, different and surplus tools."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from ags_flows.errors import ConfigurationError
from ags_flows.lifecycle.tool_marks import difference
from ags_flows.models import Drift, SyncedTool, Tool, ToolSpec
from ags_flows.ownership import MANAGED_BY, MANAGED_BY_KEY, SYNCED_TAG

LONGEST_NAME = 50
IMAGE_TAG = "ags-flows-image"


def tool_name_of(image: str, prefix: str = "") -> str:
    """Return the name of an image's tool: readable, at most 50 characters, and different for each image.

    The name has the image's repository and tag without the registry's host, and eight characters of a hash of the
    whole reference. It does not depend on other images in the list.

    Raises:
        ConfigurationError: The prefix is too long or has invalid characters.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,30}", prefix):
        raise ConfigurationError(f"prefix: {prefix!r} is not valid. Use at most 30 letters, digits, '_' or '-'.")
    host, _, rest = image.partition("/")
    readable = rest if rest and ("." in host or ":" in host or host == "localhost") else image
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", readable).strip("-")
    digest = hashlib.sha256(image.encode()).hexdigest()[:8]
    room = LONGEST_NAME - len(prefix) - len(digest) - 1
    # Keep the end rather than the beginning, because it has the version.
    return f"{prefix}{slug[-room:].strip('-_')}-{digest}"


def specs_of(images: Sequence[str], template: ToolSpec | None, group: str, prefix: str) -> dict[str, ToolSpec]:
    """Return the spec of the tool for each different image.

    Raises:
        ConfigurationError: The list is empty, or an image is empty. The message has its 1-based number.
    """
    wanted: dict[str, ToolSpec] = {}
    for number, image in enumerate(images, 1):
        if not image.strip():
            raise ConfigurationError(f"images: number {number} is empty.")
        name = tool_name_of(image.strip(), prefix)
        given = {field: getattr(template, field) for field in template.model_fields_set} if template else {}
        tags = {**given.get("tags", {}), SYNCED_TAG: group, IMAGE_TAG: image.strip()}
        wanted[image.strip()] = ToolSpec(**{**given, "name": name, "image": image.strip(), "tags": tags})
    if not wanted:
        raise ConfigurationError(
            "images: the list is empty.", hint="To delete all tools of a group, delete them one by one."
        )
    return wanted


def drift(wanted: dict[str, ToolSpec], known: Sequence[Tool], group: str) -> list[SyncedTool]:
    """Compare the wanted tools with the existing ones.

    Returns:
        An entry for each image, and one for each tool of this group whose image is no longer in the list.
    """
    by_name = {tool.name: tool for tool in known}
    entries = []
    for image, spec in wanted.items():
        tool = by_name.get(spec.name)
        if tool is None:
            entries.append(SyncedTool(name=spec.name, image=image, drift="missing"))
            continue
        found = difference(tool, spec)
        kind: Drift = "differs" if found.changeable else "in step"
        if found.fixed or tool.status == "FAILED":
            kind = "replace"
        entries.append(
            SyncedTool(name=spec.name, image=image, id=tool.id, drift=kind, fields=found.changeable + found.fixed)
        )
    names = {spec.name for spec in wanted.values()}
    for tool in known:
        ours = tool.tags.get(MANAGED_BY_KEY) == MANAGED_BY and tool.tags.get(SYNCED_TAG) == group
        if ours and tool.name not in names:
            image = tool.tags.get(IMAGE_TAG) or tool.image or ""
            entries.append(SyncedTool(name=tool.name, image=image, id=tool.id, drift="surplus"))
    return entries
