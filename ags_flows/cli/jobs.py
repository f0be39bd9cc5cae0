"""Commands that run work in sandboxes: one command, or an evaluation on SWE-bench."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from ags_flows.cli.app import (
    WITH_ARGUMENTS,
    AsJson,
    ConfigName,
    Region,
    User,
    app,
    configuration,
    errors_as_text,
    line_of,
)

PANEL = "Jobs"


@app.command(rich_help_panel=PANEL, context_settings=WITH_ARGUMENTS)
def run(
    command: Annotated[list[str], typer.Argument(help="After all options. One argument is a line for the shell.")],
    tool: Annotated[str | None, typer.Option(help="Name or id of an existing tool.")] = None,
    image: Annotated[str | None, typer.Option(help="Image for a dedicated tool, deleted afterwards.")] = None,
    cpu: Annotated[str | None, typer.Option(help="Cores of the sandbox, such as 2 or 500m. Needs --memory.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory of the sandbox, such as 2Gi. Needs --cpu.")] = None,
    upload: Annotated[list[str] | None, typer.Option(help="LOCAL:REMOTE, a file or a directory.")] = None,
    download: Annotated[list[str] | None, typer.Option(help="REMOTE:LOCAL, a file, a directory or a pattern.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the command.")] = None,
    secret: Annotated[list[str] | None, typer.Option(help="NAME=BLOCK: a Prefect Secret block, masked.")] = None,
    cwd: Annotated[str | None, typer.Option(help="Working directory in the sandbox. Default: the home.")] = None,
    user: User = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for the command, 0 for no limit.")] = None,
    lease: Annotated[str | None, typer.Option(help="How long the sandbox outlives this process: 30s to 24h.")] = None,
    on_failure: Annotated[
        Literal["stop", "keep", "pause"], typer.Option(help="What happens to the sandbox of a failed run.")
    ] = "stop",
    quiet: Annotated[bool, typer.Option("--quiet", help="Only the command's output, and warnings.")] = False,
    config: ConfigName = None,
    region: Region = None,
    as_json: AsJson = False,
) -> None:
    """Run a command in a new sandbox: its output is streamed, its exit code is the exit code.

    For example: `ags-flows run --image python:3.11 --upload data:data --download 'out/*:out' -- python3 data/job.py`
    """
    from ags_flows.cli.job import files_and_variables, run_job, tool_for
    from ags_flows.cli.listing import print_json
    from ags_flows.models.checks import check_name, check_text_path
    from ags_flows.models.durations import check_duration

    with errors_as_text(as_json=as_json):
        options = files_and_variables(upload or [], download or [], env or [], secret or [])
        chosen = configuration(config, region)
        report = run_job(
            line_of(command),
            quiet,
            echo=not as_json,
            tool=tool_for(chosen, tool, image),
            cpu=check_name(cpu, "cpu") or "",
            memory=check_name(memory, "memory") or "",
            cwd="" if cwd is None else check_text_path(cwd, "cwd"),
            user="user" if user is None else user,
            timeout=timeout,
            lease="" if lease is None else check_duration(lease, "lease"),
            on_failure=on_failure,
            config=chosen,
            **options,
        )
        if as_json:
            print_json(report)
    sys.exit(report.result.exit_code)


@app.command(rich_help_panel=PANEL)
def swebench(
    predictions: Annotated[Path, typer.Option(help="JSON Lines: instance_id, model_patch, model_name_or_path.")],
    dataset: Annotated[str, typer.Option(help="A file (.jsonl, .json, .parquet), or a name on the network.")],
    split: Annotated[str, typer.Option(help="Of a data set that has several.")] = "test",
    tool: Annotated[str, typer.Option(help="A tool of type swebench.")] = "swebench-v1",
    tool_per_image: Annotated[bool, typer.Option("--tool-per-image", help="Keep a tool for each image.")] = False,
    image_registry_type: Annotated[str, typer.Option(help="Where the images are: system, enterprise, ...")] = "system",
    sandboxes: Annotated[
        int | None, typer.Option(help="How many concurrently. Default: what the quota allows.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each evaluation.")] = 1800.0,
    retries: Annotated[int, typer.Option(help="After failures of the sandbox or the cloud.")] = 2,
    results: Annotated[str, typer.Option(help="For logs, verdicts and the report; skips what it has.")] = "swebench",
    config: ConfigName = None,
    region: Region = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate the patches of a model on SWE-bench, each in a sandbox, graded by the official package.

    The exit code is 1 if an instance has no verdict, because a sandbox or the cloud failed. The next run evaluates only
    those.

    For example: `ags-flows swebench --predictions predictions.jsonl --dataset SWE-bench/SWE-bench_Verified`
    """
    from ags_flows.cli.evaluation import COLUMNS, evaluate_now, rows_of, summary_of
    from ags_flows.cli.listing import print_json, show

    with errors_as_text(as_json=as_json):
        report = evaluate_now(
            str(predictions),
            dataset,
            split=split,
            tool=tool,
            tool_per_image=tool_per_image,
            image_registry_type=image_registry_type,
            sandboxes=sandboxes,
            timeout=timeout,
            retries=retries,
            results=results,
            config=configuration(config, region),
        )
        if as_json:
            print_json(report)
        else:
            show(rows_of(report), COLUMNS, title=report.model, empty="No predictions.")
            Console(stderr=True).print(summary_of(report), highlight=False, markup=False, soft_wrap=True)
    sys.exit(1 if report.ids("error") else 0)
