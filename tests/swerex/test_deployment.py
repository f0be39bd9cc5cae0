"""An agent's deployment: its start, its end, and everything that may come between them."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time

import pytest
from swerex.deployment.abstract import AbstractDeployment
from swerex.deployment.config import get_deployment
from swerex.deployment.hooks.status import SetStatusDeploymentHook
from swerex.exceptions import DeploymentNotStartedError, DeploymentStartupError
from swerex.runtime.abstract import AbstractRuntime, BashAction, Command, CreateBashSessionRequest

from ags_flows.emulator.code_interpreter.places import isolated_places
from ags_flows.errors import CommandFailedError, ConfigurationError, InstanceFailedError, WaitTimeoutError
from ags_flows.models import ToolSpec
from ags_flows.swerex import AGSDeployment, AGSDeploymentConfig


def in_this_machines_python():
    """A command that serves SWE-ReX by the Python and the packages that code interpreters get from this machine."""
    places = isolated_places()
    found = f"PYTHONPATH={':'.join(places.packages)} LD_LIBRARY_PATH={places.libraries or ''}"
    return f'echo serving on $SWEREX_PORT; {found} exec {places.python} -m swerex --port "$SWEREX_PORT" --auth-token ""'


def test_a_deployment_starts_calls_its_hooks_and_stops(configured, live, ags_config):
    """Each call has a separate event loop, as in notebooks and synchronous tools."""
    told = []
    image = "swebench/sweb.eval.x86_64.django:latest"
    deployment = get_deployment(configured(image=image, metadata={"case": "1"}))
    assert isinstance(deployment, AbstractDeployment)
    deployment.add_hook(SetStatusDeploymentHook("one", lambda name, message: told.append((name, message))))
    with pytest.raises(DeploymentNotStartedError):
        asyncio.run(deployment.is_alive())
    asyncio.run(deployment.start())
    assert isinstance(deployment.runtime, AbstractRuntime)
    assert asyncio.run(deployment.is_alive(timeout=20))
    with pytest.raises(DeploymentStartupError, match="stop it first"):
        asyncio.run(deployment.start())
    asyncio.run(deployment.runtime.create_session(CreateBashSessionRequest(startup_timeout=10)))
    seen = asyncio.run(deployment.runtime.run_in_session(BashAction(command="echo here")))
    assert seen.output.strip() == "here"
    (instance,) = live()
    assert instance.id == deployment.instance_id
    assert (instance.metadata["case"], instance.metadata["managed-by"]) == ("1", "ags-flows")
    assert instance.timeout == 120
    started = ags_config.control_plane().call("DescribeSandboxInstanceList", {"InstanceIds": [instance.id]})
    chosen = started["InstanceSet"][0]["CustomConfiguration"]
    assert (chosen["Image"], chosen["ImageRegistryType"]) == (image, "system")
    asyncio.run(deployment.stop())
    assert not live()
    with pytest.raises(DeploymentNotStartedError):
        _ = deployment.runtime
    asyncio.run(deployment.stop())
    assert [message.split(" in ")[0] for name, message in told] == [
        "Starting the sandbox",
        "Waiting for SWE-ReX",
        "Stopping the sandbox",
    ]


def test_the_server_is_started_where_the_tool_has_none(configured, live, ags_config):
    tool = ToolSpec(name="has-python", type="code-interpreter")

    async def main():
        config = configured(tool=tool, server_command=in_this_machines_python(), port=9100)
        async with AGSDeployment.from_config(config) as deployment:
            told = await deployment.runtime.execute(Command(command="id -un; echo $SWEREX_PORT", shell=True))
            assert told.stdout == "root\n9100\n"

    asyncio.run(main())
    assert not live()
    assert not ags_config.control_plane().list_tools(name="has-python")


FROM_THE_INDEX = """python3 -m venv /tmp/swerex && /tmp/swerex/bin/pip install --quiet swe-rex &&
exec /tmp/swerex/bin/swerex-remote --port "$SWEREX_PORT" --auth-token ""
"""


@pytest.mark.skipif(not os.environ.get("PACKAGE_INDEX"), reason="downloads for half a minute: `make network`")
def test_the_server_is_installed_from_the_package_index_in_another_tool(configured, live):
    tool = ToolSpec(name="mine", image="python:3.11")

    async def main():
        config = configured(tool=tool, server_command=FROM_THE_INDEX, startup_timeout=170)
        async with AGSDeployment.from_config(config) as deployment:
            await deployment.runtime.create_session(CreateBashSessionRequest(startup_timeout=10))
            told = await deployment.runtime.run_in_session(BashAction(command="ls /tmp/swerex/bin/swerex-remote"))
            assert told.exit_code == 0

    asyncio.run(main())
    assert not live()


def test_a_server_that_does_not_start_has_a_reason_and_leaves_nothing(configured, live):
    config = configured(tool=ToolSpec(name="bare", image="python:3.11"))
    with pytest.raises(CommandFailedError, match=r"exit code 127(?s:.)*swerex-remote(?s:.)*pip install swe-rex"):
        asyncio.run(config.get_deployment().start())
    assert not live()


def test_a_server_that_is_too_slow_is_given_up_within_the_startup_timeout(configured, live):
    began = time.monotonic()
    config = configured(tool=ToolSpec(name="slow", image="python:3.11"), server_command="sleep 60", startup_timeout=3)
    with pytest.raises(WaitTimeoutError, match="startup_timeout"):
        asyncio.run(config.get_deployment().start())
    assert time.monotonic() - began < 20
    assert not live()


def test_an_instance_that_fails_to_start_is_reported(configured, sandboxes, live):
    sandboxes.transition("instance.start", "fail", reason="no such image")
    with pytest.raises(InstanceFailedError):
        asyncio.run(configured().get_deployment().start())
    assert not live()


def test_a_start_that_is_cancelled_or_stopped_and_a_deployment_that_is_forgotten_leave_nothing(
    configured, sandboxes, live
):
    sandboxes.transition("instance.start", "seconds", 2)

    async def cancelled():
        starting = asyncio.ensure_future(configured().get_deployment().start())
        await asyncio.sleep(0.7)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    asyncio.run(cancelled())
    assert not live()

    async def stopped():
        deployment = configured(step="stopped").get_deployment()
        starting = asyncio.ensure_future(deployment.start())
        await asyncio.sleep(0.7)
        await asyncio.gather(deployment.stop(), deployment.stop())
        assert not live()
        with pytest.raises(DeploymentStartupError, match="stopped while"):
            await starting
        with pytest.raises(DeploymentNotStartedError):
            _ = deployment.runtime

    asyncio.run(stopped())
    sandboxes.reset_transitions()

    async def forgotten():
        deployment = configured(start_server=False, step="forgotten").get_deployment()
        await deployment.start()
        assert live()
        del deployment
        gc.collect()

    asyncio.run(forgotten())
    assert not live()


AGENT = """
import asyncio
from swerex.runtime.abstract import BashAction, CreateBashSessionRequest
from ags_flows.swerex import AGSDeployment

