"""The SWE-ReX server in a sandbox: started there, waited for, and spoken to."""

from __future__ import annotations

import threading
import time

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.cloud.data_planes import open_plane
from ags_flows.durable.command import Command, DurableCommand, Following
from ags_flows.errors import CommandFailedError
from ags_flows.models import ExecResult, Instance, PortNumber
from ags_flows.models.value import Value
from ags_flows.ownership import shared_step
from ags_flows.run.logs import run_logger
from ags_flows.run.task_options import sandbox_task
from ags_flows.swerex.config import AGSDeploymentConfig
from ags_flows.swerex.own_loop import wait_for
from ags_flows.swerex.runtime import GatewayRuntime
from ags_flows.tasks.instances import instance_id

SERVES_BY_ITSELF = "swebench"
"""The type of tools whose sandboxes come with a running server."""


class SwerexServer(Value):
    """A SWE-ReX server that runs in a sandbox: enough to speak to it from any step, in any process."""

    instance_id: str
    port: PortNumber = 8000
    timeout: float = 60.0

    @property
    def id(self) -> str:
        """Its name in logs."""
        return self.instance_id


def connect(server: SwerexServer, config: AGSConfig | str | None = None) -> GatewayRuntime:
    """Return a runtime of SWE-ReX for a server. Nothing is sent yet.

    Args:
        server: Of `swerex_session` or `open_deployment`.
        config: Where AGS is, or the name of a saved block; by default the environment.

    Example:
        ```python
        runtime = connect(server)
        await runtime.create_session(CreateBashSessionRequest())
        observation = await runtime.run_in_session(BashAction(command="ls"))
        ```
    """
    connection = resolve_config(config).connection()
    return GatewayRuntime(connection, server.instance_id, port=server.port, timeout=server.timeout)


@sandbox_task("open SWE-ReX", "instance")
def open_deployment(
    instance: Instance | str,
    deployment: AGSDeploymentConfig | None = None,
    timeout: float | None = None,
    config: AGSConfig | str | None = None,
) -> SwerexServer:
    """Wait until the SWE-ReX server of a running instance responds. Start it there if the tool does not.

    A retry finds the server that an earlier attempt started, with its shells. The caller that started the instance also
    stops it: `swerex_session` does both.

    Args:
        instance: The instance or its id.
        deployment: How the server is started.
        timeout: Seconds to wait, by default the deployment's `startup_timeout`.
        config: Where AGS is; by default the deployment's, or from the environment.

    Raises:
        CommandFailedError: The server ended instead of serving; with its output.
        WaitTimeoutError: It did not respond in time.
        InstanceGoneError: The sandbox ended during the wait.

    Example:
        ```python
        with sandbox_session(tool="swebench-v1") as sandbox:
            server = open_deployment(sandbox.instance)
        ```
    """
    deployment = deployment or AGSDeploymentConfig()
    config = resolve_config(config or deployment.ags)
    reference = instance_id(instance)
    server = SwerexServer(instance_id=reference, port=deployment.port, timeout=deployment.runtime_timeout)
    deadline = time.monotonic() + (deployment.startup_timeout if timeout is None else timeout)
    runtime = connect(server, config)
    starter = _Starter(deployment, reference, config) if _has_to_start(deployment, instance, config) else None
    try:
        wait_for(
            runtime.wait_until_alive(
                timeout=max(0.0, deadline - time.monotonic()), check=starter.check if starter else None
            )
        )
    finally:
        if starter:
            starter.leave()
    run_logger().info("SWE-ReX responds on port %s of %s", server.port, reference)
    return server


def _has_to_start(deployment: AGSDeploymentConfig, instance: Instance | str, config: AGSConfig) -> bool:
    if deployment.start_server is not None:
        return deployment.start_server
    control = config.control_plane()
    tool = instance.tool_id if isinstance(instance, Instance) else control.get_instance(instance).tool_id
    return control.get_tool(tool).type != SERVES_BY_ITSELF


class _Starter:
    """Starts the server as a durable command, and notices when it ends before it serves."""

    def __init__(self, deployment: AGSDeploymentConfig, reference: str, config: AGSConfig) -> None:
        self._plane = open_plane(config.connection(), reference).plane
        self._command = deployment.server_command
        self._user = deployment.server_user
        self._left = threading.Event()
        self._ended: ExecResult | None = None
        command = Command(self._command, self._user, env={"SWEREX_PORT": str(deployment.port)})
        following = Following(on_note=run_logger().debug, cancelled=self._left, limit=1 << 14)
        # One server for each port, which every caller finds.
        self._server = DurableCommand(self._plane, command, following).start(shared_step(f"swerex-{deployment.port}"))
        threading.Thread(target=self._follow, name="ags-swerex-server", daemon=True).start()

    def check(self) -> None:
        """Raise when the server has ended."""
        if self._ended is None:
            return
        told = (self._ended.stderr or self._ended.stdout).strip()[-2_000:]
        raise CommandFailedError(
            f"The SWE-ReX server ended with exit code {self._ended.exit_code}: {self._command}\n{told}",
            hint="The image needs the package swe-rex (pip install swe-rex), or a server_command that finds it.",
            result=self._ended,
        )

    def leave(self) -> None:
        """Stop following; the server continues."""
        self._left.set()

    def _follow(self) -> None:
        try:
            self._ended = self._server.wait()
        except Exception:  # noqa: BLE001 - the wait for the server reports the failure
            return
