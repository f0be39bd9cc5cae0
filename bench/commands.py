"""Short commands: `exec_command.fn` on the direct path against the bare e2b call, and durable against direct."""

from __future__ import annotations

from collections.abc import Iterator

from ags_flows.cloud.data_planes import open_plane
from ags_flows.tasks import exec_command
from bench.figure import Figure, side_by_side
from bench.sandbox import running_sandbox

ROUNDS = 60


def figures() -> Iterator[Figure]:
    """Measure `true` in one sandbox of an emulator."""
    with running_sandbox() as (config, instance):
        bare = open_plane(config.connection(), instance.id).plane.sandbox

        def direct() -> None:
            exec_command.fn(instance, "true", durable=False, log_output=False, config=config)

        def durable() -> None:
            exec_command.fn(instance, "true", log_output=False, config=config)

        ours, theirs = side_by_side(direct, lambda: bare.commands.run("true"), ROUNDS)
        detail = f"{ours * 1000:.1f} ms / {theirs * 1000:.1f} ms"
        yield Figure("exec_command.fn(durable=False) / bare e2b commands.run", ours / theirs, "x", 1.5, detail=detail)
        ours, theirs = side_by_side(durable, direct, ROUNDS)
        detail = f"{ours * 1000:.1f} ms / {theirs * 1000:.1f} ms"
        yield Figure("durable `true` / direct `true`", ours / theirs, "x", 3.0, detail=detail)
        yield Figure("durable `true` - direct `true`", (ours - theirs) * 1000, "ms", 100.0)
