"""The facade has the methods, arguments and defaults that users of the older tool know."""

import inspect
import typing

import pytest
from pydantic import SecretStr

from ags_flows import AGSConfig, AGSRuntime
from ags_flows.blocks import ConfigFields
from ags_flows.errors import ConfigurationError

KNOWN = {
    "create_tool": """tool_name, image, command=None, command_args=None, network_mode='PUBLIC', tool_description='',
        tool_default_timeout='5m', role_arn='', image_registry_type='enterprise', ports=None, env_vars=None, cpu='1',
        memory='2Gi', probe_path='/', probe_port=80, probe_scheme='HTTP', probe_ready_timeout_ms=30000,
        probe_timeout_ms=1000, probe_period_ms=100, probe_success_threshold=1, probe_failure_threshold=100, tags=None,
        storage_mounts=None, wait_for_active=True""",
    "list_tools": "tool_ids=None, limit=20, offset=0",
    "get_tool": "tool_id=None",
    "delete_tool": "tool_id",
    "start_instance": "tool_id=None, tool_name=None, timeout=None, custom_config=None",
    "list_instances": "instance_ids=None, tool_id=None, status=None, limit=20",
    "stop_instance": "instance_id",
    "acquire_token": "instance_id",
    "get_instance_url": "instance_id, port=None",
    "create_e2b_sandbox": "tool_name, timeout=600, api_key=None",
    "execute_command_in_sandbox": """sandbox, command, user='root', background=False, timeout=None, on_stdout=None,
        on_stderr=None""",
    "execute_code_in_sandbox": "sandbox, code, language='python', on_stdout=None, on_stderr=None, timeout=None",
    "upload_file_to_sandbox": "sandbox, local_path, remote_path, user='root'",
}

FIELDS = {
    "type": "tencentags",
    "http_endpoint": "ags.tencentcloudapi.com",
    "skip_ssl_verify": False,
    "region": "ap-guangzhou",
    "domain": "ap-guangzhou.tencentags.com",
    "tool_id": "",
    "image": "python:3.11",
    "image_registry_type": "enterprise",
    "timeout": "1h",
    "port": 8000,
    "startup_timeout": 180.0,
    "runtime_timeout": 60.0,
    "cpu": "1",
    "memory": "1Gi",
    "role_arn": "",
    "mount_name": "",
    "mount_image": "",
    "mount_image_registry_type": "enterprise",
    "mount_path": "/nix",
    "image_subpath": "/nix",
    "mount_readonly": False,
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_method_takes_what_it_always_took_and_new_arguments_last(name):
    parameters = list(inspect.signature(getattr(AGSRuntime, name)).parameters.values())[1:]
    shown = [
        each.name if each.default is each.empty else f"{each.name}={each.default!r}"
        for each in parameters
        if each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    known = " ".join(KNOWN[name].split()).split(", ")
    assert shown[: len(known)] == known
    assert all("=" in one for one in shown[len(known) :])


def test_the_configuration_has_its_fields_and_defaults():
    config = AGSConfig()
    assert {name: getattr(config, name) for name in FIELDS} == FIELDS
    assert AGSRuntime(config).get_instance_url("abc") == "https://8000-abc.ap-guangzhou.tencentags.com"


MOUNT = {
    "mount_name": "envd-storage",
    "mount_image": "ccr.ccs.tencentyun.com/namespace/envd-tools:latest",
    "mount_image_registry_type": "personal",
    "mount_path": "/envd",
    "image_subpath": "/envd",
    "mount_readonly": True,
}
CONSTRUCTORS = {
    'AGSRuntime(region="ap-guangzhou", domain="ap-guangzhou.tencentags.com")': {},
    'AGSRuntime(secret_id="AKIDown", secret_key="own", region="ap-guangzhou")': {"secret_id": SecretStr("AKIDown")},
    """AGSRuntime(region="ap-guangzhou", domain="ap-guangzhou.tencentags.com", mount_name="envd-storage",
        mount_image="ccr.ccs.tencentyun.com/namespace/envd-tools:latest", mount_image_registry_type="personal",
        mount_path="/envd", image_subpath="/envd", mount_readonly=True)""": MOUNT,
    "AGSRuntime(AGSConfig())": {},
    "AGSRuntime(config=AGSConfig(timeout='5m'))": {"timeout": "5m"},
    "AGSRuntime(AGSConfig(timeout='5m', lease='1h'), timeout='10m')": {"timeout": "10m", "lease": "1h"},
}


@pytest.mark.parametrize("example", CONSTRUCTORS)
def test_the_constructor_takes_what_it_always_took(example, monkeypatch):
    monkeypatch.setenv("TENCENTCLOUD_SECRET_ID", "AKIDenvironment")
    monkeypatch.setenv("TENCENTCLOUD_SECRET_KEY", "of the environment")
    names: dict[str, typing.Any] = {}
    exec(f"from ags_flows import AGSConfig, AGSRuntime\nruntime = {example}", names)
    runtime, changed = names["runtime"], CONSTRUCTORS[example]
    assert {name: getattr(runtime.config, name) for name in {**FIELDS, **changed}} == {**FIELDS, **changed}
    keys = changed.get("secret_id", SecretStr("AKIDenvironment"))
    assert runtime.connection.secret_id == keys
    assert runtime.get_instance_url("abc") == "https://8000-abc.ap-guangzhou.tencentags.com"


def test_a_domain_that_follows_the_region_follows_a_new_region():
    assert AGSRuntime(AGSConfig(), region="ap-shanghai").config.domain == "ap-shanghai.tencentags.com"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"regoin": "ap-guangzhou"}, "no field 'regoin'. Did you mean 'region'"),
        ({"colour": "blue"}, "no field 'colour'. Its fields: "),
        ({"timeout": "5 minutes"}, "timeout"),
    ],
)
def test_a_field_that_is_wrong_is_refused_by_name(fields, said):
    with pytest.raises(ConfigurationError, match=said):
        AGSRuntime(**fields)


def test_each_field_of_the_configuration_is_a_typed_argument():
    hints = typing.get_type_hints(ConfigFields)
    assert set(hints) == set(AGSConfig.model_fields)
    for name, field in AGSConfig.model_fields.items():
        secret = str | SecretStr
        assert hints[name] == (secret if field.annotation is SecretStr else field.annotation), name
