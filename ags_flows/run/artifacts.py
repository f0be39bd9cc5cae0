"""Artifacts in the Prefect UI; what code displayed among them: a picture as a picture, a table as a table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.context import FlowRunContext, TaskRunContext

from ags_flows.models import CodeResult, RichResult
from ags_flows.run.logs import run_logger
from ags_flows.run.now import now

KEY = "code-result"
MOST = 20
"""Results of one execution that are shown; the others are in its result."""

LARGEST = 1_000_000
"""Characters of one artifact: it is a row of the server's database."""

MOST_ROWS = 500

T = TypeVar("T")


def show(create: Callable[[], T]) -> T | None:
    """Create an artifact and return its id. If creation fails, log a warning instead of failing the run.

    Args:
        create: Creates it, such as `lambda: create_table_artifact(...)`.
    """
    try:
        created: T = now(create())
        return created
    except Exception as error:  # noqa: BLE001 - the outcome of the work does not depend on it
        run_logger().warning("An artifact could not be created: %s: %s", type(error).__name__, error)
        return None


def code_block(text: str, language: str = "") -> str:
    """Return a text as a code block of Markdown, which nothing in the text can end.

    Args:
        text: The text.
        language: Of the text, for its colors.
    """
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def show_results(result: CodeResult) -> None:
    """Create an artifact for each thing that a cell displayed and that is more than a line of text.

    Does nothing outside of runs. If the server does not accept an artifact, log a warning.
    """
    if FlowRunContext.get() is None and TaskRunContext.get() is None:
        return
    shown = [(one, artifact) for one in result.results if (artifact := _artifact(one)) is not None]
    for one, create in shown[:MOST]:
        title = (one.chart.title if one.chart else None) or result.code.strip().partition("\n")[0][:80]
        show(partial(create, title))
    if len(shown) > MOST:
        run_logger().info("%s further results are not shown as artifacts", len(shown) - MOST)


def _artifact(one: RichResult) -> Callable[[str], object] | None:
    """Return what creates the artifact, the richest format that the UI can show, or None for a line of text."""
    if one.table is not None:
        rows = _rows(one.table)
        return lambda title: create_table_artifact(table=rows, key=KEY, description=title)
    text = _picture(one) or _markdown(one)
    if text is None or len(text) > LARGEST:
        return None
    return lambda title: create_markdown_artifact(markdown=text, key=KEY, description=title)


def _picture(one: RichResult) -> str | None:
    """Return Markdown with the picture in it: an image artifact would print the whole data URL under it."""
    if one.png:
        url = f"data:image/png;base64,{''.join(one.png.split())}"
    elif one.jpeg:
        url = f"data:image/jpeg;base64,{''.join(one.jpeg.split())}"
    elif one.svg:
        url = f"data:image/svg+xml,{quote(one.svg)}"
    else:
        return None
    return f"![picture]({url})"


def _rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    columns = {
        name: list(values.values()) if isinstance(values, dict) else list(values)
        for name, values in table.items()
        if isinstance(values, (dict, list, tuple))
    }
    length = min(MOST_ROWS, max(map(len, columns.values()), default=0))
    return [
        {name: values[row] if row < len(values) else None for name, values in columns.items()} for row in range(length)
    ]


def _markdown(one: RichResult) -> str | None:
    if one.markdown:
        return one.markdown
    if one.latex:
        return code_block(one.latex, "latex")
    if one.json_value is not None:
        return code_block(json.dumps(one.json_value, indent=2, ensure_ascii=False), "json")
    if one.html:
        # The UI shows no foreign HTML: its source would only be noise beside the text.
        return code_block(one.text) if one.text and "\n" in one.text else None
    return None
