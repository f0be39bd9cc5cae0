"""Flows and tasks of the tests that need separate processes. `work.py flows` and `work.py tasks` serve them."""

import faulthandler
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from prefect import flow, serve, task, unmapped
from prefect.deployments import run_deployment
from prefect.runtime import flow_run
from prefect.task_runners import ProcessPoolTaskRunner
from prefect.task_worker import serve as serve_tasks

from ags_flows import sandbox_session
from ags_flows.flows import run_items
from ags_flows.ownership import Frame, Owner
from ags_flows.run.holder import Execution, acting_as, identify
from ags_flows.tasks import exec_command, read_file, start_instance, stop_instance, wait_instance_running


def meet(directory, name, others):
    """Wait until all of the parallel executions have come so far."""
    Path(directory, f"{name}.here").touch()
    deadline = time.monotonic() + 60
    while not all(Path(directory, f"{other}.here").exists() for other in others):
        assert time.monotonic() < deadline, f"{name} waits for {others}"
        time.sleep(0.05)


def note(directory, name, **values):
    """Record what one execution saw."""
    path = Path(directory, f"{name}.json")
    known = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([*known, values]))


def first_time(directory):
    """Return True if this is asked for the first time in all attempts."""
    first = not Path(directory, "first").exists()
    Path(directory).mkdir(exist_ok=True)
    Path(directory, "first").touch()
    return first


def measure(directory, name, others, die=False):
    """Run two identical commands in a session, side by side with others; be killed behind them the first time."""
    with sandbox_session("base") as sandbox:
        meet(directory, name, others)
        for _ in range(2):
            sandbox.run("echo $PPID >> ran", check=True)
        first = not Path(directory, f"{name}.json").exists()
        meet(directory, f"{name}.done", [f"{other}.done" for other in others])
        count = len(sandbox.read("ran").split())
        note(directory, name, instance=sandbox.instance.id, count=count)
        if die and first:
            os.kill(os.getpid(), signal.SIGKILL)


measured = task(measure, name="measured")


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def pooled(directory: str, names: list[str]) -> None:
    """Measure in a process pool."""
    measured.map(directory=directory, name=names, others=[names] * len(names)).result()


@flow
def dasked(directory: str, names: list[str]) -> None:
    """Measure in the processes of a Dask cluster; made by `on_dask`."""
    measured.map(directory=directory, name=names, others=[names] * len(names)).result()


def on_dask():
    """Return the flow that measures in Dask's processes."""
    from prefect_dask import DaskTaskRunner

    runner = DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None})
    return dasked.with_options(task_runner=runner)


@task
def in_the_sandbox_of_its_parent(instance, name: str) -> None:
    """Run a command in a sandbox that an enclosing flow has started."""
    exec_command(instance, f"echo {name} >> ran", check=True)


@task
def handing_on(instance, names: list[str]) -> None:
    """Hand the sandbox on to tasks in the process pool."""
    in_the_sandbox_of_its_parent.map(unmapped(instance), names).result()


@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def nested(instance, names: list[str]) -> None:
    """Work in the sandbox of the parent, from a process pool."""
    in_the_sandbox_of_its_parent.map(unmapped(instance), names).result()


@flow(retries=1, task_runner=ProcessPoolTaskRunner(max_workers=1))
def nesting(directory: str, names: list[str], inner: str) -> None:
    """Start a sandbox for the process pool of a subflow, or of a task; fail once behind it."""
    instance = wait_instance_running(start_instance("base"))
    {"subflow": nested, "task": handing_on}[inner](instance, names)
    if first_time(directory):
        raise RuntimeError("again")
    note(directory, "nesting", ran=read_file(instance, "ran").decode().split())
    stop_instance(instance)


@flow
def forking(directory: str, names: list[str]) -> None:
    """Measure in processes of `multiprocessing` that inherit the context of the run."""
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=measure, args=(directory, name, names)) for name in names]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0


def batch(directory: str, items: list[str]) -> None:
    """Do items in one sandbox, in an attempt of a run that Prefect does not know."""
    number = 1 if first_time(directory) else 2
    with acting_as(Execution(frames=(Frame("flow", "b" * 32, number),), owner=Owner("run-1"))):
        command = 'echo "$ITEM" >> ran; touch begun; until [ -e go ]; do sleep 0.05; done; cat ran'
        run_items(items, command=command, tool="base", sandboxes=1, results=directory)


@flow
def child(directory: str, name: str, names: list[str], die: bool) -> None:
    """Measure in a run that another run has started."""
    measure(directory, name, names, die)


@flow
def parent(directory: str, names: list[str], die: str) -> None:
    """Start two runs of one deployment, and end without waiting for them."""
    for name in names:
        parameters = {"directory": directory, "name": name, "names": names, "die": name == die}
        started = run_deployment("child/composed", parameters=parameters, timeout=0)
        note(directory, f"{name}.run", id=str(started.id), parent=flow_run.id)


@task(retries=1, retry_delay_seconds=0)
def in_background(directory: str, name: str, others: list[str]) -> None:
    """Start a sandbox and run two identical commands; fail the first time and be retried."""
    instance = wait_instance_running(start_instance("base"))
    meet(directory, name, others)
    for _ in range(2):
        exec_command(instance, "echo x >> ran", check=True)
    holder = str(identify("look", {}).holder)
    tries = Path(directory, f"{name}.tries")
    if not tries.exists():
        tries.write_text(instance.id)
        raise RuntimeError("again")
    count = len(read_file(instance, "ran").split())
    note(directory, name, instance=instance.id, first=tries.read_text(), count=count, holder=holder)
    stop_instance(instance)


@flow
def delaying(directory: str, names: list[str]) -> str:
    """Start background tasks inside of a flow."""
    for name in names:
        in_background.delay(directory, name, names)
    return flow_run.id


@task
def sleeping(directory: str, name: str) -> None:
    """Work for longer than the flow may that starts it."""
    with sandbox_session("base") as sandbox:
        slept = sandbox.run("sleep 15; echo slept").stdout
    note(directory, name, instance=sandbox.instance.id, slept=slept)


@flow(timeout_seconds=10)
def limited(directory: str, name: str) -> None:
    """Start a background task, and end within the time limit."""
    sleeping.delay(directory, name)


if __name__ == "__main__":
    # A test that waits longer shows where this process stands.
    faulthandler.dump_traceback_later(80)
    if sys.argv[1] == "flows":
        serve(child.to_deployment("composed"), parent.to_deployment("composed"), limit=4)
    else:
        serve_tasks(in_background, sleeping)
