"""Each kind of argument has one rule, which is checked before any request."""

import decimal
import math

import pytest

from ags_flows import tasks
from ags_flows.errors import ConfigurationError
from ags_flows.models.checks import (
    check_count,
    check_environment,
    check_name,
    check_seconds,
    check_text,
    check_user,
)


@pytest.mark.parametrize("value", [None, 0, 1, 0.5, 1e9])
def test_finite_non_negative_seconds_are_valid(value):
    assert check_seconds(value) == value


@pytest.mark.parametrize("value", [-1, -0.1, math.inf, math.nan, "5", True, [1]])
def test_invalid_seconds_raise_an_error_with_the_argument_name(value):
    with pytest.raises(ConfigurationError, match="^pause must be"):
        check_seconds(value, "pause")


def test_zero_seconds_are_invalid_if_they_must_be_positive():
    with pytest.raises(ConfigurationError, match="timeout must be > 0 seconds, got 0"):
        check_seconds(0, positive=True)


@pytest.mark.parametrize("value", [-1, 1.0, "5", True, math.nan])
def test_invalid_counts_raise_an_error_with_the_argument_name(value):
    with pytest.raises(ConfigurationError, match="^limit must be an integer >= 0"):
        check_count(value)
    assert check_count(0) == 0 and check_count(None) is None


@pytest.mark.parametrize("value", ["", " ", "a\0b", 5])
def test_invalid_strings_raise_an_error_with_the_argument_name(value):
    with pytest.raises(ConfigurationError, match="^cwd must be"):
        check_name(value, "cwd")
    assert check_name("/a b", "cwd") == "/a b" and check_name(None, "cwd") is None


@pytest.mark.parametrize("value", ["", "a b", "a:b", "../x", "-x", "a\n", 0])
def test_invalid_user_names_raise_an_error(value):
    with pytest.raises(ConfigurationError, match="^user must be"):
        check_user(value)
    assert [check_user(user) for user in (None, "root", "www-data", "Build.1")]


def test_code_must_be_a_string():
    with pytest.raises(ConfigurationError, match="code must be a string, got 5"):
        check_text(5, "code")


def test_numbers_and_booleans_become_strings():
    given = {"PORT": 8000, "RATE": 0.5, "DEBUG": True, "QUIET": False, "NAME": "x", "my.name": ""}
    expected = {"PORT": "8000", "RATE": "0.5", "DEBUG": "true", "QUIET": "false", "NAME": "x", "my.name": ""}
    assert check_environment(given) == expected
    assert check_environment(None) == {}


@pytest.mark.parametrize("value", [None, b"x", [1], {}, math.inf, decimal.Decimal(1), "a\0b", "\ud800"])
def test_invalid_values_raise_an_error_with_the_variable_name(value):
    with pytest.raises(ConfigurationError, match="env: PORT"):
        check_environment({"PORT": value})


@pytest.mark.parametrize("name", ["", "A=B", "a\0", 5, None, "\ud800"])
def test_invalid_variable_names_raise_an_error(name):
    with pytest.raises(ConfigurationError, match="env: .* is not a valid variable name"):
        check_environment({name: "x"})


CALLS = [
    (tasks.exec_command, {"command": "true"}, ("timeout", "limit", "cwd", "user", "env")),
    (tasks.start_command, {"command": "true"}, ("timeout", "cwd", "user", "env")),
    (tasks.run_code, {"code": "1"}, ("timeout", "limit", "env")),
    (tasks.create_code_context, {}, ("cwd",)),
    (tasks.wait_instance_running, {}, ("timeout",)),
]
WRONG = {"timeout": math.nan, "limit": -1, "cwd": "", "user": "", "env": {"A": None}}


@pytest.mark.parametrize(
    ("task", "arguments", "field"),
    [(task, arguments, field) for task, arguments, fields in CALLS for field in fields],
    ids=lambda one: getattr(one, "name", None) or (one if isinstance(one, str) else ""),
)
def test_a_task_checks_its_arguments_before_any_request(task, arguments, field, ags_emulator, ags_config):
    before = ags_emulator.overview()["requests"]
    with pytest.raises(ConfigurationError, match=f"^{field}"):
        task.fn("sdi-x", **arguments, **{field: WRONG[field]}, config=ags_config)
    assert ags_emulator.overview()["requests"] == before


@pytest.mark.parametrize("durable", [True, False])
def test_a_user_that_does_not_exist_is_an_error_that_is_not_retryable(durable, ags_config):
    started = tasks.start_instance.fn("code-interpreter-v1", config=ags_config)
    instance = tasks.wait_instance_running.fn(started, config=ags_config)
    calls = [
        lambda: tasks.exec_command.fn(instance, "true", user="nosuch", durable=durable, config=ags_config),
        lambda: tasks.read_file.fn(instance, "a", user="nosuch", config=ags_config),
        lambda: tasks.list_files.fn(instance, "/", user="nosuch", config=ags_config),
    ]
    for call in calls:
        with pytest.raises(Exception, match="nosuch") as caught:
            call()
        assert type(caught.value).__name__ == "InvalidRequestError" and not caught.value.retryable


@pytest.mark.parametrize("durable", [True, False])
def test_converted_variables_are_set_in_the_sandbox(durable, ags_config):
    started = tasks.start_instance.fn("code-interpreter-v1", config=ags_config)
    instance = tasks.wait_instance_running.fn(started, config=ags_config)
    env = {"PORT": 8000, "DEBUG": True}
    ran = tasks.exec_command.fn(instance, "echo $PORT $DEBUG", env=env, durable=durable, config=ags_config)
    assert ran.stdout == "8000 true\n"
    code = "import os; os.environ['PORT'] + os.environ['DEBUG']"
    assert tasks.run_code.fn(instance, code, env=env, config=ags_config).text == "8000true"
