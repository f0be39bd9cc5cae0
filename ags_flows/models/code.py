"""What the code interpreter gave back: text, pictures, tables, charts, and errors."""

from __future__ import annotations

import base64
from typing import Any

from pydantic import Field

from ags_flows.models.value import Value


class CodeContext(Value):
    """A context of the code interpreter: variables of one language that live on between executions.

    `key` names its claim in the sandbox, where `create_code_context` made it.
    """

    id: str
    language: str = "python"
    cwd: str = ""
    key: str = ""

    @property
    def place_key(self) -> str:
        """What stands for the context in steps: its claim in the sandbox, which a retry finds again."""
        return self.key or self.id


class CodeError(Value):
    """An exception that code raised in the interpreter."""

    name: str
    value: str
    traceback: str = ""


class Chart(Value):
    """What was drawn, as data: the interpreter reads it out of the plot.

    `type` is `line`, `scatter`, `bar`, `pie`, `box_and_whisker`, `superchart` (its elements are charts) or `unknown`.
    `elements` are mappings as e2b documents them for each type: a line has `label` and `points`, a bar `label`,
    `group` and `value`, and so on. `axes` holds labels, units, ticks and scales of both axes, where there are any.
    """

    type: str
    title: str | None = None
    elements: tuple[dict[str, Any], ...] = ()
    axes: dict[str, Any] = Field(default_factory=dict)


class RichResult(Value):
    """One thing that a cell displayed, in every format that it offered.

    `png`, `jpeg` and `pdf` are base64, as the interpreter sends them; `image()` decodes the picture. `table` is a data
    frame as column to values. `is_main` tells the value of the cell's last line from what was displayed on the way.
    """

    text: str | None = None
    html: str | None = None
    markdown: str | None = None
    svg: str | None = None
    png: str | None = None
    jpeg: str | None = None
    pdf: str | None = None
    latex: str | None = None
    javascript: str | None = None
    json_value: Any = None
    table: dict[str, Any] | None = None
    chart: Chart | None = None
    extra: dict[str, Any] = Field(default_factory=dict)
    is_main: bool = False

    def formats(self) -> list[str]:
        """Return the names of the formats that are there."""
        return [name for name in type(self).model_fields if name != "is_main" and getattr(self, name)]

    def image(self) -> bytes | None:
        """Return the picture, PNG or else JPEG, or None where there is none."""
        encoded = self.png or self.jpeg
        return base64.b64decode(encoded) if encoded else None


class CodeResult(Value):
    """The outcome of one execution in the code interpreter. An exception of the code is a value, in `error`.

    `text` is the value of the last line as text; `results` holds everything that was displayed, in order. `stdout` and
    `stderr` hold at most the limit that was asked for, head and tail.
    """

    code: str
    language: str = "python"
    text: str | None = None
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False
    results: tuple[RichResult, ...] = ()
    error: CodeError | None = None
    execution_count: int | None = None
    instance_id: str = ""

    @property
    def ok(self) -> bool:
        """Whether no exception was raised."""
        return self.error is None
