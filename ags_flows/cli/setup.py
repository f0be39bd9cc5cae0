"""Commands about the set-up: check it, and install automations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ags_flows.cli.app import (
    AsJson,
    ConfigName,
    Region,
    app,
    configuration,
    errors_as_text,
    print_error,
    signals_as_interrupt,
)

PANEL = "Set-up"


@app.command(rich_help_panel=PANEL)
def doctor(config: ConfigName = None, region: Region = None, as_json: AsJson = False) -> None:
    """Check AGS, the Prefect server, workers, blocks and the lease, and print what to fix. Exit code 1: broken."""
    from ags_flows.cli.doctor import COLUMNS, examine, examined
    from ags_flows.cli.listing import show

    findings = examined(lambda: examine(configuration(config, region)))
    show([finding.row() for finding in findings], COLUMNS, as_json=as_json)
    sys.exit(1 if any(finding.verdict == "wrong" for finding in findings) else 0)


@app.command(rich_help_panel=PANEL)
def automations(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="YAML files. Default: the built-in automation that marks orphaned runs as Crashed."),
    ] = None,
    config: ConfigName = None,
    region: Region = None,
    as_json: AsJson = False,
) -> None:
    """Bring the Prefect server's automations in step with files, by their names. Safe to repeat."""
    from ags_flows.cli.listing import print_json
    from ags_flows.run.automations import explain_lease, sync_automations

    with errors_as_text(as_json=as_json):
        lease = configuration(config, region).lease_seconds
        synced = sync_automations(files or ())
    if as_json:
        print_json([{"name": one.name, "change": one.change} for one in synced])
    else:
        for one in synced:
            Console().print(f"{one.change:<8} {one.name}", highlight=False, markup=False)
    for detection in [one.detection for one in synced if one.detection is not None]:
        holds, sentence = explain_lease(lease, detection)
        if not holds:
            print_error(f"Warning: {sentence}.", "yellow")


@app.command(rich_help_panel=PANEL)
def verify(
    config: ConfigName = None,
    region: Region = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this group, such as `files`. May be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Skip the checks that wait for half a minute.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Do not delete what was created.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    record: Annotated[Path | None, typer.Option(help="Write the profile here, for `emulator --profile`.")] = None,
    against: Annotated[Path | None, typer.Option(help="Compare with a recorded profile.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check what the account really does: tools, instances, files, commands, code, and how each fails.

    Creates a few instances for some minutes and deletes them. Exit code 1: a check failed, or found a difference;
    with --against: something has changed. 2: nothing was checked, because of an option, the keys, no response, or a no.
    """
    from ags_flows.errors import ConfigurationError
    from ags_flows.verify.command import Options, announcement
    from ags_flows.verify.command import verify as verify_account

    with errors_as_text(exit_code=2, as_json=as_json), signals_as_interrupt():
        chosen = configuration(config, region)

        def agree() -> None:
            Console(stderr=True).print(announcement(chosen, only or (), keep=keep), highlight=False, markup=False)
            if not yes and not _confirmed():
                raise ConfigurationError("Nothing was created.", hint="--yes does not ask.")

        sys.exit(verify_account(chosen, Options(only or (), quick, keep, as_json, record, against), agree))


def _confirmed() -> bool:
    try:
        return typer.confirm("Go on?", err=True)
    except typer.Abort:
        if sys.stdin.isatty():
            raise
        return False
