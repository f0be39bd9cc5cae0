"""Every argument of every public task is checked before anything is sent, and named in the error."""

import inspect
import math
import os
import typing

import pytest
from hypothesis import given
from prefect import Task

from ags_flows import sandbox_session, tasks
from ags_flows.errors import AGSFlowsError, ConfigurationError
from ags_flows.flows import provision_and_run
from ags_flows.models import CommandHandle, ToolSpec
from ags_flows.run.checked import RULES, checked
from tests.arguments import ANYTHING, HUGE, LONG, Unshown

PUBLIC = {name: getattr(tasks, name) for name in tasks.__all__ if isinstance(getattr(tasks, name), Task)}
PARAMETERS = [(name, parameter) for name, task in PUBLIC.items() for parameter in inspect.signature(task.fn).parameters]
GIVEN = {
    "command": "true",
    "code": "1",
    "handle": CommandHandle(instance_id="sdi-x", key="k", command="true"),
    "spec": ToolSpec(name="x", image="x"),
    "local": "no-such-file",
    "content": "",
}


NO_TEXT = [b"bytes", 5, 1.5, True, ["a"], {"a": "b"}, object()]
NO_NAME = ["", " ", "\n", "a\0b", "\udcff", LONG, *NO_TEXT]
NO_ID = ["../../etc", "/", "a/b?c#d", "x y", "~", *NO_NAME]
NO_SECONDS = ["5", "", 10_000_000, -1, -0.001, math.inf, -math.inf, math.nan, True, b"5", [5], object()]
NO_COUNT = [-1, 1.0, "5", True, math.nan, [1], object()]
NO_FLAG = [1, 0, "yes", "", [], object()]
NO_MAPPING = [LONG, "A=1", 5, ["A"], {"": "x"}, {5: "x"}, {"A": None}, {"A": Unshown()}, {Unshown(): "x"}, object()]
NO_TEXTS = [{"A": 5}, {"A": "\ud800"}, *NO_MAPPING]
NO_CONTENT = [5, ["a"], "\ud800", "\udcff", bytearray(b"x"), object()]
NO_COMMAND = ["", " ", [], [""], ["a", 5], [b"a"], [Unshown()], b"true", 5, "a\0b", ["a\0b"], "\udcff", {"a": 1}]
WRONG = {
    "config": NO_NAME,
    **dict.fromkeys(("instance", "tool", "source_instance_id"), NO_ID),
    "command": NO_COMMAND,
    "content": NO_CONTENT,
    "stdin": NO_CONTENT,
    "env": [{"A=B": "x"}, {"A": b"x"}, {"A": math.nan}, {"A": HUGE}, *NO_MAPPING],
    "secrets": [*NO_TEXTS, {"A=B": "x"}, {"A": ""}, {"A": "\0"}, {"A": LONG}],
    "metadata": NO_TEXTS,
    "tags": NO_TEXTS,
    "timeout": NO_SECONDS,
    "drain": NO_SECONDS,
    "limit": NO_COUNT,
    "depth": [0, *NO_COUNT],
    "port": [0, 65536, *NO_COUNT],
    "user": [LONG, "", "a b", "a:b", "../x", "-x", "a\n", 0, b"root", True, ["root"], object()],
    "exclude": [[Unshown()], 5, b"x", [5], [b"*.py"], {"a": 1}, object()],
    "links": [LONG, "", "follow", 5, True, ["keep"], object()],
    "mount_options": [[Unshown()], "x", 5, ["x"], [None], object()],
    **dict.fromkeys(("code", "step", "description"), ["\ud800", *NO_TEXT]),
    **dict.fromkeys(("remote", "pattern"), [LONG, "", "a\0b", "\ud800", *NO_TEXT]),
    **dict.fromkeys(("path", "cwd"), [LONG, "", "a\0b", "\ud800", "caf\udce9", *NO_TEXT]),
    "local": [LONG, "", "a\0b", "\ud800", b"bytes", 5, True, ["a"], object()],
    **{name: NO_FLAG for name, rule in RULES.items() if rule is RULES["check"]},
}
"""Values that are invalid for an argument. All others take a text that is not empty, or a model."""


def wrong_of(parameter, annotation):
    if parameter == "timeout" and "str" in str(annotation):
        return [LONG, "", "soon", -1, math.nan, "1s", "25h", b"5m", ["5m"], object()]
    return WRONG.get(parameter, NO_NAME)


def call(name, config, /, **arguments):
    task = PUBLIC[name]
    needed = {
        one.name: GIVEN.get(one.name, "sdi-x")
        for one in inspect.signature(task.fn).parameters.values()
        if one.default is inspect.Parameter.empty
    }
    return task.fn(**{**needed, "config": config, **arguments})


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS, ids=lambda one: one)
def test_other_values_are_refused_by_name_before_any_request(name, parameter, sandbox, ags_emulator_process):
    config, _ = sandbox
    before = ags_emulator_process.overview()["requests"]
    of = inspect.signature(PUBLIC[name].fn).parameters[parameter]
    wrong = [*wrong_of(parameter, of.annotation), HUGE, 10**400, Unshown(), *([None] if of.default is not None else [])]
    for value in wrong:
        with pytest.raises(ConfigurationError) as caught:
            call(name, config, **{parameter: value})
        assert str(caught.value).startswith(parameter), str(caught.value)[:500]
        assert len(str(caught.value)) < 1000
        assert not caught.value.retryable
    assert ags_emulator_process.overview()["requests"] == before


