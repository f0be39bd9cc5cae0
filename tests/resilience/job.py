"""The flows that the tests of resilience serve, in separate processes."""

import importlib.util
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

from prefect import flow, serve, task
from prefect.deployments import run_deployment
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.task_runners import ProcessPoolTaskRunner

from ags_flows import AGSConfig, in_sandbox, sandbox_session
from ags_flows.flows import provision_and_run, run_items, run_job, stop_sandboxes
from ags_flows.models import ToolSpec
from ags_flows.tasks import delete_snapshot


@flow(name="counting", on_cancellation=[stop_sandboxes], log_prints=True)
def counting(
    tool: str, lines: int = 10, pause: float = 0.3, target: str = "", after: float = 0.0, lease: str = "1m"
) -> int:
    """Count aloud in a sandbox, step by step; each line is also written to a file, to be counted later."""
    with sandbox_session(ToolSpec(name=tool, image="python:3.11"), lease=lease) as sandbox:
        sandbox.write("first.txt", "written")
        sandbox.run("echo first >> steps")
        command = f"for i in $(seq {lines}); do echo line $i; echo $i >> counted; sleep {pause}; done; exit 0"
        result = sandbox.run(command, check=True)
        sandbox.run("echo last >> steps")
        if after:
            sandbox.run(f"sleep {after}")
        if target:
            sandbox.run("cat steps counted > all")
            sandbox.download("all", target)
            Path(target + ".out").write_text(result.stdout)
    return result.exit_code


@flow(name="chaotic", on_cancellation=[stop_sandboxes])
def chaotic(tool: str, target: str, secret: str, lines: int = 8, pause: float = 0.25) -> None:
    """Steps of every kind, each of which leaves a trace that can be counted afterwards."""
    source = Path(target + ".in")
    source.write_text("uploaded\n" * 1000)
    with sandbox_session(ToolSpec(name=tool, image="python:3.11"), lease="1m") as sandbox:
        sandbox.upload(source, "up/in.txt")
        sandbox.run("echo first >> steps", check=True)
        command = f"for i in $(seq {lines}); do echo line $i $PASSWORD; echo $i >> counted; sleep {pause}; done"
        result = sandbox.run(command, secrets={"PASSWORD": secret}, check=True)
        sandbox.run("echo second >> steps", check=True)
        sandbox.run("echo second >> steps", check=True)
        # A file that was sent is changed in place.
        sandbox.run("sed -i s/uploaded/edited/ up/in.txt", check=True)
        sandbox.run("cat steps counted > up/all", check=True)
        sandbox.download("up", target)
    Path(target + ".out").write_text(result.stdout)


class Approval(RunInput):
    """The input that a person gives."""

    note: str


@flow(name="asking", on_cancellation=[stop_sandboxes])
def asking(tool: str, target: str) -> None:
    """Work, ask a person, and go on in the same sandbox."""
    with sandbox_session(ToolSpec(name=tool, image="python:3.11"), lease="1m") as sandbox:
        sandbox.run("echo before >> steps; sleep 300 > /dev/null 2>&1 & echo $! > pid", check=True)
        answer = suspend_flow_run(wait_for_input=Approval, timeout=600)
        sandbox.run(f"echo {answer.note} >> steps; kill -0 $(cat pid) && echo alive >> steps", check=True)
        sandbox.download("steps", target)


LINES = 6
COUNT = f"for i in $(seq {LINES}); do echo line $i; echo $i >> ran; sleep 0.25; done"


def steps(sandbox) -> str:
    """Run identical and long commands, each of which leaves a trace in the sandbox; return the output of the last."""
    sandbox.run("echo first >> ran", check=True)
    for _ in range(2):
        sandbox.run("echo second >> ran", check=True)
    return sandbox.run(COUNT, check=True).stdout


def note(directory: str, unit: str, sandbox, output: str) -> None:
    """Record what ran in a sandbox, and what this process got as output."""
    found = {"instance": sandbox.instance.id, "ran": sandbox.read("ran").decode().split(), "output": output}
    path = Path(directory, f"{unit}.json")
    path.with_suffix(".new").write_text(json.dumps(found))
    path.with_suffix(".new").rename(path)


def first_time(directory: str, what: str) -> bool:
    """Return True if this is asked for the first time in all attempts of a run."""
    try:
        Path(directory, what).open("x").close()
    except FileExistsError:
        return False
    return True


def session(tool: str, **options):
    """Open a session with a tool of this run."""
    return sandbox_session(ToolSpec(name=tool, image="python:3.11"), lease="1m", **options)


def measure(tool: str, directory: str, unit: str) -> None:
    """Do all steps in a dedicated sandbox."""
    with session(tool) as sandbox:
        note(directory, unit, sandbox, steps(sandbox))


measured = task(measure, name="measured")


