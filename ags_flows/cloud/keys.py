"""Where the keys of the control plane come from: fixed ones, or temporary ones that are renewed before they expire.

The SDK's own credential classes do the work, and are asked before every request. This module adds what they lack: time
limits, errors that explain what to do, and an error if a metadata service does not respond.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from ags_flows.cloud.error_mapping import map_error
from ags_flows.errors import AGSFlowsError, CredentialsError, ServiceError, UnreachableError

if TYPE_CHECKING:
    from ags_flows.cloud.connection import Connection

Method = Literal["keys", "assume-role", "cvm-role", "tke-oidc", "profile"]

DEFAULT_STS = "sts.tencentcloudapi.com"
METADATA = "http://metadata.tencentyun.com/latest/meta-data/"
METADATA_TIMEOUT = 5.0

_HINTS: Mapping[str, str] = {
    "assume-role": "Check role_arn, and that these keys may call sts:AssumeRole for it.",
    "cvm-role": "This works on a CVM to which a role is bound, and nowhere else: check cvm_role_name, or use another "
    "method.",
    "tke-oidc": "This works in pods of TKE whose service account is bound to a role: TKE_REGION, TKE_PROVIDER_ID, "
    "TKE_WEB_IDENTITY_TOKEN_FILE and TKE_ROLE_ARN are set there.",
}


@dataclass(frozen=True)
class KeySource:
    """How to get temporary keys. Compares by value.

    Attributes:
        method: `keys` for fixed ones; where the keys of a profile were read, they are fixed ones too.
        role_arn: The role to assume.
        session_name: The name of the session in audit logs.
        seconds: How long temporary keys live, 600 to 43200.
        sts_endpoint: Host of STS.
        cvm_role: The role that is bound to this CVM; empty: read from the metadata service.
        metadata_url: The metadata service of this CVM.
    """

    method: Method = "keys"
    role_arn: str = ""
    session_name: str = "ags-flows"
    seconds: int = 7200
    sts_endpoint: str = DEFAULT_STS
    cvm_role: str = ""
    metadata_url: str = METADATA


class Credential(Protocol):
    """What a client of the SDK wants of a credential."""

    def get_credential_info(self) -> tuple[str, str, str | None]:
        """Return SecretId, SecretKey and token, renewed if they expire soon."""


def credential_of(connection: Connection) -> Credential:
    """Return the SDK's credential for a connection. Nothing is sent before it is asked.

    Raises:
        CredentialsError: Keys, or the variables that name a role, are missing.
    """
    from tencentcloud.common import credential as sdk
    from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException

    source = connection.key_source
    if source.method == "cvm-role":
        return _cvm_role(source)
    if source.method == "tke-oidc":
        try:
            made = sdk.DefaultTkeOIDCRoleArnProvider().get_credential()
        except OSError as error:
            raise CredentialsError(f"tke-oidc: {error}.", hint=_HINTS["tke-oidc"]) from None
        made.endpoint = source.sts_endpoint
        return _Renewed(made, source)
    keys = connection.require_keys()
    token = connection.session_token.get_secret_value() if connection.session_token else None
    try:
        fixed: Credential = sdk.Credential(*keys, token)
    except TencentCloudSDKException as error:
        hint = "Copy them again, without what stands around them."
        raise CredentialsError(f"The keys cannot be used: {error.message}.", hint=hint) from None
    if source.method != "assume-role":
        return fixed
    if token:
        raise CredentialsError(
            "assume-role: the keys are temporary ones, which cannot assume a role here.",
            hint="Give the keys of a CAM user without a session token, or use method 'keys' with these.",
        )
    made = sdk.STSAssumeRoleCredential(
        *keys, source.role_arn, source.session_name, source.seconds, endpoint=source.sts_endpoint
    )
    return _Renewed(made, source)


def keys_of_profile() -> tuple[str, str]:
    """Return SecretId and SecretKey of the SDK's profile file, `~/.tencentcloud/credentials` or below `/etc`.

    Raises:
        CredentialsError: There is no such file, or it has no section `default` with both.
    """
    from configparser import Error

    from tencentcloud.common.credential import ProfileCredential
    from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException

    try:
        found = ProfileCredential().get_credential()
    except (AttributeError, Error, OSError, UnicodeDecodeError, TencentCloudSDKException) as error:
        # Without a section [default] the SDK stumbles over its own attribute.
        reason = "it has no section [default]" if isinstance(error, AttributeError) else type(error).__name__
        raise CredentialsError(f"profile: the file cannot be used: {reason}.", hint=_PROFILE) from None
    if found is None:
        raise CredentialsError("profile: there are no keys in it.", hint=_PROFILE)
    return str(found.secret_id).strip("\"'"), str(found.secret_key).strip("\"'")


_PROFILE = "Write secret_id and secret_key below [default] in ~/.tencentcloud/credentials."


class _Renewed:
    """A credential of the SDK that asks STS, with its failures as ours."""

    def __init__(self, inner: Any, source: KeySource) -> None:
        self._inner = inner
        self._source = source

    def get_credential_info(self) -> tuple[str, str, str | None]:
        from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException

        method, url = self._source.method, f"https://{self._source.sts_endpoint}"
        failure: AGSFlowsError
        try:
            return self._inner.get_credential_info()  # type: ignore[no-any-return]
        except TencentCloudSDKException as error:
            failure = map_error(method, error.code or "", str(error.message or ""), error.requestId or None, url)
            if not failure.retryable:
                failure = CredentialsError(
                    failure.message, hint=_HINTS[method], code=failure.code, request_id=failure.request_id
                )
        except OSError as error:
            failure = CredentialsError(f"{method}: {error}.", hint=_HINTS[method])
        except (ValueError, KeyError, TypeError):
            failure = ServiceError(f"{method}: {url} returned something that is not a response of STS.")
        # Raised outside of the handlers: the frames of the SDK hold the keys.
        raise failure


def _cvm_role(source: KeySource) -> Credential:
    """Return the SDK's credential of a CVM, whose own requests have no time limit and swallow every failure."""
    from tencentcloud.common.credential import CVMRoleCredential

    # The metadata service is a neighbour: no proxy leads there.
    opener = build_opener(ProxyHandler({}))
    roles = f"{source.metadata_url.rstrip('/')}/cam/security-credentials/"

    def get(url: str) -> str:
        try:
            with opener.open(url, timeout=METADATA_TIMEOUT) as answer:
                return str(answer.read().decode())
        except (URLError, OSError, UnicodeDecodeError) as error:
            text = f"cvm-role: no response from the metadata service at {url} ({getattr(error, 'reason', error)})."
            raise UnreachableError(text, hint=_HINTS["cvm-role"]) from None

    class RoleOfThisCvm(CVMRoleCredential):  # type: ignore[misc]
        role: str | None

        def update_credential(self) -> None:
            if not self._need_refresh():
                return
            self.role = self.role or get(roles).strip()
            told = get(roles + self.role)
            try:
                fields = json.loads(told)
                if fields.get("Code") != "Success":
                    raise CredentialsError(
                        f"cvm-role: the metadata service has no keys for the role {self.role!r}: {fields.get('Code')}.",
                        hint=_HINTS["cvm-role"],
                    )
                self._secret_id, self._secret_key = fields["TmpSecretId"], fields["TmpSecretKey"]
                self._token, self._expired_ts = fields["Token"], fields["ExpiredTime"]
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ServiceError("cvm-role: the metadata service returned something other than keys.") from None

    return RoleOfThisCvm(source.cvm_role or None)
