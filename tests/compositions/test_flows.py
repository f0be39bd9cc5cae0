"""Compositions of flows, tasks, threads and retries, with a Prefect server: what each call does, and how often."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from prefect import flow, task
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.states import Suspended

from ags_flows import sandbox_session, tasks
from ags_flows.cloud.data_planes import open_plane
from ags_flows.durable.claims import claim_instance
from ags_flows.durable.command import DurableCommand
from ags_flows.errors import UnreachableError
from ags_flows.flows import run_items
from ags_flows.ownership import Frame, Holder, holder_of
from ags_flows.runtime import AGSRuntime

pytestmark = pytest.mark.usefixtures("prefect_server")

NO_LOG = pytest.mark.filterwarnings("ignore:Logger 'prefect.task_runs' attempted to send logs:UserWarning")


def ran(sandbox):
    return sandbox.read("ran").decode().split()


def test_batches_of_one_run_in_a_row_do_their_own_work(ags_config):
    @flow
    def pipeline():
        options = {"tool": "base", "sandboxes": 1, "config": ags_config}
        commands = ["echo one of $ITEM", "echo two of $ITEM", "echo two of $ITEM"]
        return [run_items(["n1", "n2"], command=command, **options) for command in commands]

    reports = pipeline()
    assert [report.resumed for report in reports] == [0, 0, 0]
    assert [report.started for report in reports] == [1, 1, 1]
    assert len({report.results for report in reports}) == 3


def test_a_retry_of_the_run_finds_each_of_its_batches(ags_config):
    attempts = []

    @flow(retries=1)
    def pipeline():
        options = {"tool": "base", "sandboxes": 1, "config": ags_config}
        reports = [run_items(["n1"], command="echo one", **options) for _ in range(2)]
        attempts.append([report.resumed for report in reports])
        if len(attempts) == 1:
            raise RuntimeError("again")

    pipeline()
    assert attempts == [[0, 0], [1, 1]]


@NO_LOG
def test_identical_commands_of_a_task_without_a_flow_each_run(ags_config):
    @task
    def background():
        with sandbox_session("base", config=ags_config) as sandbox, sandbox_session("base", config=ags_config) as other:
            found = [sandbox.run("echo x >> ran; wc -l < ran").stdout.strip() for _ in range(3)]
            return found, sandbox.instance.id != other.instance.id

    assert background() == (["1", "2", "3"], True)


@pytest.mark.parametrize("how", ["runtime", "function"])
def test_two_starts_in_one_task_give_two_sandboxes(ags_config, live, how):
    @task
    def two():
        if how == "runtime":
            runtime = AGSRuntime(config=ags_config)
            return [runtime.start_instance(tool_name="base") for _ in range(2)]
        return [tasks.start_instance.fn("base", config=ags_config).id for _ in range(2)]

    @flow
    def once():
        return two()

    first, second = once()
    assert first != second
    assert len(live()) == 2


def test_a_retry_of_an_items_command_attaches_to_it(ags_config, tmp_path, monkeypatch):
    waits, wait = [], DurableCommand.wait

    def lost_once(self):
        waits.append(self.journal)
        if len(waits) == 1:
            raise UnreachableError("The sandbox could not be reached for two minutes.")
        return wait(self)

    monkeypatch.setattr(DurableCommand, "wait", lost_once)

    @flow
    def batch():
        command = "echo x >> ran; sleep 1; cat ran"
        return run_items(["a"], command=command, tool="base", task_runs="items", results=tmp_path, config=ags_config)

    report = batch()
    assert report.succeeded == 1
    assert len(waits) == 2 and len(set(waits)) == 1
    assert '"stdout": "x\\n"' in (tmp_path / "results.jsonl").read_text().replace('":"', '": "')


def test_commands_in_plain_threads_are_found_by_a_retry(ags_config, killed_session):
    used = []

    @flow(retries=1)
    def nightly():
        sandbox = killed_session()
        used.append(sandbox.instance.id)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: sandbox.run("echo x >> ran"), range(2)))
        if len(used) == 1:
            raise RuntimeError("killed")
        return ran(sandbox)

    assert nightly() == ["x", "x"]
    assert len(set(used)) == 1


def test_a_retry_of_the_users_task_finds_its_commands(ags_config):
    tries = []

    @task(retries=2, retry_delay_seconds=0)
    def step(sandbox):
        for _ in range(2):
            sandbox.run("echo x >> ran")
        tries.append(1)
        if len(tries) < 3:
            raise RuntimeError("again")

    @flow
    def nightly():
        with sandbox_session("base", config=ags_config) as sandbox:
            step(sandbox)
            sandbox.run("echo x >> ran")
            return ran(sandbox)

    assert nightly() == ["x", "x", "x"]


@pytest.mark.parametrize("kind", ["task", "subflow"])
def test_the_sandbox_of_a_second_try_that_was_killed_is_found(ags_config, killed_session, live, kind):
    used = []

    def body():
        if not used:
            with sandbox_session("base", config=ags_config) as sandbox:
                used.append(sandbox.instance.id)
                raise RuntimeError("failed")
        sandbox = killed_session(work=lambda sandbox: sandbox.run("echo x >> ran"))
        used.append(sandbox.instance.id)
        return sandbox

    inner = task(retries=1, retry_delay_seconds=0)(body) if kind == "task" else flow(retries=1)(body)

    @flow(retries=1)
    def nightly():
        sandbox = inner()
        if len(used) == 2:
            raise RuntimeError("killed")
        return ran(sandbox)

    assert nightly() == ["x"]
    assert used[0] != used[1] == used[2]
    assert live() == [used[1]]


@pytest.mark.parametrize("fails", [False, True])
def test_a_suspension_that_is_requested_at_the_end_of_the_block(ags_config, status_of, fails):
    used = []

    @flow
    def nightly():
        with sandbox_session("base", config=ags_config) as sandbox:
            used.append(sandbox.instance.id)
            sandbox.run("true")
            FlowRunContext.get().flow_run_suspension_request.mark_requested(Suspended())
            if fails:
                raise ValueError("on purpose")

    # Prefect itself suspends the run in both cases, and starts it again when it is resumed.
    with pytest.raises(Pause):
        nightly()
    if fails:
        assert status_of(used[0]) in ("STOPPING", "STOPPED")
        return
    assert status_of(used[0]) == "PAUSED"
    # The run that is resumed goes on in it.
    instance = tasks.resume_instance.fn(used[0], config=ags_config)
    mine = holder_of(instance.metadata)
    resumed = Holder((*(replace(frame, attempt=frame.attempt + 1) for frame in mine.enclosing), Frame("call", "c")))
    assert claim_instance(open_plane(ags_config.connection(), instance.id).plane, resumed, mine) == "owned"


def test_parallel_sessions_in_threads_tasks_and_subflows_never_share(ags_config, live):
    together = threading.Barrier(4, timeout=60)

    def work():
        with sandbox_session("base", config=ags_config) as sandbox:
            together.wait()
            sandbox.run("echo x >> ran")
            return sandbox.instance.id, ran(sandbox)

    mapped = task(lambda number: work(), name="mapped")
    nested = task(lambda: flow(work, name="inner")(), name="around")

    @flow
    def crossed():
        with ThreadPoolExecutor(1) as pool:
            plain = pool.submit(work)
            futures = [*mapped.map([1, 1]), nested.submit()]
            return [plain.result(), *[future.result() for future in futures]]

    found = crossed()
    assert len({instance for instance, _ in found}) == 4
    assert [lines for _, lines in found] == [["x"]] * 4
    assert live() == []


@pytest.mark.parametrize("operation", ["UpdateSandboxInstance", "AcquireSandboxInstanceToken"])
def test_a_lost_response_during_a_take_over_keeps_the_sandbox(
    ags_emulator, ags_config, killed_session, live, operation
):
    used = []

    @flow(retries=1)
    def nightly():
        if used:
            ags_emulator.fault("lost", operation)
        sandbox = killed_session(work=lambda sandbox: sandbox.run("echo x >> ran"))
        used.append(sandbox.instance.id)
        if len(used) == 1:
            raise RuntimeError("killed")
        return ran(sandbox)

    assert nightly() == ["x"]
    assert live() == used[:1] == used[1:]


def test_a_retry_after_a_time_limit_of_prefect_runs_the_killed_command_again(ags_config, monkeypatch):
    """The limit is raised in the wait, as Prefect raises it, and at an instant that the test chooses."""
    command = "echo x >> tries; if [ $(wc -l < tries) = 1 ]; then echo begun; sleep 60; fi; echo done"
    follow, limits = DurableCommand._follow, [TimeoutError("the time limit of the task")]

    def limited_follow(self):
        if self._command.text == command and limits:
            while not self._output.has_begun:
                self._poll()
            raise limits.pop()
        follow(self)

    monkeypatch.setattr(DurableCommand, "_follow", limited_follow)

    @task(retries=1)
    def limited(sandbox):
        return sandbox.run(command)

    @flow
    def pipeline():
        with sandbox_session("base", config=ags_config) as sandbox:
            return limited(sandbox), sandbox.read("tries")

    result, tries = pipeline()
    assert (result.exit_code, result.stdout, tries) == (0, "done\n", b"x\nx\n")
