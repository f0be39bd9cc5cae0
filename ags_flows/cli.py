"""The command `ags-flows`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    help="Run work in cloud sandboxes (Tencent Cloud Agent Sandbox) from Prefect.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """Keep the name of a command necessary, also while there is only one."""


@app.command()
def emulator(
    port: Annotated[int, typer.Option(help="Port on the loopback interface; 0 takes a free one.")] = 8600,
    env_file: Annotated[Path | None, typer.Option(help="Write the export lines here, once it is ready.")] = None,
    state: Annotated[Path | None, typer.Option(help="Keep tools, instances and files here, over restarts.")] = None,
    volumes: Annotated[Path | None, typer.Option(help="Folder that COS, CFS and image mounts are bound from.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line for each request.")] = False,
) -> None:
    """Serve AGS on this machine: real processes, no cloud account. For development, not a security boundary."""
    try:
        from ags_flows.emulator import serve
    except ModuleNotFoundError as error:
        _fail(f"The emulator needs the extra 'emulator' ({error}): pip install 'ags-flows[emulator]'")
    sys.exit(serve(port=port, env_file=env_file, state=state, volumes=volumes, quiet=quiet))


@app.command()
def demo(
    directory: Annotated[Path, typer.Option(help="For data, logs and the report.")] = Path(".demo"),
) -> None:
    """Run one real job on an emulator and a Prefect server of its own, and show the result."""
    from ags_flows.demo.show import run_demo

    sys.exit(run_demo(directory, Console()))


@app.command()
def automations(
    minutes: Annotated[float, typer.Option(help="How long heartbeats may be missing: three of them at least.")] = 9.0,
) -> None:
    """Let the Prefect server mark runs as crashed whose runner and engine were both killed. Safe to repeat."""
    from datetime import timedelta

    from ags_flows.automations import LOST_RUNS, sync_automations

    created = sync_automations(timedelta(minutes=minutes))
    Console().print(f"{'Created' if created else 'Brought up to date'}: {LOST_RUNS}", highlight=False)


@app.command()
def ps(
    every: Annotated[bool, typer.Option("--all", help="Also those that have ended, and those of others.")] = False,
) -> None:
    """List the sandboxes that flows have started: state, tool, flow run, and when the lease ends."""
    from ags_flows.operator import list_sandboxes

    with _told():
        Console().print(list_sandboxes(every))


@app.command(name="exec")
def execute(
    instance: Annotated[str, typer.Argument(help="The instance's id.")],
    command: Annotated[str, typer.Argument(help="Run by `bash -l -c`.")],
    user: Annotated[str | None, typer.Option(help="`user` or `root`.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds.")] = 60.0,
) -> None:
    """Run a short command in a sandbox: a look inside one that a failed run has kept."""
    from ags_flows.operator import execute_in

    with _told():
        sys.exit(execute_in(instance, command, user, timeout, sys.stdout.write, sys.stderr.write))


@app.command()
def stop(instances: Annotated[list[str], typer.Argument(help="The instances' ids.")]) -> None:
    """Stop sandboxes for good."""
    from ags_flows.operator import stop_sandbox

    with _told():
        for instance in instances:
            stop_sandbox(instance)
            Console().print(f"Stopped {instance}", highlight=False)


@contextmanager
def _told() -> Iterator[None]:
    """Say what is wrong in a sentence instead of a traceback."""
    from ags_flows.errors import AGSFlowsError

    try:
        yield
    except AGSFlowsError as error:
        _fail(str(error))


def _fail(message: str) -> None:
    Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
