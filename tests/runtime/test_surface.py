"""The facade has the methods, arguments and defaults that users of the older tool know."""

import inspect

import pytest

from ags_flows import AGSConfig, AGSRuntime

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
