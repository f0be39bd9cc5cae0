"""What HTTPS costs with the emulator, beside plain HTTP."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from e2b import ApiParams, Sandbox

from bench.figure import Figure, side_by_side
from bench.sandbox import running_emulator_exports


def figures() -> Iterator[Figure]:
    """Use the real e2b SDK against two emulators in separate processes, in turns."""
    with running_emulator_exports("--tls") as (encrypted, _), running_emulator_exports() as (plain, _):
        os.environ["SSL_CERT_FILE"] = encrypted["SSL_CERT_FILE"]
        starts = [_start(exports) for exports in (encrypted, plain)]
        ours, theirs = side_by_side(*starts, rounds=30)
        yield Figure("start of an instance by HTTPS", ours / theirs, "x of HTTP", 1.5, detail=f"{ours * 1000:.1f} ms")
        commands = [_true(exports) for exports in (encrypted, plain)]
        ours, theirs = side_by_side(*commands, rounds=100)
        yield Figure("`true` in a sandbox by HTTPS", ours / theirs, "x of HTTP", 1.5, detail=f"{ours * 1000:.1f} ms")


def _options(exports: dict[str, str]) -> ApiParams:
    return ApiParams(
        api_key=exports["E2B_API_KEY"], api_url=exports["E2B_API_URL"], sandbox_url=exports["E2B_SANDBOX_URL"]
    )


def _start(exports: dict[str, str]) -> Callable[[], object]:
    return lambda: Sandbox.create("base", **_options(exports))


def _true(exports: dict[str, str]) -> Callable[[], object]:
    sandbox = Sandbox.create("base", **_options(exports))
    return lambda: sandbox.commands.run("true")
