"""Results of the code interpreter: text, images, tables, charts, and errors."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from pydantic import Field

from ags_flows.models.checks import check_context_id
from ags_flows.models.fields import by
from ags_flows.models.value import Value


class CodeContext(Value):
    """A context of the code interpreter: it keeps the variables of one language between executions.

    `key` is the name of its claim in the sandbox, if `create_code_context` created the context.
    """

    id: Annotated[str, by(check_context_id)]
    language: str = "python"
    cwd: str = ""
    key: str = ""

    @property
    def place_key(self) -> str:
        """Stable key of the context in step keys: its claim in the sandbox, which a retry finds, or its id."""
        return self.key or self.id


class CodeError(Value):
    """An exception that code raised in the interpreter; a cell of Bash has no `name`, and its exit code as `value`."""

    name: str
    value: str
    traceback: str = ""

    @property
    def ending(self) -> str:
        """How the code ended, to follow the words "the code"."""
        return f"raised {self.name}: {self.value}" if self.name else f"ended with exit code {self.value}"


class Chart(Value):
    """The data of a chart, which the interpreter extracts from the plot.

    `type` is `line`, `scatter`, `bar`, `pie`, `box_and_whisker`, `superchart` (its elements are charts) or `unknown`.
    `elements` are mappings as e2b documents them for each type: a line has `label` and `points`, a bar `label`,
    `group` and `value`, and so on. `axes` has labels, units, ticks and scales of both axes, if there are any.
    """

    type: str
    title: str | None = None
    elements: tuple[dict[str, Any], ...] = ()
    axes: dict[str, Any] = Field(default_factory=dict)


class RichResult(Value):
    """One displayed result of a cell, in every available format.

    `png`, `jpeg` and `pdf` are base64-encoded; `image()` decodes the image. `table` is a data frame as a mapping of
    column to values. `is_main` is True for the value of the cell's last line and False for other displayed results.
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
        """Return the names of the available formats."""
        return [name for name in type(self).model_fields if name != "is_main" and getattr(self, name)]

    def image(self) -> bytes | None:
        """Return the image as PNG, otherwise as JPEG; None if there is no image."""
        encoded = self.png or self.jpeg
        return base64.b64decode(encoded) if encoded else None


class CodeResult(Value):
    """The outcome of one execution in the code interpreter. An exception of the code is stored in `error`.

    `text` is the value of the last line as text. `results` has everything that was displayed, in order. `stdout` and
    `stderr` have at most the requested number of bytes: head and tail.
    """

    MEASURED = frozenset({"instance_id", "execution_count"})

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
        """Whether the code raised no exception."""
        return self.error is None
