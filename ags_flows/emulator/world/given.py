"""Values that users give to the emulator: controls and profiles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

T = TypeVar("T")

EXACT = ConfigDict(extra="forbid", strict=True)
"""The configuration of what is made by `checked`: no unknown field, no conversion of types."""

Count = Annotated[int, Field(ge=0)]
Times = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Status = Annotated[int, Field(ge=200, le=599)]


def checked(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return a value of a type from what a user gave, as JSON has it.

    Raises:
        ValueError: A field is unknown, missing or wrong. The message names all of them.
    """
    try:
        text = json.dumps(dict(values))
    except TypeError as error:
        raise ValueError(f"not a JSON value: {error}") from None
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        raise ValueError(findings(error)) from None


def findings(error: ValidationError, subject: str = "") -> str:
    """Return what is wrong, field by field.

    Args:
        error: What pydantic found.
        subject: What the fields belong to, before each of them.
    """
    found = []
    for each in error.errors():
        field = ".".join(str(part) for part in each["loc"] if part != "[key]")
        unknown = each["type"] in ("extra_forbidden", "unexpected_keyword_argument")
        reason = "unknown field" if unknown else each["msg"]
        shown = "" if each["type"] == "missing" else f", got {json.dumps(each['input'], default=repr)}"
        found.append(f"{subject}`{field}`: {reason}{shown}")
    return "; ".join(found)