@flow(name="pool-of-processes", task_runner=ProcessPoolTaskRunner(max_workers=2), on_cancellation=[stop_sandboxes])
def pool_of_processes(tool: str, directory: str, units: list[str]) -> None:
    """Work in parallel processes."""
    measured.map(tool, directory, units).result()


@flow(name="dask", on_cancellation=[stop_sandboxes])
def dask(tool: str, directory: str, units: list[str]) -> None:
    """Work in the processes of a Dask cluster."""
    measured.map(tool, directory, units).result()


@flow(name="child", on_cancellation=[stop_sandboxes])
def child(tool: str, directory: str, unit: str) -> None:
    """Work in a run that another run has started."""
    measure(tool, directory, unit)


@flow(name="parent", on_cancellation=[stop_sandboxes])
def parent(tool: str, directory: str, units: list[str]) -> None:
    """Start a run for each unit. A retry finds the runs of the earlier attempt."""
    for unit in units:
        started = run_deployment(
            "child/served",
            parameters={"tool": tool, "directory": directory, "unit": unit},
            idempotency_key=f"{flow_run.id}-{unit}",
            timeout=0,
        )
        Path(directory, f"{unit}.run").write_text(str(started.id))


@flow(name="threads", on_cancellation=[stop_sandboxes])
def threads(tool: str, directory: str, units: list[str]) -> None:
    """Work in parallel sessions, in threads that have the run's context."""
    with ThreadPoolExecutor(len(units)) as pool:
        futures = [pool.submit(copy_context().run, measure, tool, directory, unit) for unit in units]
    for future in futures:
        future.result()


@task(retries=2, retry_delay_seconds=0)
def failing_once(sandbox, directory: str) -> str:
    """Do all steps, fail behind them the first time, and find them all the second time."""
    output = steps(sandbox)
    if first_time(directory, "failed"):
        raise RuntimeError("The task fails once.")
    return output


@task(retries=2, retry_delay_seconds=0)
def measure_again(tool: str, directory: str, unit: str) -> None:
    """Fail the first time with a sandbox open, and work in another one the second time."""
    with session(tool) as sandbox:
        sandbox.run("echo first >> ran", check=True)
        if first_time(directory, "failed-in-session"):
            raise RuntimeError("The task fails once.")
        for _ in range(2):
            sandbox.run("echo second >> ran", check=True)
        note(directory, unit, sandbox, sandbox.run(COUNT, check=True).stdout)


@task(retries=2, retry_delay_seconds=0)
def nesting(sandbox, directory: str) -> str:
    """Fail behind a task in this task, which has failed once before."""
    output = failing_once(sandbox, directory)
    if first_time(directory, "failed-around"):
        raise RuntimeError("The outer task fails once.")
    return output


@flow(name="retried-tasks", on_cancellation=[stop_sandboxes])
def retried_tasks(tool: str, directory: str, units: list[str]) -> None:
    """Work in tasks that are retried, with the sandbox around them and inside of them."""
    with session(tool) as sandbox:
        inside = measure_again.submit(tool, directory, units[0])
        output = nesting(sandbox, directory)
        inside.result()
        note(directory, units[1], sandbox, output)


@flow(name="inner")
def inner(tool: str, directory: str, unit: str) -> None:
    """Work in a subflow."""
    measure(tool, directory, unit)


@task
def around(tool: str, directory: str, unit: str) -> None:
    """Work in a subflow of a task."""
    inner(tool, directory, unit)


@flow(name="subflows", on_cancellation=[stop_sandboxes])
def subflows(tool: str, directory: str, units: list[str]) -> None:
    """Work in subflows, one of them inside of a task."""
    future = around.submit(tool, directory, units[0])
    inner(tool, directory, units[1])
    future.result()


@flow(name="pool-of-a-subflow", task_runner=ProcessPoolTaskRunner(max_workers=2))
def pool_of_a_subflow(tool: str, directory: str, units: list[str]) -> None:
    """Work in the process pool of a subflow."""
    measured.map(tool, directory, units).result()


@flow(name="pooled-subflow", on_cancellation=[stop_sandboxes])
def pooled_subflow(tool: str, directory: str, units: list[str]) -> None:
    """Start a subflow that works in a process pool."""
    pool_of_a_subflow(tool, directory, units)


@flow(name="inputs", on_cancellation=[stop_sandboxes])
def inputs(tool: str, directory: str, units: list[str]) -> None:
    """Run one command with different inputs."""
    with session(tool) as sandbox:
        lines = "".join(f"{number}\n" for number in range(1, LINES + 1))
        for given in ("first\n", "second\n", "second\n"):
            sandbox.run("cat >> ran", stdin=given, check=True)
        command = "while read -r i; do echo line $i; echo $i >> ran; sleep 0.25; done"
        note(directory, units[0], sandbox, sandbox.run(command, stdin=lines, check=True).stdout)


