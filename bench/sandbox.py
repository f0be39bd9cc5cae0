"""A running sandbox of an emulator in a separate process, as in real use: client and server share no interpreter."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from ags_flows import AGSConfig, TencentCloudCredentials
from ags_flows.demo.servers import emulator
from ags_flows.models import Instance, ToolSpec
from ags_flows.tasks import create_tool, start_instance, wait_instance_running, wait_tool_active


@contextmanager
def running_emulator_process(*options: str) -> Iterator[AGSConfig]:
    """Yield a configuration for an emulator that runs in another process, with more options."""
    with tempfile.TemporaryDirectory(prefix="ags-bench-") as directory, emulator(Path(directory), *options) as exports:
        keys = TencentCloudCredentials(
            secret_id=exports["TENCENTCLOUD_SECRET_ID"], secret_key=exports["TENCENTCLOUD_SECRET_KEY"]
        )
        url = exports["AGS_ENDPOINT"]
        yield AGSConfig(http_endpoint=url, domain=url, credentials=keys)


@contextmanager
def running_emulator_exports(*options: str) -> Iterator[tuple[dict[str, str], int]]:
    """Yield what clients of an emulator in another process need, and the id of that process."""
    with tempfile.TemporaryDirectory(prefix="ags-bench-") as directory, emulator(Path(directory), *options) as exports:
        port = int(exports["AGS_ENDPOINT"].rsplit(":", 1)[1])
        listening = [one.pid for one in psutil.net_connections() if one.status == "LISTEN" and one.laddr.port == port]
        yield exports, int(listening[0] or 0)


@contextmanager
def running_sandbox() -> Iterator[tuple[AGSConfig, Instance]]:
    """Yield a configuration and a running instance."""
    with running_emulator_process() as config:
        tool = create_tool.fn(ToolSpec(name="bench", image="python:3.11"), config=config)
        wait_tool_active.fn(tool, config=config)
        instance = start_instance.fn(tool, config=config)
        yield config, wait_instance_running.fn(instance, config=config)
