"""The function of a batch: how it is found by its name, and what distinguishes it from other functions."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import PurePath
from types import CodeType, MethodType
from typing import Any

from ags_flows.errors import ConfigurationError
from ags_flows.run.fingerprints import of_parameters
from ags_flows.session import SandboxSession

Function = Callable[[SandboxSession, Any], Any]
"""What is done with an item: it gets a running sandbox and the item, and returns something JSON-like."""


def function_named(name: str) -> Function:
    """Return the function that `package.module:function` names.

    Raises:
        ConfigurationError: It does not exist.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"function={name!r} cannot be found: {error}.", hint="Write package.module:function. Nothing was started."
        ) from error
    if not callable(found):
        raise ConfigurationError(f"function={name!r} is not a function.", hint="Write package.module:function.")
    named: Function = found
    return named


def name_of(function: Function) -> str:
    """Return the module and the name of a function; of an object that can be called, those of its class."""
    if isinstance(function, functools.partial):
        return f"partial {name_of(function.func)}"
    found: Any = function if hasattr(function, "__qualname__") else type(function)
    return f"{found.__module__}:{found.__qualname__}"


def described(function: Function) -> list[Any]:
    """Return what distinguishes functions.

    That are their names, the code of lambdas, the arguments of partial ones, the attributes of an object that can be
    called or whose method it is, and the values that a lambda or a function inside of another one has from its
    surroundings or by default, if they cannot change.

    Raises:
        ConfigurationError: An argument or an attribute cannot be compared with that of another attempt.
    """
    if isinstance(function, functools.partial):
        given = {"args": function.args, "keywords": function.keywords}
        return ["partial", described(function.func), _compared(given, f"a {name_of(function)} has an argument")]
    if isinstance(function, MethodType) and not isinstance(function.__self__, type):
        return [name_of(function), _state_of(function.__self__)]
    if not hasattr(function, "__qualname__"):
        return [name_of(function), _state_of(function)]
    code = getattr(function, "__code__", None)
    if code is None or "<" not in function.__qualname__:
        return [name_of(function)]
    around = of_parameters(dict(_values_around(function)))
    if code.co_name != "<lambda>":
        return [name_of(function), around]
    # Not their repr: the order of a set differs between processes.
    constants = [one.co_code if isinstance(one, CodeType) else one for one in code.co_consts]
    return [name_of(function), around, code.co_code.hex(), str(code.co_names), of_parameters({"constants": constants})]


def _state_of(owner: Any) -> str:
    # The attributes one by one: what is pickled as a whole depends on which of them are the same object.
    kind = type(owner)
    attributes = getattr(owner, "__dict__", owner)
    return _compared({"state": attributes}, f"an object of the class {kind.__module__}:{kind.__qualname__} has a value")


def _compared(values: dict[str, Any], what: str) -> str:
    found = of_parameters(values)
    if found != of_parameters(values):
        raise ConfigurationError(
            f"function: {what} that is not the same in each attempt, such as a client or an open file.",
            hint="Nothing was started. Create it inside of the function, or write a function without it.",
        )
    return found


def _values_around(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values of a function's closure and of its defaults that cannot change, and the classes of all others.

    Others, such as a list that the function appends to, may differ in each attempt.
    """
    values = dict(enumerate(function.__defaults__ or ())) | (function.__kwdefaults__ or {})
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            values[f"closure {name}"] = cell.cell_contents
        except ValueError:
            # Not bound yet.
            continue
    for where, value in values.items():
        yield str(where), value if _is_constant(value) else type(value).__qualname__


def _is_constant(value: Any) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return all(map(_is_constant, value))
    return value is None or isinstance(value, (bool, int, float, str, bytes, PurePath, date, Decimal))
