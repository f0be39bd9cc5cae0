"""The log of a run on standard error: one short line for each step."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.logging.handlers import PrefectConsoleHandler as Console
from prefect.settings import PREFECT_API_URL

from ags_flows.errors import ConfigurationError
from ags_flows.run.automations import require_server

R = TypeVar("R")


def run_with_steps(flow: Flow[..., R], quiet: bool, /, **parameters: Any) -> R:
    """Run a flow with its steps on standard error: as a flow run if the settings name a server, else without one.

    Args:
        flow: The flow, not an asynchronous one.
        quiet: Keep the log of the steps to warnings.
        **parameters: Its parameters, checked before the run begins.

    Raises:
        ConfigurationError: A parameter is not valid.
        UnreachableError: The Prefect server does not respond.
    """
    with steps_on_stderr(quiet):
        try:
            given = flow.validate_parameters(parameters)
        except ParameterTypeError as error:
            _, *wrong = str(error).split("\n - ")
            raise ConfigurationError(f"{'; '.join(wrong) or error}.") from None
        if not PREFECT_API_URL.value():
            return flow.fn(**given)
        require_server()
        returned: R = flow(**given)
        return returned


def _is_step(record: logging.LogRecord) -> bool:
    """Return True if a record is not shown in another way. Output is printed unchanged, and an error at the end."""
    if getattr(record, "is_output", False) or record.exc_info:
        return False
    return not record.getMessage().startswith("Finished in state")


@contextmanager
def steps_on_stderr(quiet: bool) -> Iterator[None]:
    """Log the steps to standard error, instead of Prefect's own lines, and without the output of commands.

    Args:
        quiet: Only warnings.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("-- %(message)s"))
    handler.setLevel(logging.WARNING if quiet else logging.INFO)
    handler.addFilter(_is_step)
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
        # The logger of a library is silent below warnings by default.
        logging.getLogger("ags_flows").setLevel(logging.INFO)
        yield
    finally:
        for console, level in consoles.items():
            console.setLevel(level)
        for one, level in zip(loggers, levels, strict=True):
            one.removeHandler(handler)
            one.setLevel(level)
