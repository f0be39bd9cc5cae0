"""The messages of a kernel, as lines of the response to `/execute`."""

from __future__ import annotations

import time
from typing import Any

from ags_flows.emulator.code_interpreter.languages import text_of

Line = dict[str, Any]

KEEPALIVE: Line = {"type": "keepalive"}

_FORMATS = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "text/latex": "latex",
    "application/json": "json",
    "application/javascript": "javascript",
    "e2b/data": "data",
    "e2b/chart": "chart",
}


def line_of(kind: str, content: dict[str, Any], language: str) -> Line | None:
    """Return the line for a message of Jupyter's protocol, None if there is none.

    Args:
        kind: The message's type.
        content: The message's content.
        language: The kernel's language.
    """
    if kind == "stream":
        return {"type": content["name"], "text": content["text"], "timestamp": time.time_ns()}
    if kind in ("execute_result", "display_data"):
        return _result(content["data"], kind == "execute_result", language)
    if kind == "error":
        return error_line(content.get("ename", ""), content.get("evalue", ""), content.get("traceback", []))
    if kind == "execute_input":
        return {"type": "number_of_executions", "execution_count": content["execution_count"]}
    return None


def error_line(name: str, value: str, traceback: list[str] | None = None) -> Line:
    """Return the line for an error."""
    return {"type": "error", "name": name, "value": value, "traceback": "\n".join(traceback or [])}


def _result(data: dict[str, Any], is_main: bool, language: str) -> Line:
    line: Line = {"type": "result", "is_main_result": is_main}
    extra = {}
    for kind, value in data.items():
        name = _FORMATS.get(kind)
        if name is None:
            extra[kind] = value
        else:
            # Text may come as lines.
            joined = isinstance(value, list) and name not in ("json", "data", "chart")
            line[name] = "".join(value) if joined else value
    if isinstance(line.get("text"), str):
        line["text"] = text_of(language, line["text"])
    if extra:
        line["extra"] = extra
    return line
