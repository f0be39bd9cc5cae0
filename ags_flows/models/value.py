"""The base class of all values, and the text of validation errors."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ags_flows.errors import ConfigurationError
from ags_flows.models.constant import Constant

_SECRET = re.compile(r"secret|token|password|api_key")


class Value(Constant, BaseModel):
    """Base of all values: frozen; unknown fields are errors, so that a misspelled field is not ignored.

    Raises:
        ConfigurationError: A field is invalid. The message has the field, the rule and the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise ConfigurationError(explain(type(self).__name__, error)) from None


def explain(subject: str, error: ValidationError) -> str:
    """Return pydantic's errors as one line with field, rule and value. Values of secrets are omitted."""
    findings = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"]) or subject
        message = item["msg"].removeprefix("Value error, ")
        show_value = item["type"] not in ("value_error", "missing") and not _SECRET.search(field)
        shown = f" (got {item['input']!r})" if show_value else ""
        findings.append(f"{field}: {message}{shown}")
    return f"{subject} is not valid. " + "; ".join(finding.rstrip(".") for finding in findings) + "."
