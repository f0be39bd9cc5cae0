"""The environment, read in one place and at the moment of use.

| variable | meaning |
|---|---|
| `TENCENTCLOUD_SECRET_ID`, `TENCENTCLOUD_SECRET_KEY` | CAM keys |
| `TENCENTCLOUD_TOKEN` | third part of temporary (STS) keys |
| `TENCENTCLOUD_ROLE_ARN` | role for private registries and mounts |
| `E2B_API_KEY` | key for the E2B-compatible API |
| `AGS_ENDPOINT` | control plane; a URL of an emulator points the data plane there too |
| `AGS_REGION`, or `TENCENTCLOUD_REGION` | region |
| `AGS_DOMAIN`, `AGS_TIMEOUT`, `AGS_IMAGE`, ... | any other field of `AGSConfig`, in upper case |
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class KeysFromEnvironment(BaseSettings):
    """Keys of Tencent Cloud. Empty variables count as not set."""

    model_config = SettingsConfigDict(env_prefix="TENCENTCLOUD_", env_ignore_empty=True, extra="ignore")

    secret_id: SecretStr | None = None
    secret_key: SecretStr | None = None
    token: SecretStr | None = None


class E2BFromEnvironment(BaseSettings):
    """Key of the E2B-compatible API. An empty variable counts as not set."""

    model_config = SettingsConfigDict(env_prefix="E2B_", env_ignore_empty=True, extra="ignore")

    api_key: SecretStr | None = None


class ConfigFromEnvironment(BaseSettings):
    """The fields of `AGSConfig` that are not secret, as the environment has them.

    Values stay text: `AGSConfig` checks and converts them, as it does with arguments.
    """

    model_config = SettingsConfigDict(env_prefix="AGS_", env_ignore_empty=True, extra="ignore")

    http_endpoint: str | None = Field(default=None, validation_alias=AliasChoices("AGS_ENDPOINT", "AGS_HTTP_ENDPOINT"))
    region: str | None = Field(default=None, validation_alias=AliasChoices("AGS_REGION", "TENCENTCLOUD_REGION"))
    role_arn: str | None = Field(default=None, validation_alias=AliasChoices("AGS_ROLE_ARN", "TENCENTCLOUD_ROLE_ARN"))
    skip_ssl_verify: str | None = None
    domain: str | None = None
    tool_id: str | None = None
    image: str | None = None
    image_registry_type: str | None = None
    timeout: str | None = None
    lease: str | None = None
    port: str | None = None
    startup_timeout: str | None = None
    runtime_timeout: str | None = None
    cpu: str | None = None
    memory: str | None = None
    mount_name: str | None = None
    mount_image: str | None = None
    mount_image_registry_type: str | None = None
    mount_path: str | None = None
    image_subpath: str | None = None
    mount_readonly: str | None = None


def keys_from_environment() -> KeysFromEnvironment:
    """Return the keys of Tencent Cloud that the environment has."""
    # Every step of a sandbox reads this. Without the cache that takes a millisecond, as long as a short command.
    names = (f"TENCENTCLOUD_{field.upper()}" for field in KeysFromEnvironment.model_fields)
    return _keys_in(tuple(map(os.environ.get, names)))


@lru_cache(maxsize=1)
def _keys_in(values: tuple[str | None, ...]) -> KeysFromEnvironment:
    return KeysFromEnvironment()


def config_from_environment() -> dict[str, Any]:
    """Return the fields of `AGSConfig` that the environment sets."""
    return ConfigFromEnvironment().model_dump(exclude_none=True)


def e2b_key_from_environment() -> SecretStr | None:
    """Return the E2B API key that the environment has, if any."""
    return E2BFromEnvironment().api_key
