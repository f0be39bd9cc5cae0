"""The base class of all values, and the text of validation errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from ags_flows.errors import ConfigurationError
from ags_flows.models.checks import LONGEST_VALUE, MOST_COUNT, is_text, shown_value
from ags_flows.models.constant import Constant

MOST_FINDINGS = 5

_SUBJECT = re.compile(r"^[\w ]+ is not valid: ")
_SECRET = re.compile(r"secret|token|password|api_key")


class Value(Constant, BaseModel):
    """Base of all values: frozen; unknown fields are errors, so that a misspelled field is not ignored.

    Raises:
        ConfigurationError: A field is invalid. The message has the field, the rule and the value.
    """

    MEASURED: ClassVar[frozenset[str]] = frozenset({"seconds"})
    """Fields that may differ between attempts that did the same: they are not part of the place of a task or a flow."""

    # Built at first use: not everything is used by each process that imports the package.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            subject = type(self).model_config.get("title") or type(self).__name__
            raise ConfigurationError(explain(subject, error)) from None


class Given(Value):
    """Base of values that callers write: what can be sent nowhere is an error of its field, in every field."""

    def __init__(self, **data: Any) -> None:
        check_fields(type(self), data)
        super().__init__(**data)


def check_fields(model: type[BaseModel], data: Mapping[str, Any]) -> None:
    """Check that the fields of a model can be sent.

    Raises:
        ConfigurationError: One has a text that no request or program can be given, or a number that is out of all
            bounds, or it is True or False and the field is something else.
    """
    for name, value in data.items():
        field = model.model_fields.get(name)
        if field is None:
            continue
        elif isinstance(value, bool) and not {bool, Any} & {field.annotation, *get_args(field.annotation)}:
            problem = f"{name}: must not be {value}"
        elif found := _unsendable(value):
            problem = f"{name}: {found}"
        else:
            continue
        raise ConfigurationError(f"{model.__name__} is not valid: {problem}.")


def _unsendable(value: Any) -> str:
    """Return why a value cannot be sent; empty if it can."""
    if isinstance(value, str):
        if "\0" in value or not is_text(value):
            return "has a zero byte or half a pair of surrogates"
        return f"has a text of more than {LONGEST_VALUE:,} bytes" if len(value.encode()) > LONGEST_VALUE else ""
    if isinstance(value, (int, float)):
        return "" if abs(value) <= MOST_COUNT else f"must be a finite number, at most {MOST_COUNT}"
    if isinstance(value, (set, frozenset)):
        return "must be a list: a set has no order"
    if isinstance(value, Mapping):
        # Any other key would be a TypeError of the constructor of a value.
        found = ((key, _unsendable(one) if isinstance(key, str) else "is not a text") for key, one in value.items())
        return next((f"{shown_value(key)} {problem}" for key, problem in found if problem), "")
    parts = value if isinstance(value, (list, tuple)) else ()
    return next(filter(None, map(_unsendable, parts)), "")


def explain(subject: str, error: ValidationError) -> str:
    """Return pydantic's findings as one sentence: what is not valid, and which field, rule and value of it.

    Args:
        subject: The name of the model, or of what it was read from.
        error: What pydantic found.
    """
    findings = []
    found = error.errors(include_url=False)
    for item in found[:MOST_FINDINGS]:
        names = [part if isinstance(part, int) else shown_value(part)[1:-1] for part in item["loc"]]
        field = ".".join(map(str, names))
        message = _SUBJECT.sub("", item["msg"].removeprefix("Value error, "))
        for name in names:
            # Rules of arguments begin with the name.
            message = message.removeprefix(f"{name}: ").removeprefix(f"{name} ")
        told = item["type"] not in ("value_error", "missing") and not _SECRET.search(field)
        shown = f" (got {shown_value(item['input'])})" if told else ""
        findings.append(f"{field}: {message}{shown}" if field else f"{message}{shown}")
    if more := len(found) - MOST_FINDINGS:
        findings += [f"and {more} more"] * (more > 0)
    return f"{subject} is not valid: " + "; ".join(finding.rstrip(".") for finding in findings) + "."
