"""Commands that need no cloud account: the emulator and the demo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ags_flows.cli.app import app, fail, signals_as_interrupt

PANEL = "On this machine"


@app.command(rich_help_panel=PANEL)
def emulator(
    port: Annotated[int, typer.Option(help="Port on the loopback interface; 0 takes a free one.")] = 8600,
    env_file: Annotated[Path | None, typer.Option(help="Write the export lines here, once it is ready.")] = None,
    state: Annotated[Path | None, typer.Option(help="Keep tools, instances and files here, over restarts.")] = None,
    volumes: Annotated[Path | None, typer.Option(help="Folder that COS, CFS and image mounts are bound from.")] = None,
    limits: Annotated[bool, typer.Option("--limits", help="AGS's quota of 10 instances, and its rates.")] = False,
    tls: Annotated[bool, typer.Option("--tls", help="Serve HTTPS too, on the same port.")] = False,
    start: Annotated[
        str | None, typer.Option(help="A start returns STARTING (`async`, the default) or RUNNING (`at-once`).")
    ] = None,
    profile: Annotated[Path | None, typer.Option(help="Behave as this account did: `verify --record`.")] = None,
    allow_host_port: Annotated[
        list[int] | None, typer.Option(help="A port of this machine that sandboxes reach at 127.0.0.1, such as 4200.")
    ] = None,
    retention: Annotated[float, typer.Option(help="Seconds for which an ended instance stays listed.")] = 3600.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line for each request.")] = False,
) -> None:
    """Serve AGS on this machine: real processes, no cloud account. For development, not a security boundary."""
    try:
        from ags_flows.emulator import serve
    except ModuleNotFoundError as error:
        fail(f"The emulator needs the extra 'emulator' ({error}): pip install 'ags-flows[emulator]'")
    sys.exit(
        serve(
            port=port,
            env_file=env_file,
            state=state,
            volumes=volumes,
            quiet=quiet,
            quotas=limits,
            rates=limits,
            tls=tls,
            start=start,
            retention=retention,
            profile=profile or {},
            host_ports=tuple(allow_host_port or ()),
        )
    )


@app.command(rich_help_panel=PANEL)
def demo(
    directory: Annotated[Path, typer.Option(help="For data, logs and the report.")] = Path(".demo"),
    worker: Annotated[bool, typer.Option("--worker", help="Run whole flows in sandboxes, by a worker.")] = False,
) -> None:
    """Run one real job on an emulator and a dedicated Prefect server, and show the result."""
    from ags_flows.demo.show import run_demo

    with signals_as_interrupt():
        sys.exit(run_demo(directory, Console(), worker=worker))
