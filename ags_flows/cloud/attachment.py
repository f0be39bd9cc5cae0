"""The e2b SDK attached to one sandbox by access token."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ags_flows.cloud.connection import Connection
from ags_flows.cloud.live_token import LiveToken
from ags_flows.errors import AGSFlowsError, InstanceGoneError, TokenExpiredError, UnreachableError
from ags_flows.models import AccessToken

R = TypeVar("R")

ENVD_VERSION = "0.5.7"
"""Taken for granted, since an attached object cannot ask: the first version that streams uploads."""


class Attachment:
    """The live objects of the SDK for one sandbox. Thread-safe and synchronous.

    The token is acquired by the first call, and again a minute before it expires and after a 401. The call that got
    the 401 is then repeated. That is safe, since it was not executed.

    Args:
        connection: Where the data plane is.
        instance_id: The instance.
        acquire_token: Gets an access token from the control plane.
        envd_version: What to take for granted of envd.

    Attributes:
        token: The token of all its ports.
    """

    def __init__(
        self,
        connection: Connection,
        instance_id: str,
        acquire_token: Callable[[], AccessToken],
        *,
        envd_version: str = ENVD_VERSION,
    ) -> None:
        self.connection = connection
        self.instance_id = instance_id
        self._acquire_token = acquire_token
        self.token = LiveToken(acquire_token, self._swap)
        self._envd_version = envd_version
        self._lock = threading.RLock()
        self._attached: dict[type[Any], Any] = {}

    @property
    def sandbox(self) -> Any:
        """The live `e2b.Sandbox`: for what this class has no method for. It has no API key."""
        from e2b import Sandbox

        return self.attached(Sandbox)

    def attached(self, sandbox_class: type[Any]) -> Any:
        """Return the live object of a sandbox class of the SDK, one for each class, its token always the newest."""
        with self._lock:
            if sandbox_class not in self._attached:
                self._attached[sandbox_class] = self._attach(sandbox_class)
            return self._attached[sandbox_class]

    def is_alive(self) -> bool:
        """Return True if the sandbox responds."""
        try:
            return bool(self.call("look", lambda sandbox: sandbox.is_running(request_timeout=5.0)))
        except AGSFlowsError:
            return False

    def url(self, port: int) -> str:
        """Return the URL of a port."""
        return self.connection.instance_url(self.instance_id, port)

    def close(self) -> None:
        """Let go of the sandbox object and its token. Connections belong to a pool of the process."""
        with self._lock:
            self._attached.clear()
        self.token.forget()

    def call(self, what: str, action: Callable[[Any], R]) -> R:
        """Call the live sandbox with a fresh token, again after a 401, and convert errors.

        Args:
            what: What is being done, such as `read /tmp/x`, for the message of an error.
            action: Gets the live `e2b.Sandbox`.
        """
        used = self.token.fresh()
        try:
            return self._guard(what, lambda: action(self.sandbox))
        except TokenExpiredError:
            self.token.renewed(used)
            return self._guard(what, lambda: action(self.sandbox))
        except InstanceGoneError as error:
            raise self._ended_or_paused(what, error) from error

    def _ended_or_paused(self, what: str, error: InstanceGoneError) -> AGSFlowsError:
        """Return the error of a sandbox that the gateway does not find: it responds alike for a paused one."""
        try:
            # Only for a sandbox that lives.
            self._acquire_token()
        except InstanceGoneError as ended:
            return ended
        except AGSFlowsError:
            return error
        return UnreachableError(
            f"{what} in {self.instance_id}: the gateway does not reach the sandbox, which has not ended.",
            hint="If it is paused, resume it, or retry the run.",
        )

    def refresh_in_time(self) -> None:
        """Acquire a new token if it is about to expire, for callers that use an attached object directly."""
        self.token.fresh()

    def _guard(self, what: str, action: Callable[[], R]) -> R:
        from ags_flows.cloud.sandbox_errors import map_sandbox_error

        try:
            return action()
        except AGSFlowsError:
            raise
        except Exception as error:
            mapped = map_sandbox_error(error, self.instance_id, what)
            if mapped is None:
                raise
            raise mapped from error

    def _attach(self, sandbox_class: Any) -> Any:
        from ags_flows.cloud.e2b_internals import attach

        token = self.token.fresh()
        url = self.connection.data_url
        return attach(
            sandbox_class,
            self.instance_id,
            token.token.get_secret_value(),
            domain=self.connection.domain if url is None else "emulator.invalid",
            sandbox_url=url,
            envd_version=self._envd_version,
            request_timeout=self.connection.runtime_timeout,
        )

    def _swap(self, token: AccessToken) -> None:
        from ags_flows.cloud.e2b_internals import swap_token

        with self._lock:
            for sandbox in self._attached.values():
                swap_token(sandbox, token.token.get_secret_value())
