"""The tool of an image that is named without one: made once, and found again by its name."""

from __future__ import annotations

import re

from ags_flows.models import Network, Resources, ToolSpec
from ags_flows.ownership import fingerprint


def image_tool(
    prefix: str, image: str, cpu: str | None = None, memory: str | None = None, network: Network | None = None
) -> ToolSpec:
    """Return the spec of the tool of an image. Its name begins with a prefix, and ends with a hash of all else.

    Args:
        prefix: Such as `fn`.
        image: The image.
        cpu: Cores, by default those of `Resources()`.
        memory: Such as `2Gi`, by default that of `Resources()`.
        network: How its sandboxes reach out, by default that of `Network()`.

    Raises:
        ConfigurationError: A field breaks its rule.
    """
    given: dict[str, object] = {name: value for name, value in (("cpu", cpu), ("memory", memory)) if value is not None}
    resources = Resources(**given)  # type: ignore[arg-type]
    slug = re.sub(r"[^A-Za-z0-9]+", "-", image.rpartition("/")[2]).strip("-")[:30]
    network = network or Network()
    key = fingerprint([image, resources.model_dump(), network.model_dump()])[:8]
    return ToolSpec(name=f"{prefix}-{slug}-{key}", image=image, resources=resources, network=network)
