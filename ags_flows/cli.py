"""The command `ags-flows`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

app = typer.Typer(
    help="Run work in cloud sandboxes (Tencent Cloud Agent Sandbox) from Prefect.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
InstanceId = Annotated[str, typer.Argument(help="The instance's id.", metavar="INSTANCE")]
User = Annotated[str | None, typer.Option(help="`user` or `root`.")]


@app.command(rich_help_panel="On this machine")
def emulator(
    port: Annotated[int, typer.Option(help="Port on the loopback interface; 0 takes a free one.")] = 8600,
    env_file: Annotated[Path | None, typer.Option(help="Write the export lines here, once it is ready.")] = None,
    state: Annotated[Path | None, typer.Option(help="Keep tools, instances and files here, over restarts.")] = None,
    volumes: Annotated[Path | None, typer.Option(help="Folder that COS, CFS and image mounts are bound from.")] = None,
    limits: Annotated[bool, typer.Option("--limits", help="AGS's quota of 10 instances, and its rates.")] = False,
    tls: Annotated[bool, typer.Option("--tls", help="Speak HTTPS too, on the same port.")] = False,
    start: Annotated[str, typer.Option(help="When a start returns: `async` (STARTING) or `at-once`.")] = "async",
    profile: Annotated[Path | None, typer.Option(help="Behave as this account did: `verify --record`.")] = None,
    retention: Annotated[float, typer.Option(help="Seconds for which an ended instance stays listed.")] = 3600.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line for each request.")] = False,
) -> None:
    """Serve AGS on this machine: real processes, no cloud account. For development, not a security boundary."""
    try:
        from ags_flows.emulator import serve
    except ModuleNotFoundError as error:
        _fail(f"The emulator needs the extra 'emulator' ({error}): pip install 'ags-flows[emulator]'")
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
        )
    )


@app.command(rich_help_panel="On this machine")
def demo(
    directory: Annotated[Path, typer.Option(help="For data, logs and the report.")] = Path(".demo"),
) -> None:
    """Run one real job on an emulator and a Prefect server of its own, and show the result."""
    from ags_flows.demo.show import run_demo

    sys.exit(run_demo(directory, Console()))


@app.command(rich_help_panel="Jobs", context_settings={"ignore_unknown_options": True})
def run(
    command: Annotated[list[str], typer.Argument(help="After `--`. One argument is a line for the shell.")],
    tool: Annotated[str | None, typer.Option(help="Name or id of an existing tool.")] = None,
    image: Annotated[str | None, typer.Option(help="Image for a tool of its own, deleted afterwards.")] = None,
    upload: Annotated[list[str] | None, typer.Option(help="LOCAL:REMOTE, a file or a directory.")] = None,
    download: Annotated[list[str] | None, typer.Option(help="REMOTE:LOCAL, a file, a directory or a pattern.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the command.")] = None,
    secret: Annotated[list[str] | None, typer.Option(help="NAME=BLOCK: a Prefect Secret block, masked.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for the command.")] = None,
    on_failure: Annotated[str, typer.Option(help="The sandbox of a failed run: stop, keep or pause.")] = "stop",
    quiet: Annotated[bool, typer.Option("--quiet", help="Only the command's output, and warnings.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a command in a sandbox of its own: output as it comes, its exit code passed on.

    For example: `ags-flows run --image python:3.11 --upload data:data --download 'out/*:out' -- python3 data/job.py`
    """
    from ags_flows.operator.job import job_options, run_job
    from ags_flows.operator.listing import print_json

    with _told():
        options = job_options(tool, image, upload or [], download or [], env or [], secret or [], timeout, on_failure)
        line = command[0] if len(command) == 1 else shlex.join(command)
        report = run_job(line, quiet, echo=not as_json, **options)
        if as_json:
            print_json(report.model_dump(mode="json"))
    sys.exit(report.result.exit_code)


