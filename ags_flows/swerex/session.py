"""`swerex_session()`: a sandbox with a SWE-ReX server for the length of a `with` block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ags_flows.blocks import AGSConfig, resolve_config
from ags_flows.run.task_options import as_step
from ags_flows.session import sandbox_session
from ags_flows.swerex.config import AGSDeploymentConfig
from ags_flows.swerex.server import SwerexServer, open_deployment


@contextmanager
def swerex_session(
    deployment: AGSDeploymentConfig,
    config: AGSConfig | str | None = None,
    on_step: Callable[[str], object] | None = None,
) -> Iterator[SwerexServer]:
    """Yield a SWE-ReX server in a sandbox for the length of a `with` block, and end the sandbox afterwards.

    It is a `sandbox_session`: success, failure, Ctrl-C and cancellation stop the sandbox; a process that dies stops
    renewing its lease, and AGS ends the sandbox with it, unless a retry of the flow run takes it over before.

    Args:
        deployment: The configuration of the deployment.
        config: Where AGS is; by default the deployment's `ags`, or from the environment.
        on_step: Called with a sentence before each step of the start.

    Yields:
        The server, for `run_in_shell` and `connect`.

    Raises:
        ConfigurationError: No tool is given; nothing was sent.
        WaitTimeoutError: Instance and server were not ready within `startup_timeout`.
        CommandFailedError: The server could not be started in the sandbox.

    Example:
        ```python
        @flow
        def look():
            with swerex_session(AGSDeploymentConfig(tool="swebench-v1")) as server:
                run_in_shell(server, "cd /testbed")
                run_in_shell(server, "git log -1")
        ```
    """
    config = resolve_config(config or deployment.ags)
    tell = on_step or (lambda _text: None)
    began = time.monotonic()
    tell("Starting the sandbox")
    with sandbox_session(
        deployment.tool or None,
        lease=deployment.lease,
        metadata=deployment.metadata,
        custom=deployment.custom(),
        step=deployment.step,
        config=config.model_copy(update={"startup_timeout": deployment.startup_timeout}),
    ) as sandbox:
        tell(f"Waiting for SWE-ReX in {sandbox.instance.id}")
        left = deployment.startup_timeout - (time.monotonic() - began)
        yield as_step(open_deployment)(sandbox.instance, deployment, timeout=max(1.0, left), config=config)
