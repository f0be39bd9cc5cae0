"""Commands about sandboxes: list them, look inside, stop them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from ags_flows.cli.app import (
    WITH_ARGUMENTS,
    AsJson,
    ConfigName,
    InstanceId,
    Region,
    User,
    app,
    configuration,
    errors_as_text,
    line_of,
    print_error,
)

PANEL = "Sandboxes"


@app.command(rich_help_panel=PANEL)
def ps(
    every: Annotated[bool, typer.Option("--all", help="Also those that have ended, and those of others.")] = False,
    config: ConfigName = None,
    region: Region = None,
    as_json: AsJson = False,
) -> None:
    """List the sandboxes that flows have started: state, tool, flow run, age, and when the lease ends."""
    from ags_flows.cli.instances import columns_for, list_sandboxes
    from ags_flows.cli.listing import show

    with errors_as_text(as_json=as_json):
        rows = list_sandboxes(every, configuration(config, region))
        show(rows, columns_for(rows), title="Sandboxes", as_json=as_json, empty="No sandboxes.")


@app.command(name="exec", rich_help_panel=PANEL, context_settings=WITH_ARGUMENTS)
def execute(
    instance: InstanceId,
    command: Annotated[list[str], typer.Argument(help="One argument is a line for the shell.")],
    user: User = None,
    timeout: Annotated[float, typer.Option(help="Seconds.")] = 60.0,
    config: ConfigName = None,
    region: Region = None,
    as_json: AsJson = False,
) -> None:
    """Run a short command in a sandbox, for example in one that a failed run has kept.

    Options stand before INSTANCE. For example: `ags-flows exec 4f2a -- ls -la`
    """
    from ags_flows.cli.instances import execute_in, find_instance
    from ags_flows.cli.listing import print_json, writers

    with errors_as_text(as_json=as_json):
        chosen = configuration(config, region)
        out, err = (None, None) if as_json else writers()
        result = execute_in(chosen, find_instance(chosen, instance), line_of(command), user, timeout, out, err)
        if as_json:
            print_json(result)
    sys.exit(result.exit_code)


@app.command(rich_help_panel=PANEL)
def logs(
    instance: InstanceId,
    number: Annotated[int | None, typer.Option(help="Which command, from 1. Default: the last.")] = None,
    lines: Annotated[int, typer.Option(min=0, help="How many lines of its output, from the end.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the command ends.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the commands instead.")] = False,
    user: User = None,
    config: ConfigName = None,
    region: Region = None,
    as_json: AsJson = False,
) -> None:
    """Show the output of a command in a sandbox, whether or not a process follows it."""
    from ags_flows.cli.instances import find_instance
    from ags_flows.cli.journals import COLUMNS, Journals
    from ags_flows.cli.listing import print_json, show, writers
    from ags_flows.errors import ConfigurationError, NotFoundError

    with errors_as_text(as_json=as_json):
        chosen = configuration(config, region)
        reference = find_instance(chosen, instance)
        journals = Journals(chosen, reference, user)
        commands = journals.commands()
        if listed:
            show(commands, COLUMNS, title=f"Commands of {reference}", as_json=as_json, empty="No commands.")
            return
        if not commands:
            raise NotFoundError(f"No durable command was started in {reference} by {user or 'user'}.")
        if number is not None and not 1 <= number <= len(commands):
            raise ConfigurationError(f"number: {number} is not in 1..{len(commands)}, the commands of this sandbox.")
        wanted = (number or len(commands)) - 1
        if not as_json:
            journals.follow(commands[wanted]["journal"], lines, follow, *writers())
            return
        stdout: list[str] = []
        stderr: list[str] = []
        journals.follow(commands[wanted]["journal"], lines, follow, stdout.append, stderr.append)
        # With --follow it has ended in the meantime.
        found = journals.commands()[wanted]
        print_json({"instance_id": reference, **found, "stdout": "".join(stdout), "stderr": "".join(stderr)})


@app.command(rich_help_panel=PANEL)
def stop(
    instances: Annotated[list[str], typer.Argument(help="Ids of instances, or their first characters.")],
    config: ConfigName = None,
    region: Region = None,
    as_json: AsJson = False,
) -> None:
    """Stop sandboxes permanently."""
    from ags_flows.cli.instances import find_instance, stop_sandbox
    from ags_flows.cli.listing import print_json
    from ags_flows.errors import AGSFlowsError
    from ags_flows.models.checks import check_name

    outcomes = []
    with errors_as_text(as_json=as_json):
        for instance in instances:
            check_name(instance, "instance")
        chosen = configuration(config, region)
    for instance in instances:
        reference = instance
        try:
            reference = find_instance(chosen, instance)
            stop_sandbox(chosen, reference)
        except AGSFlowsError as error:
            # The others are stopped nevertheless.
            outcomes.append({"instance_id": reference, "stopped": False, "problem": str(error)})
            print_error(str(error))
            continue
        outcomes.append({"instance_id": reference, "stopped": True, "problem": ""})
        if not as_json:
            Console().print(f"Stopped {reference}", highlight=False)
    if as_json:
        print_json(outcomes)
    sys.exit(0 if all(one["stopped"] for one in outcomes) else 1)


@app.command(rich_help_panel=PANEL)
def reap(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be stopped, and stop nothing.")] = False,
    grace: Annotated[float | None, typer.Option(help="Minutes that a sandbox without an owner is left alone.")] = None,
    flow_run: Annotated[str | None, typer.Option(help="Only the sandboxes of this flow run (its id).")] = None,
    config: ConfigName = None,
    region: Region = None,
    as_json: AsJson = False,
) -> None:
    """Stop sandboxes of flow runs that are over; asks AGS and the Prefect server, and needs both."""
    from ags_flows.cli.listing import print_json, show
    from ags_flows.cli.reaping import COLUMNS, document_of, reap_now, rows_of, summary_of

    with errors_as_text(as_json=as_json):
        report = reap_now(dry_run, grace, flow_run, configuration(config, region))
        if as_json:
            print_json(document_of(report))
            return
        show(rows_of(report), COLUMNS, title="Dry run" if dry_run else "Reaped", empty="Nothing to stop.")
        Console(stderr=True).print(summary_of(report, flow_run), highlight=False)
