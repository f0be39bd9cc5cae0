"""Rules of arguments and fields that are made from other rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ags_flows.errors import ConfigurationError
from ags_flows.models.checks import shown_value

Rule = Callable[[Any, str], Any]
"""Gets a value and the name of its argument. Returns the value, converted where the kind of value has a conversion.

Raises `ConfigurationError`, whose message begins with the name.
"""


def one_of(*types: type, text: Rule | None = None) -> Rule:
    """Return the rule of an argument that must be of one of some types.

    Args:
        *types: The types.
        text: The rule of texts, where a text can stand for such a value.

    Example:
        ```python
        assert one_of(int, text=check_name)("a", "port") == "a"
        ```
    """
    names = " or ".join([f"a value of {one.__name__}" for one in types] + ["a text"] * (text is not None))

    def check(value: Any, field: str) -> Any:
        if text is not None and isinstance(value, str):
            return text(value, field)
        if not isinstance(value, types):
            raise ConfigurationError(f"{field} must be {names}, got {shown_value(value)}.")
        return value

    return check


def each(rule: Rule) -> Rule:
    """Return the rule of a list, each of whose elements has a rule."""

    def check(values: Any, field: str) -> Any:
        if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
            raise ConfigurationError(f"{field} must be a list, got {shown_value(values)}.")
        return [rule(value, f"{field}[{number}]") for number, value in enumerate(values)]

    return check


def check_callable(value: Any, field: str) -> Any:
    """Return a function that is called back.

    Raises:
        ConfigurationError: `value` cannot be called.
    """
    if not callable(value):
        raise ConfigurationError(f"{field} must be a function, got {shown_value(value)}.")
    return value


def field_of(model: Callable[..., Any], name: str, required: Mapping[str, Any] | None = None) -> Rule:
    """Return the rule of an argument that is a field of a model.

    Args:
        model: The model, which raises `ConfigurationError`.
        name: The name of the field.
        required: Other fields, without which there is no such model.
    """

    def check(value: Any, field: str) -> Any:
        try:
            return getattr(model(**{**(required or {}), name: value}), name)
        except ConfigurationError as error:
            raise ConfigurationError(error.message.partition(" is not valid: ")[2].replace(name, field, 1)) from None

    return check
