"""Clients that wait for RUNNING and clients that expect it, with both kinds of start."""

import asyncio
import time

import httpx
import pytest
from swerex.runtime.abstract import Command

from ags_flows import sandbox_session
from ags_flows.emulator import Emulator
from ags_flows.lifecycle.waiting import wait_instance_running
from ags_flows.models import ToolSpec
from ags_flows.swerex import AGSDeployment, AGSDeploymentConfig
from ags_flows.testing import config_for

KINDS = {"async": "STARTING", "at-once": "RUNNING"}


@pytest.fixture(scope="module", params=KINDS)
def emulator(request):
    with Emulator(start=request.param) as emulator:
        yield emulator


def test_a_start_returns_the_declared_status_also_after_a_reset(emulator):
    control = config_for(emulator).control_plane()
    assert control.start_instance(tool="base").status == KINDS[emulator.settings.start]
    emulator.transition("instance.start", "seconds", 0.01, times=1)
    emulator.reset()
    assert control.start_instance(tool="base").status == KINDS[emulator.settings.start]


@pytest.mark.parametrize("start", [None, *KINDS])
@pytest.mark.parametrize("recorded", [None, "STARTING", "RUNNING"])
def test_an_explicit_option_beats_the_profile(start, recorded):
    answers = {"start.status": recorded} if recorded else {}
    with Emulator(profile={"answers": answers}, **({"start": start} if start else {})) as emulator:
        expected = KINDS[start] if start else recorded or "STARTING"
        assert config_for(emulator).control_plane().start_instance(tool="base").status == expected


@pytest.mark.parametrize("status", KINDS.values())
def test_the_request_and_the_start_take_as_long_as_the_profile_has_it(status):
    answers = {"start.status": status, "call.seconds": 0.1, "start.call.seconds": 0.6, "start.seconds": 0.5}
    with Emulator(profile={"answers": answers}) as emulator:
        control = config_for(emulator).control_plane()
        began = time.monotonic()
        instance = control.start_instance(tool="base")
        called = time.monotonic()
        assert (instance.status, called - began >= 0.6) == (status, True)
        wait_instance_running(control, instance.id, timeout=20)
        assert time.monotonic() - began >= (1.1 if status == "STARTING" else 0.6)


def test_our_client_works_with_both(emulator):
    with sandbox_session(tool="base", config=config_for(emulator)) as sandbox:
        assert sandbox.run("echo here").stdout == "here\n"


@pytest.fixture
def serving(emulator):
    """An emulator with a tool whose sandboxes serve SWE-ReX."""
    emulator.reset()
    emulator.transition("tool.create", "at_once")
    spec = ToolSpec(name="swe", type="swebench", image="swebench/base:latest", image_registry_type="system")
    config_for(emulator).control_plane().create_tool(spec, client_token="swe")
    return emulator


def is_alive_right_after_the_start(emulator):
    """Return the first response of the server, as deployments of SWE-ReX do that expect the instance to be RUNNING."""
    control = config_for(emulator).control_plane()
    instance = control.call("StartSandboxInstance", {"ToolName": "swe", "Timeout": "10m"})["Instance"]
    token = control.call("AcquireSandboxInstanceToken", {"InstanceId": instance["InstanceId"]})["Token"]
    url = f"{emulator.url}/sandbox/{instance['InstanceId']}/8000/is_alive"
    return httpx.get(url, headers={"X-Access-Token": token}, timeout=30)


def test_a_client_that_expects_a_running_instance_needs_an_immediate_start(serving):
    if serving.settings.start == "async":
        serving.transition("instance.start", "never")
        # Such a client concludes that the sandbox has expired.
        assert is_alive_right_after_the_start(serving).status_code == 404
        serving.reset()
    else:
        # The sandbox is there; its server still starts, for which every client waits.
        assert is_alive_right_after_the_start(serving).status_code in (200, 502)


def test_our_deployment_of_swe_rex_works_with_both(serving):
    async def work():
        config = AGSDeploymentConfig(tool="swe", lease="2m", startup_timeout=60, ags=config_for(serving))
        async with AGSDeployment.from_config(config) as deployment:
            return await deployment.runtime.execute(Command(command="echo here", shell=True))

    assert asyncio.run(work()).stdout == "here\n"
