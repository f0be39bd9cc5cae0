"""The checks, in the order in which they run."""

from collections.abc import Sequence

from ags_flows.verify.check import Group
from ags_flows.verify.groups import (
    code,
    commands,
    credentials,
    durable_commands,
    errors,
    files,
    gateway,
    instances,
    leases,
    pausing,
    quotas,
    snapshots,
    take_over,
    tokens,
    tools,
)

GROUPS: list[Group] = [
    module.GROUP
    for module in (
        credentials,
        tools,
        instances,
        tokens,
        gateway,
        files,
        commands,
        durable_commands,
        take_over,
        leases,
        pausing,
        snapshots,
        code,
        quotas,
        errors,
    )
]
"""All groups."""


def creates(only: Sequence[str] = ()) -> tuple[int, int]:
    """Return how many tools and instances the checks of some groups, or of all, create at most."""
    chosen = [group for group in GROUPS if not only or group.name in only]
    tools = sum(group.tools for group in chosen) + any("tool" in group.shares for group in chosen)
    return tools, sum(group.instances for group in chosen) + any("instance" in group.shares for group in chosen)
