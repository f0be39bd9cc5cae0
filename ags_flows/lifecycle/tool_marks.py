"""Compare a tool with a spec by a tag that has a short hash of every field of the spec.

Responses of AGS differ from the requests: amounts have other units, defaults are filled in, digests are resolved. The
tag makes the comparison independent of this: equal hashes mean an equal spec.
"""

from __future__ import annotations

from typing import NamedTuple

from ags_flows.models import CONTAINER_FIELDS, Tool, ToolSpec
from ags_flows.ownership import MANAGED_BY, MANAGED_BY_KEY, fingerprint

SPEC_TAG = "ags-flows-spec"
MARK_LENGTH = 6

CONTAINER = (*CONTAINER_FIELDS, "resources")
CHANGEABLE = (*CONTAINER, "description", "network", "computer")
FIXED = ("type", "role_arn", "mounts", "logs", "default_timeout", "persistent")
OURS = (MANAGED_BY_KEY, SPEC_TAG)
"""Tags that this package needs. They are kept when the other tags are replaced."""


class Difference(NamedTuple):
    """The differences between a tool and a spec.

    Attributes:
        changeable: Names of fields that differ and that AGS can update.
        fixed: Names of fields that differ and that AGS cannot update.
        known: Whether the tool has the tag, so that all differences are known.
    """

    changeable: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    known: bool = True


def mark(spec: ToolSpec) -> str:
    """Return the value of the tag: a hash of each field, in a fixed order."""
    fields = spec.model_dump(mode="json")
    return "v1:" + "".join(fingerprint(fields[name])[:MARK_LENGTH] for name in (*CHANGEABLE, *FIXED))


def difference(tool: Tool, spec: ToolSpec) -> Difference:
    """Compare a tool with a spec."""
    wanted, has = mark(spec), tool.tags.get(SPEC_TAG, "")
    shown = {
        "image": bool(spec.image) and bool(tool.image) and tool.image != spec.image,
        "type": tool.type != spec.type,
        "role_arn": bool(spec.role_arn) and tool.role_arn not in (None, spec.role_arn),
        "network": bool(tool.network_mode) and tool.network_mode != spec.network.mode,
    }
    names = (*CHANGEABLE, *FIXED)
    known = len(has) == len(wanted) and has.startswith("v1:")
    differs = {name for name, other in shown.items() if other}
    if known:
        pieces = range(len("v1:"), len(wanted), MARK_LENGTH)
        differs |= {
            name
            for name, at in zip(names, pieces, strict=True)
            if wanted[at : at + MARK_LENGTH] != has[at : at + MARK_LENGTH]
        }
    tags = ("tags",) if not spec.tags.items() <= tool.tags.items() else ()
    return Difference(
        tuple(name for name in CHANGEABLE if name in differs) + tags,
        tuple(name for name in FIXED if name in differs),
        known,
    )


def marked(spec: ToolSpec) -> ToolSpec:
    """Return the spec with the tags that this package adds to its tools."""
    return spec.model_copy(update={"tags": {**spec.tags, MANAGED_BY_KEY: MANAGED_BY, SPEC_TAG: mark(spec)}})


def is_as_specified(tool: Tool, spec: ToolSpec) -> bool:
    """Return True if this package created the tool from an equal spec."""
    return tool.tags.get(MANAGED_BY_KEY) == MANAGED_BY and tool.tags.get(SPEC_TAG) == mark(spec)
