"""The checks, in the order in which they run."""

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

GROUPS = [
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
