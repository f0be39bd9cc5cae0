"""The base class of all values, and the text of validation errors."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ags_flows.errors import ConfigurationError
from ags_flows.models.constant import Constant

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
            raise ConfigurationError(explain(type(self).__name__, error)) from None


def explain(subject: str, error: ValidationError) -> str:
    """Return pydantic's findings as one sentence: what is not valid, and which field, rule and value of it.

    Args:
        subject: The name of the model, or of what it was read from.
        error: What pydantic found.
    """
    findings = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ").removeprefix(f"{subject} is not valid: ")
        told = item["type"] not in ("value_error", "missing") and not _SECRET.search(field)
        shown = f" (got {item['input']!r})" if told else ""
        findings.append(f"{field}: {message}{shown}" if field else f"{message}{shown}")
    return f"{subject} is not valid: " + "; ".join(finding.rstrip(".") for finding in findings) + "."
