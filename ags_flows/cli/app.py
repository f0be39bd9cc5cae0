"""What all commands share: the application, their common options, and how errors are shown.

Modules with commands import nothing but this one and typer at their top: `ags-flows --help` loads neither Prefect nor
the SDKs.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from ags_flows.blocks import AGSConfig

app = typer.Typer(
    help="Run work in cloud sandboxes (Tencent Cloud Agent Sandbox) from Prefect.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigName = Annotated[
    str | None, typer.Option("--config", metavar="NAME", help="AGS Config block. Default: the environment.")
]
Region = Annotated[str | None, typer.Option(metavar="REGION", help="Region of AGS, instead of the configuration's.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
InstanceId = Annotated[str, typer.Argument(help="The instance's id, or its first characters.", metavar="INSTANCE")]
User = Annotated[str | None, typer.Option(help="`user` or `root`.")]

WITH_ARGUMENTS = {"allow_interspersed_args": False}
"""Settings of a command that ends with a command line: options after its first argument belong to that."""


def line_of(command: list[str]) -> str:
    """Return a command line as a line for the shell. One argument is such a line already."""
    words = command[1:] if command[0] == "--" else command
    return words[0] if len(words) == 1 else shlex.join(words)


def configuration(name: str | None, region: str | None) -> AGSConfig:
    """Return the configuration that the options `--config` and `--region` choose."""
    from ags_flows.blocks import resolve_config, with_fields
    from ags_flows.run.automations import answering

    chosen = None
    if name:
        with answering():
            chosen = resolve_config(name)
    return with_fields(chosen, region=region) if region else with_fields(chosen)


@contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM and the end of the terminal as Ctrl-C, so that all of them clean up. What is ignored stays so."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def errors_as_text() -> Iterator[None]:
    """Print an error of this package in one line instead of a traceback, and exit with 1."""
    from ags_flows.errors import AGSFlowsError

    try:
        yield
    except AGSFlowsError as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """Print an error, and exit with 1."""
    print_error(message)
    sys.exit(1)


def print_error(message: str, style: str = "red") -> None:
    """Print a line on standard error."""
    Console(stderr=True).print(message, style=style, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line. If the reader of its output has gone, as of `| head -1`, it ends silently."""
    try:
        app()
    except BrokenPipeError:
        sys.exit(1)
    finally:
        _flush()


def _flush() -> None:
    """Flush standard output. What a reader that has gone does not take is dropped, also when Python exits."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