# A text for `config` is the name of a block on a Prefect server.
@pytest.mark.parametrize("name", {rule: name for name, rule in RULES.items() if name != "config"}.values())
@given(value=ANYTHING)
def test_a_rule_takes_a_value_or_refuses_it_by_name(name, value):
    try:
        assert RULES[name](value, name) is not NotImplemented
    except ConfigurationError as error:
        assert str(error).startswith(name)


@pytest.mark.parametrize("durable", [True, False])
def test_converted_variables_arrive(durable, sandbox):
    config, instance = sandbox
    env = {"PORT": 8000, "DEBUG": True}
    ran = tasks.exec_command.fn(instance, "echo $PORT $DEBUG", env=env, durable=durable, config=config)
    assert ran.stdout == "8000 true\n"


def test_a_function_that_is_checked_keeps_its_name_its_hints_and_its_defaults():
    @checked()
    def copy(path: str, user: str | None = None, limit: int = 5) -> tuple:
        """Copy."""
        return path, user, limit

    assert (copy.__name__, copy.__doc__) == ("copy", "Copy.")
    assert typing.get_type_hints(copy)["path"] is str
    assert copy("a", limit=6) == ("a", None, 6) and copy("a", None) == ("a", None, 5)
    with pytest.raises(ConfigurationError, match="^limit must not be None"):
        copy("a", limit=None)
    with pytest.raises(TypeError, match="path"):
        copy()


FILES = {
    "upload_file": lambda local: {"local": local / "a", "remote": "a"},
    "upload_directory": lambda local: {"local": local, "remote": "d"},
    "write_file": lambda local: {"path": "a", "content": "x"},
    "read_file": lambda local: {"path": ".profile"},
    "list_files": lambda local: {"path": "/"},
    "remove_path": lambda local: {"path": "a"},
    "download_file": lambda local: {"remote": "/etc/passwd", "local": local / "b"},
    "download_directory": lambda local: {"remote": "/tmp", "local": local / "b"},
    "download_files": lambda local: {"pattern": "/etc/*", "local": local / "b"},
    "exec_command": lambda local: {"command": "true"},
    "start_command": lambda local: {"command": "true", "stdin": "x"},
}


@pytest.mark.parametrize("name", FILES)
def test_a_user_that_does_not_exist_is_named_and_not_retried(name, sandbox, tmp_path):
    config, instance = sandbox
    (tmp_path / "a").write_text("x")
    with pytest.raises(AGSFlowsError, match="nosuch") as caught:
        call(name, config, instance=instance, user="nosuch", **FILES[name](tmp_path))
    assert type(caught.value).__name__ == "InvalidRequestError" and not caught.value.retryable


def test_arguments_of_a_session_are_checked_before_any_request(ags_emulator, ags_config):
    with sandbox_session("base", config=ags_config) as sandbox:
        before = ags_emulator.overview()["requests"]
        for field, wrong in (
            ("local", lambda: sandbox.upload(5, "x")),
            ("local", lambda: sandbox.upload("", "x")),
            ("remote", lambda: sandbox.upload(os.curdir, "")),
            ("remote", lambda: sandbox.download(5, "x")),
            ("remote", lambda: sandbox.download("", "x")),
            ("user", lambda: sandbox.download("x", "y", user="a b")),
            ("path", lambda: sandbox.write("", "x")),
            ("content", lambda: sandbox.write("x", 5)),
            ("limit", lambda: sandbox.read("x", limit=-1)),
            ("command", lambda: sandbox.run(5)),
            ("timeout", lambda: sandbox.run("true", timeout="5")),
            ("handle", lambda: sandbox.wait("x")),
            ("handle", lambda: sandbox.kill(None)),
            ("code", lambda: sandbox.run_code(b"1")),
            ("port", lambda: sandbox.url(-1)),
            ("name", lambda: sandbox.snapshot("")),
        ):
            with pytest.raises(ConfigurationError, match=f"^{field} "):
                wrong()
        assert ags_emulator.overview()["requests"] == before


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("tool", {"tool": 5}),
        ("lease", {"lease": "soon"}),
        ("metadata", {"metadata": {"a": 5}}),
        ("custom", {"custom": {"image": "x"}}),
        ("on_failure", {"on_failure": "leave"}),
        ("on_crash", {"on_crash": "keep"}),
        ("delete_tool", {"delete_tool": "yes"}),
        ("snapshot_id", {"tool": None, "snapshot_id": " "}),
        ("step", {"step": None}),
        ("config", {"config": "emulator"}),
    ],
)
def test_arguments_of_a_session_are_checked_when_it_is_made(field, options):
    with pytest.raises(ConfigurationError, match=f"^{field}"):
        sandbox_session(**{"tool": "base", **options})


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("command", {"command": []}),
        ("command", {"command": ["true", " "]}),
        ("command", {"command": "a\0b"}),
        ("env", {"env": {"A=B": "x"}}),
        ("cwd", {"cwd": "a\0b"}),
        ("timeout", {"timeout": float("nan")}),
        ("remote", {"uploads": {"/etc/passwd": ""}}),
        ("local", {"downloads": {"out": ""}}),
        ("secrets", {"secrets": {"": "block"}}),
    ],
)
def test_arguments_of_a_job_are_checked_before_anything_is_started(ags_emulator, ags_config, field, options):
    with pytest.raises(ConfigurationError, match=f"^{field}"):
        provision_and_run.fn(**{"command": "true", "tool": "base", "config": ags_config, **options})
    assert not ags_config.control_plane().list_instances()
