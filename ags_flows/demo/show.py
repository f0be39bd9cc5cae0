"""Run the demo and show its progress, the log of the flow run, and the result in the terminal."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from ags_flows.demo.servers import (
    emulator,
    end,
    fresh_directory,
    prefect_environment,
    prefect_server,
    wait_for_prefect,
)
from ags_flows.errors import UnreachableError
from ags_flows.models import RunReport

HEAD_LINES = 19


def run_demo(directory: Path, console: Console, *, worker: bool = False) -> int:
    """Run the whole demo and return an exit code.

    Args:
        directory: Directory for data, logs and reports. Files of an earlier demo in it are removed.
        console: The console to print to.
        worker: Whether whole flows run in sandboxes, by a worker, instead of one job.
    """
    started = time.monotonic()
    try:
        return _run(fresh_directory(directory), console, started, worker)
    except KeyboardInterrupt:
        console.print("[yellow]Interrupted: the sandbox and the servers are stopped.[/]")
        return 130
    except (UnreachableError, FileExistsError) as error:
        console.print(f"[red]{error}[/]", highlight=False, soft_wrap=True)
        return 1


def _run(directory: Path, console: Console, started: float, worker: bool) -> int:
    what = "a worker runs whole Prefect flows in sandboxes" if worker else "a Prefect flow runs a job in a sandbox"
    console.print(f"[bold]ags_flows demo[/]: {what}.")
    console.print(f"  Data and logs are written to {directory}", highlight=False, soft_wrap=True)
    # Both start at the same time; Prefect's server takes longer.
    with prefect_server(directory) as (server, url), ExitStack() as stack:
        with _step(console, "Starting the emulator of AGS") as step:
            # The flows in the sandboxes report to the Prefect server.
            reach = ("--allow-host-port", url.rpartition(":")[2]) if worker else ()
            exports = stack.enter_context(emulator(directory, *reach))
            step(f"Emulator of AGS at {exports['AGS_ENDPOINT']}")
        with _step(console, "Starting a Prefect server (its first start takes 10 to 40 s)") as step:
            wait_for_prefect(server, url, directory)
            step(f"Prefect server; watch the run in its UI: {url}")
        environment = {
            **prefect_environment(directory),
            **exports,
            "PREFECT_API_URL": f"{url}/api",
            "PYTHONUNBUFFERED": "1",
            # Prefect wraps its log lines at the width of the terminal, which is 80 without a terminal.
            "COLUMNS": "400",
        }
        code = _follow("flow_runs" if worker else "work", directory, console, environment)
    if code == 0 and not worker:
        _show_result(directory, console, time.monotonic() - started)
    if code:
        console.print(f"[red]The demo failed (exit code {code}). Logs are in {directory}.[/]")
    return code


def _follow(module: str, directory: Path, console: Console, environment: dict[str, str]) -> int:
    """Run a module of the demo in a child process and show its output above the progress line."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"ags_flows.demo.{module}", str(directory)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        with _step(console, "Running") as step, (directory / "flow.log").open("wb") as log:
            for line in process.stdout:
                log.write(line)
                text = _short(line.decode(errors="replace").rstrip())
                if not text.endswith("Finished in state Completed()"):
                    console.print(f"    {text}", style="dim", markup=False, highlight=False, soft_wrap=True)
            code = process.wait()
            if code == 0:
                step("Done")
        return code
    except KeyboardInterrupt:
        console.print("[yellow]Stopping: the flow stops its sandbox first.[/]")
        raise
    finally:
        end(process, signal.SIGINT)
        process.stdout.close()


def _short(line: str) -> str:
    """Return a line of Prefect's log without date and logger, which are the same in every line."""
    return re.sub(r"^(\d\d:\d\d:\d\d)\.\d+ \| (\w+)\s*\| (?:Task|Flow) run ", r"\1 ", line)


def _show_result(directory: Path, console: Console, seconds: float) -> None:
    report = RunReport.model_validate_json((directory / "run.json").read_text(encoding="utf-8"))
    written = directory / "report.md"
    head = "\n".join(written.read_text(encoding="utf-8").splitlines()[:HEAD_LINES])
    console.print(f"\nThe first lines of the report that the sandbox wrote ({written}):")
    console.print(Markdown(head))
    table = Table(title="Durations", title_justify="left")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for step in report.steps:
        table.add_row(step.name.replace(f"{directory}/", ""), f"{step.seconds:.2f}")
    table.add_section()
    table.add_row("the flow run", f"{report.seconds:.2f}")
    table.add_row("the whole demo, including the start of both servers", f"{seconds:.2f}")
    console.print(table)
    prefect = Path(sys.executable).with_name("prefect")
    console.print(
        "The flow run is stored. To open it in the Prefect UI:\n"
        f"  PREFECT_HOME={directory / 'prefect'} {prefect} server start",
        highlight=False,
        soft_wrap=True,
    )


@contextmanager
def _step(console: Console, what: str) -> Iterator[_Done]:
    """Show a step with a spinner on terminals, and a tick with its duration when it is done."""
    done = _Done()
    started = time.monotonic()
    if not console.is_terminal:
        console.print(f"  … {what}", highlight=False)
    with console.status(what):
        yield done
    if done.text:
        console.print(f"  [green]✓[/] {done.text} ({time.monotonic() - started:.1f} s)", highlight=False)


class _Done:
    """Stores the text that is printed when a step is done."""

    text = ""

    def __call__(self, text: str) -> None:
        self.text = text