@app.command(rich_help_panel="Jobs")
def swebench(
    predictions: Annotated[Path, typer.Option(help="JSON Lines: instance_id, model_patch, model_name_or_path.")],
    dataset: Annotated[str, typer.Option(help="A file (.jsonl, .json, .parquet), or a name on the network.")],
    split: Annotated[str, typer.Option(help="Of a data set that has several.")] = "test",
    tool: Annotated[str, typer.Option(help="A tool of type swebench.")] = "swebench-v1",
    tool_per_image: Annotated[bool, typer.Option("--tool-per-image", help="Keep a tool for each image.")] = False,
    image_registry_type: Annotated[str, typer.Option(help="Where the images are: system, enterprise, ...")] = "system",
    sandboxes: Annotated[int | None, typer.Option(help="How many at once; by default what the quota allows.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each evaluation.")] = 1800.0,
    retries: Annotated[int, typer.Option(help="After failures of the sandbox or the cloud.")] = 2,
    results: Annotated[str, typer.Option(help="For logs, verdicts and the report; skips what it has.")] = "swebench",
    as_json: AsJson = False,
) -> None:
    """Evaluate the patches of a model on SWE-bench, each in a sandbox, graded by the official package.

    Ends with 1 when an instance has no verdict, since a sandbox or the cloud failed: to run it again tries only those.

    For example: `ags-flows swebench --predictions predictions.jsonl --dataset SWE-bench/SWE-bench_Verified`
    """
    from ags_flows.operator.evaluation import COLUMNS, evaluate_now, rows_of, summary_of
    from ags_flows.operator.listing import print_json, show

    with _told():
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
        )
        if as_json:
            print_json(report.model_dump(mode="json"))
        else:
            show(rows_of(report), COLUMNS, title=report.model, empty="No predictions.")
            Console(stderr=True).print(summary_of(report), highlight=False, markup=False, soft_wrap=True)
    sys.exit(1 if report.ids("error") else 0)


