"""What is being done, on standard error: one short line a step."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.logging.handlers import PrefectConsoleHandler as Console


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """Whether it is not told in another way: output is written as it is, an error in one sentence at the end."""
    if getattr(record, "is_output", False) or record.exc_info:
        return False
    return not record.getMessage().startswith("Finished in state")


@contextmanager
def steps_on_stderr(quiet: bool) -> Iterator[None]:
    """Say on standard error what is done, instead of Prefect's own lines, and without commands' output.

    Args:
        quiet: Only warnings.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("-- %(message)s"))
    handler.setLevel(logging.WARNING if quiet else logging.INFO)
    handler.addFilter(_is_worth_telling)
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs", "ags_flows")]
    levels = [one.level for one in loggers]
    everywhere = [
        logging.root,
        *(one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)),
    ]
    consoles = {
        handler: handler.level for one in everywhere for handler in one.handlers if isinstance(handler, Console)
    }
    try:
        for console in consoles:
            console.setLevel(logging.CRITICAL)
        for one in loggers:
            one.addHandler(handler)
        # A library's logger says nothing below a warning unless it is asked to.
        logging.getLogger("ags_flows").setLevel(logging.INFO)
        yield
    finally:
        for console, level in consoles.items():
            console.setLevel(level)
        for one, level in zip(loggers, levels, strict=True):
            one.removeHandler(handler)
            one.setLevel(level)