@flow(name="cells", on_cancellation=[stop_sandboxes])
def cells(tool: str, directory: str, units: list[str]) -> None:
    """Run code cells, identical ones among them, with variables that live on."""
    with sandbox_session("code-interpreter-v1", lease="1m") as sandbox:
        cell = (
            "lines = []\ndef log(text):\n    lines.append(text)\n    open('ran', 'a').write(text + '\\n')\nlog('first')"
        )
        sandbox.run_code(cell, check=True)
        for _ in range(2):
            sandbox.run_code("log('second')", check=True)
        code = f"import time\nfor i in range(1, {LINES} + 1):\n    log(str(i)); print('line', i); time.sleep(0.1)"
        sandbox.run_code(code, check=True)
        known = sandbox.run_code("print(*(f'line {line}' for line in lines[3:]), sep='\\n')", check=True)
        note(directory, units[0], sandbox, "".join(known.stdout))


@flow(name="kept", on_cancellation=[stop_sandboxes])
def kept(tool: str, directory: str, units: list[str]) -> None:
    """Fail once, keep the sandbox of the failure, and work in another one."""
    with session(tool, on_failure="keep", metadata={"unit": units[0]}, delete_tool=True) as sandbox:
        sandbox.run("echo first >> ran", check=True)
        if first_time(directory, "failed"):
            Path(directory, "kept").write_text(sandbox.instance.id)
            sandbox.run("exit 7", check=True)
        for _ in range(2):
            sandbox.run("echo second >> ran", check=True)
        note(directory, units[0], sandbox, sandbox.run(COUNT, check=True).stdout)


@flow(name="copies", on_cancellation=[stop_sandboxes])
def copies(tool: str, directory: str, units: list[str]) -> None:
    """Work in a sandbox, copy it, and run the same commands in both."""
    with session(tool) as sandbox:
        sandbox.run("echo first >> ran", check=True)
        made = sandbox.snapshot("before")
        with sandbox_session(snapshot_id=made.id, lease="1m") as copy:
            for unit, one in zip(units, (sandbox, copy), strict=True):
                for _ in range(2):
                    one.run("echo second >> ran", check=True)
                note(directory, unit, one, one.run(COUNT, check=True).stdout)
        delete_snapshot(made)


@flow(name="suspended", on_cancellation=[stop_sandboxes])
def suspended(tool: str, directory: str, units: list[str]) -> None:
    """Work, wait for input without a process, and go on in the same sandbox."""
    with session(tool) as sandbox:
        sandbox.run("echo first >> ran", check=True)
        suspend_flow_run(wait_for_input=Approval, timeout=600)
        for _ in range(2):
            sandbox.run("echo second >> ran", check=True)
        note(directory, units[0], sandbox, sandbox.run(COUNT, check=True).stdout)


@flow(name="batched", on_cancellation=[stop_sandboxes])
def batched(tool: str, items: int, sandboxes: int, results: str, pause: float) -> None:
    """Take many items through a pool of sandboxes. Each item counts how often it has run."""
    run_items(
        [str(number) for number in range(items)],
        command=f'echo "$ITEM" >> ran; sleep {pause}; grep -cx "$ITEM" ran',
        tool=ToolSpec(name=tool, image="python:3.11"),
        sandboxes=sandboxes,
        results=results,
        lease="2m",
    )


def in_one_call(unit: str) -> dict:
    """Do all steps in one call, and return what ran in its sandbox."""
    import time

    def say(text: str) -> None:
        with open(f"ran-{unit}", "a") as ran:
            ran.write(f"{text}\n")

    for text in ("first", "second", "second"):
        say(text)
    output = ""
    for number in range(1, 7):
        print("line", number)
        say(str(number))
        output += f"line {number}\n"
        time.sleep(0.25)
    with open("/run/e2b/.E2B_SANDBOX_ID") as identity, open(f"ran-{unit}") as ran:
        return {"instance": identity.read(), "ran": ran.read().split(), "output": output}


@flow(name="functions", on_cancellation=[stop_sandboxes])
def functions(tool: str, directory: str, units: list[str]) -> None:
    """Call functions in sandboxes that they share."""
    config = AGSConfig(lease="1m")
    called = in_sandbox(tool="base", sandboxes=1, config=config)(in_one_call)
    for unit, found in zip(units, called.map(units).result(), strict=True):
        Path(directory, f"{unit}.json").write_text(json.dumps(found))


KINDS = [functions, pool_of_processes, parent, threads, retried_tasks, subflows, pooled_subflow, inputs, cells]
KINDS += [kept, copies, suspended]
if importlib.util.find_spec("prefect_dask"):
    from prefect_dask import DaskTaskRunner

    cluster = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    KINDS.append(dask.with_options(task_runner=DaskTaskRunner(cluster_kwargs=cluster)))


if __name__ == "__main__":
    flows = (counting, chaotic, asking, provision_and_run, run_job, child, batched, *KINDS)
    serve(*(each.to_deployment("served") for each in flows), limit=10)
    sys.exit(0)
