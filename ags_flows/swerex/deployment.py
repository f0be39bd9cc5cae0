"""`AGSDeployment`: for programs that use SWE-ReX, a deployment like any other."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from swerex.deployment.abstract import AbstractDeployment
from swerex.deployment.hooks.abstract import CombinedDeploymentHook, DeploymentHook
from swerex.exceptions import DeploymentNotStartedError, DeploymentStartupError
from swerex.runtime.abstract import IsAliveResponse
from typing_extensions import Self

from ags_flows.run.logs import run_logger
from ags_flows.swerex.config import AGSDeploymentConfig
from ags_flows.swerex.runtime import GatewayRuntime
from ags_flows.swerex.server import SwerexServer, connect
from ags_flows.swerex.session import swerex_session

STOPPED = "The deployment was stopped while it was being started."


class AGSDeployment(AbstractDeployment):
    """SWE-ReX in a sandbox of AGS.

    `start` starts an instance, and the server in it if the tool does not, and waits until the server responds. `stop`
    stops the instance. Until then, the instance's timeout is a lease that this process renews: an agent that is killed
    leaves nothing behind. Inside of a flow run the steps are task runs, and a retry takes over the sandbox.

    Args:
        logger: By default the run's, or `ags_flows`.
        **fields: Those of `AGSDeploymentConfig`.

    Raises:
        ConfigurationError: A field breaks its rule; it is named, and nothing was sent.

    Example:
        ```python
        async with AGSDeployment(tool="swebench-v1") as deployment:
            await deployment.runtime.create_session(CreateBashSessionRequest())
            print((await deployment.runtime.run_in_session(BashAction(command="pwd"))).output)
        ```
    """

    def __init__(self, *, logger: logging.Logger | None = None, **fields: Any) -> None:
        """Check the fields; send nothing."""
        self._take(AGSDeploymentConfig(**fields), logger)

    @classmethod
    def from_config(cls, config: AGSDeploymentConfig) -> Self:
        """Return a deployment of a configuration."""
        made = cls.__new__(cls)
        made._take(config, None)
        return made

    def _take(self, config: AGSDeploymentConfig, logger: logging.Logger | None) -> None:
        self.config = config
        self.logger = logger or run_logger()  # type: ignore[assignment]
        self._hooks = CombinedDeploymentHook()
        self._opened: _Opened | None = None
        self._runtime: GatewayRuntime | None = None

    def __del__(self) -> None:
        """Leave the cleanup to the session: once garbage-collected, it stops its sandbox without an event loop."""

    def add_hook(self, hook: DeploymentHook) -> None:
        """Call a hook for every step of the start and of the stop."""
        self._hooks.add_hook(hook)

    @property
    def runtime(self) -> GatewayRuntime:
        """The runtime.

        Raises:
            DeploymentNotStartedError: It was not started, or is stopped.
        """
        if self._runtime is None:
            raise DeploymentNotStartedError()  # type: ignore[no-untyped-call]
        return self._runtime

    @property
    def instance_id(self) -> str:
        """The id of the instance.

        Raises:
            DeploymentNotStartedError: It was not started, or is stopped.
        """
        return self.runtime.instance_id

    async def is_alive(self, *, timeout: float | None = None) -> IsAliveResponse:
        """Return whether the server responds; the message has the reason if not.

        Raises:
            DeploymentNotStartedError: It was not started, or is stopped.
        """
        return await self.runtime.is_alive(timeout=timeout)

    async def start(self) -> None:
        """Start the sandbox and wait until its server responds.

        Raises:
            DeploymentStartupError: It was started before, and not stopped; or it was stopped during the start.
            ConfigurationError: No tool is given; nothing was sent.
            WaitTimeoutError: It was not ready within `startup_timeout`.
            CommandFailedError: The server could not be started in the sandbox.
            InstanceGoneError: The sandbox ended during the start.
        """
        if self._opened is not None:
            raise DeploymentStartupError("The deployment was started before: stop it first.")
        opened = self._opened = _Opened(swerex_session(self.config, on_step=self._hooks.on_custom_step))
        try:
            # In a thread, which a cancellation cannot interrupt: it stops what it gets too late.
            server = await asyncio.to_thread(opened.enter)
        except BaseException:
            if self._opened is opened:
                self._opened = None
            opened.abandon()
            raise
        if self._opened is not opened:
            raise DeploymentStartupError(STOPPED)
        self._runtime = connect(server, self.config.ags)
        self.logger.info("SWE-ReX runs in %s", server.instance_id)

    async def stop(self) -> None:
        """Stop the sandbox, also while it is being started. One that is stopped already is a success."""
        await self._end(None)

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop. In a flow, the error that ended the block decides whether the sandbox is left to a retry."""
        await self._end(error)

    async def _end(self, error: BaseException | None) -> None:
        opened = self._opened
        self._opened = self._runtime = None
        if opened is None:
            return
        self._hooks.on_custom_step("Stopping the sandbox")
        await asyncio.to_thread(opened.leave, error)


class _Opened:
    """A session that threads enter and leave, once each."""

    def __init__(self, session: AbstractContextManager[SwerexServer]) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._abandoned = self._closed = False

    def enter(self) -> SwerexServer:
        try:
            server = self._session.__enter__()
        except BaseException:
            # There is nothing to close.
            self._closed = True
            raise
        finally:
            self._ready.set()
        with self._lock:
            late = self._abandoned
        if late:
            self._close(None)
            raise DeploymentStartupError(STOPPED)
        return server

    def abandon(self) -> None:
        """Close it, now or as soon as it has been entered: its caller does not wait any more."""
        with self._lock:
            self._abandoned = True
        if self._ready.is_set():
            self._close(None)

    def leave(self, error: BaseException | None) -> None:
        """Close it, as soon as it has been entered."""
        self._ready.wait()
        self._close(error)

    def _close(self, error: BaseException | None) -> None:
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        try:
            self._session.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
        except BaseException as raised:
            if raised is not error:
                raise
