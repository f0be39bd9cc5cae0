"""A queue in a sandbox whose disk is full."""

import uuid

import pytest

from ags_flows import sandbox_session
from ags_flows.cloud.data_planes import open_plane
from ags_flows.durable.command import Command
from ags_flows.durable.queue import QueuedItem, SandboxQueue
from ags_flows.errors import InstanceFailedError
from ags_flows.models import Resources, ToolSpec
from ags_flows.ownership import Frame, Holder


def test_a_full_disk_is_an_error_of_the_sandbox(ags_emulator, ags_config):
    small = ToolSpec(name="small", image="python:3.11", resources=Resources(storage="1Gi"))
    with sandbox_session(small, config=ags_config) as session:
        if "tmpfs" not in session.run("df -T ~").stdout:
            pytest.skip("this machine gives sandboxes no disks of a size")
        opened = open_plane(ags_config.connection(), session.instance.id)
        holder = Holder((Frame("flow", "run", 1), Frame("call", "call")))
        queue = SandboxQueue(*opened, Command("true"), uuid.uuid4().hex, holder, 100)
        assert [one.how for found in queue.run([QueuedItem("first", {})]) for one in found] == ["done"]
        ags_emulator.fill_disk(session.instance.id)
        with pytest.raises(InstanceFailedError, match="disk of sandbox .* is full"):
            list(queue.run([QueuedItem("next", {})]))
        ags_emulator.fill_disk(session.instance.id, False)
