"""Calls of the Cloud API through the `tencentcloud` SDK, over connections that are kept."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ags_flows.cloud.certificates import certificate_file
from ags_flows.cloud.connection import Connection
from ags_flows.cloud.error_mapping import map_error, map_status
from ags_flows.cloud.forks import reset_in_children
from ags_flows.cloud.keys import Credential, credential_of
from ags_flows.cloud.proxies import proxy_for
from ags_flows.cloud.sdk_log import mask_secrets
from ags_flows.cloud.tracing import request_span
from ags_flows.errors import AGSFlowsError, ConfigurationError, ServiceError, UnreachableError

MOST_KEPT = 16
"""Idle connections that are kept; more are opened while more threads call concurrently."""

KEPT_FOR = 50.0
"""Seconds after which an unused connection is not trusted any more: gateways drop idle ones silently."""


class Transport:
    """Signs and sends requests of one account in one region. Thread-safe.

    The SDK opens a connection, with its TCP and TLS handshakes, for every call unless keep-alive is set,
    and one of its clients serves one thread at a time. So there is a stack of clients: each call takes the one that
    was used last, or a new one when all are in use.
    """

    def __init__(self, connection: Connection) -> None:
        """Check keys and endpoint; open nothing before the first call.

        Raises:
            CredentialsError: There are no keys.
            ConfigurationError: The endpoint is not a URL.
        """
        self.connection = connection
        self._credential = credential_of(connection)
        address_of(connection)
        self._idle: list[_Client] = []
        self._lock = threading.Lock()
        _transports.add(self)

    def call(self, action: str, parameters: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """Send one action once, without a retry, and return the fields of its response.

        Args:
            action: The action's name.
            parameters: Its parameters, as the API takes them.
            timeout: Seconds to connect, and seconds to wait for data. Default: the connection's `request_timeout`.

        Raises:
            AGSFlowsError: The one that `error_mapping` gives for the code.
        """
        with request_span(f"ags.{action}", region=self.connection.region):
            return self._call(action, parameters, timeout or self.connection.request_timeout)

    def _call(self, action: str, parameters: dict[str, Any], timeout: float) -> dict[str, Any]:
        from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException

        url = self.connection.control_url
        failure: AGSFlowsError | None = None
        # Temporary keys are renewed here, so that a failure is distinct from one of the action.
        self._credential.get_credential_info()
        with self._client(timeout) as client:
            try:
                answer = client.sdk.call_json(action, parameters)
            except TencentCloudSDKException as error:
                failure = self._failure(action, error, client)
            except OSError as error:
                # The SDK reads the body without its error handling; errors of `requests` are OSErrors.
                failure = map_error(action, "ServerNetworkError", str(error), None, url)
            except (ValueError, KeyError, TypeError) as error:
                if not client.status:
                    raise ConfigurationError(f"{action}: the parameters are not JSON: {error}.") from None
                failure = ServiceError(
                    f"{action}: {url} returned something that is not JSON of the Cloud API.",
                    hint="Check http_endpoint, and whether a proxy responds in its place.",
                )
            if isinstance(failure, UnreachableError):
                client.used = 0.0
        if failure is not None:
            # Raised outside of the handlers: the SDK's chain repeats the text, and its frames hold the keys.
            raise failure
        return self._fields(action, answer)

    def close(self) -> None:
        """Close all idle connections; the next call opens one again."""
        with self._lock:
            surplus, self._idle = self._idle, []
        for client in surplus:
            client.close()

    def _failure(self, action: str, error: Any, client: _Client) -> AGSFlowsError:
        url, message = self.connection.control_url, error.message or ""
        if isinstance(message, bytes):
            message = message.decode(errors="replace")
        if client.status != 200 and error.code == "ServerNetworkError":
            return map_status(action, client.status, message, client.retry_after, url)
        return map_error(action, error.code or "", message, error.requestId or None, url, client.retry_after)

    def _fields(self, action: str, answer: Any) -> dict[str, Any]:
        fields = answer.get("Response") if isinstance(answer, dict) else None
        if not isinstance(fields, dict):
            raise ServiceError(f"{action}: the JSON from {self.connection.control_url} has no Response.")
        error = fields.get("Error")
        if isinstance(error, dict):
            # The SDK overlooks errors when the content type has a charset.
            code, message = str(error.get("Code") or ""), str(error.get("Message") or "")
            raise map_error(action, code, message, fields.get("RequestId"), self.connection.control_url)
        return fields

    def reset_after_fork(self) -> None:
        """Keep neither connections nor a held lock of the parent process, which goes on using them."""
        self._idle, self._lock = [], threading.Lock()

    @contextmanager
    def _client(self, timeout: float) -> Iterator[_Client]:
        client = self._take() or self._make_client()
        client.sdk.request.conn.timeout = timeout
        _set_proxy(client.sdk.request.conn, self.connection)
        client.status, client.retry_after = 0, None
        client.used = time.monotonic()
        try:
            yield client
        except BaseException:
            # It may have been interrupted in the middle of a response: the next call must not read the rest.
            client.used = 0.0
            raise
        finally:
            with self._lock:
                kept = client.used > 0 and len(self._idle) < MOST_KEPT
                if kept:
                    self._idle.append(client)
            if not kept:
                client.close()

    def _take(self) -> _Client | None:
        with self._lock:
            fresh = [client for client in self._idle if time.monotonic() - client.used < KEPT_FOR]
            stale = [client for client in self._idle if client not in fresh]
            self._idle = fresh
            taken = self._idle.pop() if self._idle else None
        for client in stale:
            client.close()
        return taken

    def _make_client(self) -> _Client:
        return _Client(sdk_client(self.connection, self._credential))


_transports: weakref.WeakSet[Transport] = weakref.WeakSet()


def _reset_transports() -> None:
    for transport in list(_transports):
        transport.reset_after_fork()


reset_in_children(_reset_transports)


def sdk_client(connection: Connection, credential: Credential, keep_alive: bool = True) -> Any:
    """Return the SDK's own client of AGS."""
    from tencentcloud.ags.v20250920.ags_client import AgsClient
    from tencentcloud.common.profile.client_profile import ClientProfile
    from tencentcloud.common.profile.http_profile import HttpProfile

    mask_secrets()
    address = address_of(connection)
    profile = HttpProfile(
        protocol=address.scheme, endpoint=address.netloc, reqTimeout=connection.request_timeout, keepAlive=keep_alive
    )
    profile.certification = certificate_file() if connection.verify_tls else False
    client = AgsClient(credential, connection.region, ClientProfile(httpProfile=profile))
    _set_proxy(client.request.conn, connection)
    return client


