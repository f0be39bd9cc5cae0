"""Calls of the Cloud API through the `tencentcloud` SDK, over connections that are kept."""

from __future__ import annotations

import json
import threading
from typing import Any
from urllib.parse import urlsplit

from ags_flows.cloud.connection import Connection
from ags_flows.cloud.error_mapping import map_error
from ags_flows.errors import ConfigurationError, ServiceError


class Transport:
    """Signs and sends requests of one account in one region. Thread-safe: each thread has a connection of its own.

    The SDK opens a connection, with its TCP and TLS handshakes, for every call unless it is told not to.
    """

    def __init__(self, connection: Connection) -> None:
        """Check the keys; nothing is opened before the first call.

        Raises:
            CredentialsError: There are no keys.
        """
        self.connection = connection
        self._keys = connection.require_keys()
        self._local = threading.local()

    def call(self, action: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of the answer to one action.

        Raises:
            AGSFlowsError: The one that `error_mapping` gives for the code.
        """
        from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException

        url = self.connection.control_url
        try:
            answer = self._client().call_json(action, parameters)
        except TencentCloudSDKException as error:
            # Raised from None: the SDK's chain repeats the same text, and its frames hold the keys.
            raise map_error(action, error.code or "", error.message or "", error.requestId or None, url) from None
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise ServiceError(
                f"{action}: {url} answered with something that is not the Cloud API's JSON.",
                hint="Check http_endpoint, and whether a proxy answers in its place.",
            ) from None
        fields = answer.get("Response")
        if not isinstance(fields, dict):
            raise ServiceError(f"{action}: the answer of {url} has no Response.")
        return fields

    def _client(self) -> Any:
        client = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self._make_client()
        return client

    def _make_client(self) -> Any:
        from tencentcloud.ags.v20250920.ags_client import AgsClient
        from tencentcloud.common.credential import Credential
        from tencentcloud.common.profile.client_profile import ClientProfile
        from tencentcloud.common.profile.http_profile import HttpProfile

        address = urlsplit(self.connection.control_url)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise ConfigurationError(
                f"http_endpoint={self.connection.endpoint!r} is no address.",
                hint="Write a host, or a URL such as http://127.0.0.1:8600.",
            )
        profile = HttpProfile(
            protocol=address.scheme,
            endpoint=address.netloc,
            reqTimeout=int(self.connection.request_timeout),
            keepAlive=True,
        )
        if not self.connection.verify_tls:
            profile.certification = False
        token = self.connection.session_token
        credential = Credential(*self._keys, token.get_secret_value() if token else None)
        client = AgsClient(credential, self.connection.region, ClientProfile(httpProfile=profile))
        if address.hostname in ("127.0.0.1", "::1", "localhost"):
            # A proxy for the outside cannot reach this machine's loopback interface.
            client.request.conn._session.trust_env = False
            client.request.conn.proxy = None
        return client
