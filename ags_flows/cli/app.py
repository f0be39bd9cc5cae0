"""What all commands share: the application, their common options, and how errors are shown.

Modules with commands import nothing but this one and typer at their top: `ags-flows --help` loads neither Prefect nor
the SDKs.
"""

from __future__ import annotations

import json
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
    """Return a command line as a line for the shell. One argument is such a line already.

    Raises:
        ConfigurationError: It is empty, or begins with an option, which stands in the wrong place.
    """
    from ags_flows.errors import ConfigurationError
    from ags_flows.models.checks import check_command

    if command[0].startswith("-") and command[0] != "--":
        raise ConfigurationError(f"{command[0]}: options stand before the first argument.")
    words = command[1:] if command[0] == "--" else command
    check_command(words)
    return words[0] if len(words) == 1 else shlex.join(words)


def configuration(name: str | None, region: str | None) -> AGSConfig:
    """Return the configuration that the options `--config` and `--region` choose."""
    from ags_flows.blocks import resolve_config, with_fields
    from ags_flows.models.checks import check_name
    from ags_flows.run.automations import answering

    chosen = None
    if name is not None:
        check_name(name, "config")
        _require_blocks(name)
        with answering():
            chosen = resolve_config(name)
    return with_fields(chosen) if region is None else with_fields(chosen, region=region)


def _require_blocks(name: str) -> None:
    """Check that there may be blocks: on a server, or in Prefect's local database.

    Raises:
        ConfigurationError: There are none, so that starting Prefect's own server is of no use.
    """
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL, PREFECT_HOME

    from ags_flows.errors import ConfigurationError

    url = str(PREFECT_API_DATABASE_CONNECTION_URL.value() or "")
    file = PREFECT_HOME.value() / "prefect.db"
    if not PREFECT_API_URL.value() and url.endswith(str(file)) and not file.exists():
        raise ConfigurationError(
            f"--config: there is no AGS Config block named {name!r}: PREFECT_API_URL is not set, and there is no "
            "local database of Prefect.",
            hint="Set PREFECT_API_URL to the server that has the block, or leave out --config and set the keys.",
        )


@contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM and the end of the terminal as Ctrl-C, so that all of them clean up. What is ignored stays so.

    The exit code is then 128 and the number of the signal, such as 143 for SIGTERM.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        if received:
            sys.exit(128 + received[0])
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def errors_as_text(*, exit_code: int = 1, as_json: bool = False) -> Iterator[None]:
    """Print an error of this package in one line instead of a traceback, and exit.

    Args:
        exit_code: The exit code. It is always 2 if an option or a setting is wrong.
        as_json: Whether to print a JSON object on standard output too: ``{"error": {"type", "message"}}``.
    """
    from ags_flows.errors import AGSFlowsError, ConfigurationError

    try:
        yield
    except AGSFlowsError as error:
        if as_json:
            sys.stdout.write(json.dumps({"error": {"type": type(error).__name__, "message": str(error)}}) + "\n")
        fail(str(error), 2 if isinstance(error, ConfigurationError) else exit_code)


def fail(message: str, exit_code: int = 1) -> NoReturn:
    """Print an error, and exit."""
    print_error(message)
    sys.exit(exit_code)


def print_error(message: str, style: str = "red") -> None:
    """Print a line on standard error."""
    Console(stderr=True).print(message, style=style, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line. If the reader of its output has gone, as of `| head -1`, it ends silently."""
    try:
        app()
    except BrokenPipeError:
        sys.exit(0)
    except SystemExit as end:
        # What typer makes of it.
        sys.exit(0 if isinstance(end.__context__, BrokenPipeError) else end.code)
    finally:
        _flush()


def _flush() -> None:
    """Flush standard output. What a reader that has gone does not take is dropped, also when Python exits."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