def _set_proxy(http: Any, connection: Connection) -> None:
    """Set the proxy of an SDK client: the SDK and requests read the environment by other rules than the data plane."""
    proxy = proxy_for(connection.control_url)
    http._session.trust_env = False
    http.proxy = {"http": proxy, "https": proxy} if proxy else None


def address_of(connection: Connection) -> SplitResult:
    """Return the control plane's URL.

    Raises:
        ConfigurationError: The endpoint is not a URL.
    """
    address = urlsplit(connection.control_url)
    try:
        usable = address.scheme in ("http", "https") and address.hostname and address.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            f"http_endpoint={connection.endpoint!r} is not a URL.",
            hint="Write a host, or a URL such as http://127.0.0.1:8600.",
        )
    return address


@dataclass(eq=False)
class _Client:
    """A client of the SDK with its connection, and details of the last response that the SDK does not return."""

    sdk: Any
    used: float = 0.0
    status: int = 0
    retry_after: float | None = None
    session: Any = field(init=False)

    def __post_init__(self) -> None:
        self.session = self.sdk.request.conn._session
        self.session.hooks["response"].append(self._note)

    def close(self) -> None:
        self.session.close()

    def _note(self, response: Any, **_: Any) -> None:
        self.status = response.status_code
        try:
            self.retry_after = max(0.0, float(response.headers.get("Retry-After")))
        except (TypeError, ValueError):
            self.retry_after = None
