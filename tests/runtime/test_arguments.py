"""Every argument of the facade is checked before anything is sent, and named in the error."""

import inspect
import math
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ags_flows import AGSRuntime
from ags_flows.errors import ConfigurationError
from tests.arguments import ANYTHING, HUGE, LONG, Unshown

METHODS = {
    name: method for name, method in inspect.getmembers(AGSRuntime, inspect.isfunction) if not name.startswith("_")
}
PARAMETERS = [(name, one) for name, method in METHODS.items() for one in inspect.signature(method).parameters]
PARAMETERS = [(name, one) for name, one in PARAMETERS if one != "self"]
GIVEN = {
    "sandbox": SimpleNamespace(sandbox_id="sdi-x"),
    "command": "true",
    "code": "1",
    "image": "x",
    "local_path": "no-such-file",
}
ALWAYS_WRONG = ["\0", "\ud800", LONG, HUGE, 10**400, Unshown(), [Unshown()], {Unshown(): "x"}, {1: 2}, object(), {"a"}]
TAKEN = {
    ("execute_command_in_sandbox", "command"): (LONG,),
    ("execute_code_in_sandbox", "code"): (LONG, "\0"),
    # Left out, as in the older tool.
    ("start_instance", "timeout"): (0,),
    **{
        (name, one): ("",)
        for name, one in PARAMETERS
        if one in ("tool_id", "tool_name") and name in ("start_instance", "list_instances", "get_tool", "list_tools")
    },
}
"""What is valid here."""

WRONG = {
    "limit": ["x", math.nan, -1, True, 1.5],
    "offset": ["x", math.nan, -1, True],
    "wait_for_active": ["no", 0],
    "background": ["no", 0],
    "timeout": ["soon", math.nan, -1, 0, True],
    "probe_port": [0, True, "x"],
    "memory": [2, "2GB"],
    "env_vars": [5, [5], [{}], [{"name": "A=B", "value": "x"}], [{"name": "A", "value": "1"}] * 2],
    "tags": [5, [5], [{}], [{"key": "", "value": "x"}]],
    "ports": [5, [5], [{}], [{"name": "x", "port": 0}], [{"name": "x", "port": True}]],
    "storage_mounts": [5, [5], [{}], [{"name": "x", "mount_path": "x", "image": "x:1"}]],
    "custom_config": [5, "x", {"x": 1}, {"image": 5}, {"env_vars": 5}, {"command": "x"}, {"probe_port": 0}],
    **dict.fromkeys(("tool_ids", "instance_ids"), ["abc", 5, [5], [""], ["a/b"]]),
    **dict.fromkeys(("tool_id", "tool_name", "instance_id"), ["", 5, "a/b", ["a"]]),
}


def call(runtime, name, **arguments):
    needed = {
        one.name: GIVEN.get(one.name, "sdi-x")
        for one in inspect.signature(METHODS[name]).parameters.values()
        if one.default is inspect.Parameter.empty and one.name != "self"
    }
    return getattr(runtime, name)(**{**needed, **arguments})


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS, ids=lambda one: one)
def test_other_values_are_refused_by_name_before_any_request(name, parameter, runtime, ags_emulator):
    before = ags_emulator.overview()["requests"]
    of = inspect.signature(METHODS[name]).parameters[parameter]
    wrong = [*WRONG.get(parameter, []), *ALWAYS_WRONG, *([] if "None" in str(of.annotation) else [None])]
    for value in [value for value in wrong if value not in TAKEN.get((name, parameter), ())]:
        with pytest.raises(ConfigurationError) as caught:
            call(runtime, name, **{parameter: value})
        assert str(caught.value).startswith(parameter), str(caught.value)[:500]
        assert len(str(caught.value)) < 1000
    assert ags_emulator.overview()["requests"] == before


class NothingSentError(Exception):
    """Stands for the first request."""


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS, ids=lambda one: one)
@settings(max_examples=20)
@given(value=ANYTHING)
def test_any_value_is_taken_or_refused_by_name(name, parameter, value):
    class Unconnected(AGSRuntime):
        @property
        def connection(self):
            raise NothingSentError

    runtime = Unconnected(tool_id="sdt-x")
    try:
        call(runtime, name, **{parameter: value})
    except NothingSentError:
        pass
    except ConfigurationError as error:
        assert parameter in str(error) or name in str(error)


FIELDS = ["config", "region", "image", "timeout", "mount_path", "credentials", "port"]


@given(field=st.sampled_from(FIELDS), value=ANYTHING.filter(lambda one: not isinstance(one, str)))
def test_any_setting_is_taken_or_refused_by_name(field, value):
    try:
        AGSRuntime(**{field: value})
    except ConfigurationError as error:
        assert field in str(error) or isinstance(value, dict)


def test_an_argument_that_a_method_does_not_have_is_named_with_the_method(ags_config):
    with pytest.raises(TypeError, match=r"^create_tool\(\) got an unexpected keyword argument 'cpus'$"):
        AGSRuntime(ags_config).create_tool("named", "python:3.11", cpus=3)
