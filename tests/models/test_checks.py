"""Each kind of argument has one rule, which is checked before any request."""

import decimal
import math
from pathlib import Path

import pytest

from ags_flows.errors import ConfigurationError
from ags_flows.models.checks import (
    check_count,
    check_environment,
    check_local,
    check_name,
    check_path,
    check_seconds,
    check_text,
    check_text_path,
    check_user,
)


@pytest.mark.parametrize("value", [None, 0, 1, 0.5, 9_999_999])
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


@pytest.mark.parametrize("value", ["a", "/a b", "-rf", "~/x", "caf\udce9", "line\nline"])
def test_any_name_that_a_file_system_allows_is_a_path(value):
    assert check_path(value) == check_local(value) == value


def test_a_path_that_requests_carry_as_text_is_valid_utf8():
    assert check_text_path("你好") == "你好"
    with pytest.raises(ConfigurationError, match="^path must be valid UTF-8.*Transfer the directory"):
        check_text_path("caf\udce9")


def test_a_local_path_may_be_any_kind_of_path():
    assert check_local(Path("a")) == Path("a")
    for value in (b"a", 5, "", "a\0", None):
        with pytest.raises(ConfigurationError, match="^local must be a path on this machine"):
            check_local(value)


def test_text_is_text():
    with pytest.raises(ConfigurationError, match="code must be a text, got 5"):
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


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000, -(10**5000), 1e300], ids=range(5))
def test_numbers_without_measure_are_refused_by_name(value):
    with pytest.raises(ConfigurationError, match="^timeout must be"):
        check_seconds(value)
    with pytest.raises(ConfigurationError, match="^limit must be"):
        check_count(value)


@pytest.mark.parametrize("env", [{"UID": "0"}, {"AGS_FLOWS_CWD": "/"}, {"A": 10**5000}])
def test_variables_that_cannot_be_given_to_a_command_are_refused_by_name(env):
    with pytest.raises(ConfigurationError, match=f"^env: .*{next(iter(env))}"):
        check_environment(env)