@app.command(rich_help_panel="Sandboxes")
def ps(
    every: Annotated[bool, typer.Option("--all", help="Also those that have ended, and those of others.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the sandboxes that flows have started: state, tool, flow run, age, and when the lease ends."""
    from ags_flows.operator.listing import show
    from ags_flows.operator.sandboxes import COLUMNS, list_sandboxes

    with _told():
        show(
            list_sandboxes(every),
            COLUMNS,
            title="Sandboxes",
            as_json=as_json,
            links={"flow run": "run url"},
            empty="No sandboxes.",
        )


@app.command(name="exec", rich_help_panel="Sandboxes")
def execute(
    instance: InstanceId,
    command: Annotated[str, typer.Argument(help="Run by `bash -l -c`.")],
    user: User = None,
    timeout: Annotated[float, typer.Option(help="Seconds.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Run a short command in a sandbox: a look inside one that a failed run has kept."""
    from ags_flows.operator.listing import print_json
    from ags_flows.operator.sandboxes import execute_in

    with _told():
        writers = (None, None) if as_json else (sys.stdout.write, sys.stderr.write)
        result = execute_in(instance, command, user, timeout, *writers)
        if as_json:
            print_json(result.model_dump(mode="json"))
    sys.exit(result.exit_code)


@app.command(rich_help_panel="Sandboxes")
def logs(
    instance: InstanceId,
    number: Annotated[int | None, typer.Option(help="Which command, from 1; by default the last.")] = None,
    lines: Annotated[int, typer.Option(help="How many lines of its output, from the end.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the command ends.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the commands instead.")] = False,
    user: User = None,
    as_json: AsJson = False,
) -> None:
    """Show what the commands of a sandbox have written, whether or not anybody follows them."""
    from ags_flows.operator import journals
    from ags_flows.operator.listing import show

    with _told():
        commands = journals.list_commands(instance, user)
        if listed or as_json:
            show(commands, journals.COLUMNS, title=f"Commands of {instance}", as_json=as_json, empty="No commands.")
            return
        if not commands:
            _fail(f"No durable command was started in {instance} by {user or 'user'}.")
        if number is not None and not 1 <= number <= len(commands):
            _fail(f"number: {number} is not in 1..{len(commands)}, the commands of this sandbox.")
        chosen = commands[-1 if number is None else number - 1]
        journals.follow_command(instance, chosen["journal"], lines, follow, user, sys.stdout.write, sys.stderr.write)


@app.command(rich_help_panel="Sandboxes")
def stop(
    instances: Annotated[list[str], typer.Argument(help="The instances' ids.")],
    as_json: AsJson = False,
) -> None:
    """Stop sandboxes for good."""
    from ags_flows.errors import AGSFlowsError
    from ags_flows.operator.listing import print_json
    from ags_flows.operator.sandboxes import stop_sandbox

    told = []
    for instance in instances:
        try:
            stop_sandbox(instance)
        except AGSFlowsError as error:
            # The others are stopped all the same.
            told.append({"instance": instance, "stopped": False, "problem": str(error)})
            Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
            continue
        told.append({"instance": instance, "stopped": True})
        if not as_json:
            Console().print(f"Stopped {instance}", highlight=False)
    if as_json:
        print_json(told)
    sys.exit(0 if all(one["stopped"] for one in told) else 1)


@app.command(rich_help_panel="Sandboxes")
def reap(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be stopped, and stop nothing.")] = False,
    grace: Annotated[float | None, typer.Option(help="Minutes that a sandbox without an owner is left alone.")] = None,
    flow_run: Annotated[str | None, typer.Option(help="Only the sandboxes of this flow run (its id).")] = None,
    as_json: AsJson = False,
) -> None:
    """Stop sandboxes of flow runs that are over; asks AGS and the Prefect server, and needs both."""
    from ags_flows.operator.listing import print_json, show
    from ags_flows.operator.reaping import COLUMNS, reap_now, rows_of, summary_of

    with _told():
        report = reap_now(dry_run, grace, flow_run)
        if as_json:
            print_json(report.model_dump(mode="json"))
            return
        show(rows_of(report), COLUMNS, title="Dry run" if dry_run else "Reaped", empty="Nothing to stop.")
        Console(stderr=True).print(summary_of(report), highlight=False)


@app.command(rich_help_panel="Set-up")
def doctor(as_json: AsJson = False) -> None:
    """Check credentials, region and domain, clock, quota, Prefect server and blocks, and say what to mend."""
    from ags_flows.operator.doctor import COLUMNS, examine
    from ags_flows.operator.listing import show

    findings = list(examine())
    show([finding.row() for finding in findings], COLUMNS, as_json=as_json)
    sys.exit(1 if any(finding.verdict == "wrong" for finding in findings) else 0)


@app.command(rich_help_panel="Set-up")
def verify(
    config: Annotated[str | None, typer.Option(help="Name of an AGSConfig block. Default: the environment.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this group, such as `files`. May be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what waits for half a minute.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Do not delete what was created.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    record: Annotated[Path | None, typer.Option(help="Write what was seen here, for `emulator --profile`.")] = None,
    against: Annotated[Path | None, typer.Option(help="Compare with a profile that was recorded.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check what the account really does: tools, instances, files, commands, code, and how each fails.

    Creates a few instances for some minutes and deletes them again. Ends with 1 when something is different or failed.
    """
    from ags_flows.blocks import AGSConfig
    from ags_flows.verify.command import Options, announcement
    from ags_flows.verify.command import verify as verify_account

    with _told():
        chosen = cast(AGSConfig, AGSConfig.load(config)) if config else AGSConfig()
        Console(stderr=True).print(announcement(chosen), highlight=False, markup=False)
        if not yes:
            typer.confirm("Go on?", abort=True, err=True)
        sys.exit(verify_account(chosen, Options(only or (), quick, keep, as_json, record, against)))


@app.command(rich_help_panel="Set-up")
def automations(
    files: Annotated[
        list[Path] | None, typer.Argument(help="YAML files. Without: runs that nobody owns are marked as crashed.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring the Prefect server's automations in step with files, by their names. Safe to repeat."""
    from ags_flows.operator.listing import print_json
    from ags_flows.run.automations import sync_automations

    with _told():
        synced = sync_automations(files or ())
    if as_json:
        print_json([{"name": one.name, "change": one.change} for one in synced])
    else:
        for one in synced:
            Console().print(f"{one.change:<8} {one.name}", highlight=False, markup=False)
    with _told():
        _warn_of_short_leases([one.detection for one in synced if one.detection is not None])


def _warn_of_short_leases(detections: list[float]) -> None:
    """Print a warning for each automation that detects lost runs later than the configuration's lease allows."""
    from ags_flows.blocks import AGSConfig
    from ags_flows.run.automations import explain_lease

    for detection in detections:
        holds, sentence = explain_lease(AGSConfig().lease_seconds, detection)
        if not holds:
            text = f"Warning: {sentence}."
            Console(stderr=True).print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)


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