async def main():
    async with AGSDeployment(tool="swe", lease="30s") as deployment:
        await deployment.runtime.create_session(CreateBashSessionRequest(startup_timeout=10))
        print(deployment.instance_id, flush=True)
        await deployment.runtime.run_in_session(BashAction(command="sleep 600"))

asyncio.run(main())
"""


def test_an_agent_that_is_killed_leaves_nothing_once_its_lease_is_over(configured, sandboxes, live):
    configured()
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT],
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **sandboxes.environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        instance = agent.stdout.readline().strip()
        assert [one.id for one in live()] == [instance]
        agent.send_signal(signal.SIGKILL)
        agent.wait(30)
        assert [one.id for one in live()] == [instance]
        sandboxes.advance(31)
        deadline = time.monotonic() + 30
        while live():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        agent.kill()
        agent.wait()
        agent.stdout.close()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tool": ""}, "No tool is given"),
        ({"port": 0}, "port: .*greater than or equal to 1.*got 0"),
        ({"image": "not an image"}, "image: .*not an image.*is not an image reference"),
        ({"image": "x.tencentcloudcr.com/a/b:1", "image_registry_type": "personal"}, "does not fit image"),
        ({"lease": "5s"}, "lease: .*5s.*out of range"),
        ({"startup_timeout": float("nan")}, "startup_timeout: "),
        ({"runtime_timeout": -1}, r"runtime_timeout: .*greater than 0.*got -1"),
        ({"server_command": " "}, "server_command: "),
        ({"type": "docker"}, "type: .*'ags'"),
        ({"imagee": "x:1"}, "imagee: "),
    ],
)
def test_a_wrong_field_is_named_before_any_request(fields, told, ags_emulator, ags_config):
    before = ags_emulator.overview()["requests"]
    with pytest.raises(ConfigurationError, match=told):
        asyncio.run(AGSDeployment(**{"tool": "swe", "ags": ags_config, **fields}).start())
    assert ags_emulator.overview()["requests"] == before


def test_a_configuration_survives_json_and_holds_no_secret():
    config = AGSDeploymentConfig(tool="swe", image="swebench/x:latest", lease="90s")
    assert AGSDeploymentConfig.model_validate_json(config.model_dump_json()) == config
    assert "ags" not in config.model_dump()
