"""What a later attempt finds of an earlier one, by what a step does: each attempt is simulated, without a server."""

import contextlib
import json
import signal
import sys
import threading
from pathlib import Path

import pytest
from prefect.exceptions import Pause, TerminationSignal

from ags_flows import sandbox_session, tasks
from ags_flows.batch.storage import DirectoryStorage
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.data_planes import open_plane
from ags_flows.cloud.retry import Backoff
from ags_flows.errors import AGSFlowsError, InstanceGoneError, SupersededError, UnreachableError
from ags_flows.flows import run_items
from ags_flows.lifecycle.open_sandbox import release
from ags_flows.models import ToolSpec
from ags_flows.ownership import KEPT
from ags_flows.session import Opening

SPEC = ToolSpec(name="etl", image="python:3.11")


def ran(sandbox):
    return sandbox.read("ran").decode().split()


def test_two_batches_side_by_side_never_share_a_sandbox(ags_config, attempt, tmp_path):
    used, both = {}, threading.Barrier(2, timeout=60)

    def work(sandbox, item):
        used.setdefault(threading.current_thread().name.split("-")[0] + item, set()).add(sandbox.instance.id)
        both.wait()
        return sandbox.run("true").exit_code

    def batch(name):
        with attempt(1):
            report = run_items([name], work, tool="base", sandboxes=1, results=tmp_path / name, config=ags_config)
        assert report.succeeded == 1

    threads = [threading.Thread(target=batch, args=(name,)) for name in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set.union(*used.values())) == 2


def test_stdin_is_a_part_of_what_a_command_does(ags_config, attempt, killed_session):
    def upper(text):
        return lambda sandbox: results.append(sandbox.run("tr a-z A-Z", stdin=text).stdout)

    results = []
    with attempt(1):
        first = killed_session(work=upper("first"))
    with attempt(2):
        second = killed_session(work=upper("second"))
    with attempt(3):
        killed_session(work=upper("first"))
    assert results == ["FIRST", "SECOND", "FIRST"]
    assert first.instance.id == second.instance.id


def test_a_secret_that_was_rotated_between_attempts_leaves_the_command_the_same(
    ags_config, attempt, killed_session, monkeypatch
):
    values = iter(["hunter-1", "hunter-2"])
    monkeypatch.setattr("ags_flows.run.secrets.load_secrets", lambda names: {"T": next(values)} if names else {})
    with attempt(1):
        killed_session(work=lambda sandbox: sandbox.run("echo x >> ran", secrets={"T": "token"}))
    with attempt(2):
        sandbox = killed_session(work=lambda sandbox: sandbox.run("echo x >> ran", secrets={"T": "token"}))
        assert ran(sandbox) == ["x"]


def test_a_cell_in_a_separate_context_is_not_executed_again(ags_config, attempt, killed_session):
    def cell(sandbox):
        context = tasks.create_code_context.fn(sandbox.instance, config=ags_config)
        code = "open('ran', 'a').write('x'); 6 * 7"
        results.append(sandbox.run_code(code, context=context, artifacts=False).text)

    results = []
    with attempt(1):
        killed_session("code-interpreter-v1", cell)
    with attempt(2):
        sandbox = killed_session("code-interpreter-v1", cell)
        assert ran(sandbox) == ["x"]
    assert results == ["42", "42"]


def test_a_sandbox_that_is_taken_over_is_renewed_immediately(ags_emulator, attempt, killed_session, status_of):
    with attempt(1):
        first = killed_session(lease=600)
    ags_emulator.advance(540)
    with attempt(2):
        second = killed_session(lease=600)
    assert second.instance.id == first.instance.id
    ags_emulator.advance(540)
    assert status_of(first.instance.id) == "RUNNING"


@pytest.mark.parametrize(("how", "status"), [("keep", "RUNNING"), ("pause", "PAUSED")])
def test_a_retry_after_a_kept_or_paused_failure_starts_in_a_new_sandbox(ags_config, attempt, status_of, how, status):
    used = []
    for number in (1, 2, 3):
        with attempt(number), contextlib.suppress(AGSFlowsError):
            with sandbox_session("base", on_failure=how, config=ags_config) as sandbox:
                used.append(sandbox.instance.id)
                sandbox.run("echo x >> ran; exit $(( 7 - $(wc -l < ran) ))", check=True)
    assert len(set(used)) == 3
    assert [status_of(one) for one in used] == [status] * 3


def test_a_failed_attempt_that_could_not_be_stopped_is_not_taken_over(
    ags_emulator, ags_config, attempt, monkeypatch, live
):
    quickly = Backoff(attempts=2, first_pause=0.01)
    monkeypatch.setattr(sys.modules["ags_flows.tasks.cleanup"], "BACKOFF", quickly)
    used = []
    ags_emulator.fault("error", "StopSandboxInstance", times=None, code="InternalError", message="no")
    for number in (1, 2):
        with attempt(number), contextlib.suppress(ValueError):
            with sandbox_session("base", config=ags_config) as sandbox:
                used.append(sandbox.instance)
                raise ValueError("on purpose")
    assert used[0].id != used[1].id
    known = ags_config.control_plane().get_instance(used[0].id)
    assert KEPT not in known.metadata
    ags_emulator.clear_faults()
    with attempt(3), sandbox_session("base", config=ags_config) as sandbox:
        assert live() == [sandbox.instance.id]


def test_a_sandbox_that_its_attempt_had_finished_with_is_stopped_by_the_retry(
    ags_config, attempt, killed_session, live
):
    with attempt(1):
        left = killed_session("base")
        assert release(ags_config.control_plane(), ags_config.connection(), left.instance)
    with attempt(2), sandbox_session("base", config=ags_config) as sandbox:
        assert live() == [sandbox.instance.id] != [left.instance.id]


@pytest.mark.parametrize("error", [None, ValueError("on purpose")], ids=["success", "failure"])
def test_a_signal_during_the_end_of_a_session_does_not_keep_it_from_its_end(ags_config, monkeypatch, error, live):
    stop, signals = ControlPlane.stop_instance, [signal.SIGINT]

    def interrupted(*arguments):
        if signals:
            signal.raise_signal(signals.pop())
        return stop(*arguments)

    monkeypatch.setattr(ControlPlane, "stop_instance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        with sandbox_session(SPEC, config=ags_config):
            if error:
                raise error
    assert live() == [] == ags_config.control_plane().list_tools(name="etl")


def test_no_run_meets_the_tool_that_a_crashed_run_left(ags_config, attempt, killed_session):
    with attempt(1):
        killed_session(SPEC, delete_tool=True)
    with sandbox_session(SPEC, config=ags_config) as sandbox:
        assert sandbox.run("echo fine").stdout == "fine\n"


def test_a_retry_waits_until_its_own_tool_is_deleted(ags_emulator, ags_config, attempt):
    ags_emulator.transition("tool.delete", "seconds", 1.5)
    for number in (1, 2):
        with attempt(number):
            with contextlib.suppress(ValueError), sandbox_session(SPEC, config=ags_config) as sandbox:
                sandbox.run("true", check=True)
                raise ValueError("on purpose")
    assert sandbox.instance.tool_name.startswith("etl")


def test_a_tool_is_deleted_although_its_sandbox_stops_slowly(ags_emulator, ags_config, attempt):
    ags_emulator.transition("instance.stop", "seconds", 3)
    with attempt(1), sandbox_session(SPEC, config=ags_config):
        pass
    managed = [one for one in ags_config.control_plane().list_tools() if one.tags.get("managed-by")]
    assert [one.status for one in managed if one.status != "DELETING"] == []


def test_a_request_in_progress_is_repeated_with_the_same_token(ags_emulator, ags_config, attempt, live, monkeypatch):
    tokens, start = [], ControlPlane.start_instance

    def noted(self, **arguments):
        tokens.append(arguments["client_token"])
        return start(self, **arguments)

    monkeypatch.setattr(ControlPlane, "start_instance", noted)
    ags_emulator.fault("error", "StartSandboxInstance", code="FailedOperation.RequestInProgress", message="later")
    with attempt(1), sandbox_session("base", config=ags_config) as sandbox:
        assert live() == [sandbox.instance.id]
    assert len(tokens) == 2 and len(set(tokens)) == 1
    assert live() == []


@pytest.mark.parametrize("on_repeat", ["replay", "refuse"])
def test_a_snapshot_whose_response_was_lost_is_found(ags_emulator, ags_config, attempt, on_repeat):
    ags_emulator.repeat_client_tokens(on_repeat)
    control = ags_config.control_plane()
    with attempt(1), sandbox_session("base", config=ags_config) as sandbox:
        ags_emulator.fault("lost", "CreateSandboxSnapshot")
        with contextlib.suppress(UnreachableError):
            sandbox.snapshot("first")
        kept = [one.id for one in control.list_snapshots()]
        assert len(kept) == 1
        with attempt(2):
            assert sandbox.snapshot("first").id == kept[0]
    assert [one.id for one in control.list_snapshots()] == kept


def test_an_attempt_that_was_superseded_leaves_the_sandbox_to_its_successor(ags_config, attempt, status_of):
    with attempt(1):
        zombie = Opening(ags_config, [], 600, {}, False)
        old = zombie.open("base", None, None, "")
        old.run("echo x >> ran")
    with attempt(2), sandbox_session("base", config=ags_config) as successor:
        assert successor.instance.id == old.instance.id
        with attempt(1):
            with pytest.raises((SupersededError, InstanceGoneError)):
                old.run("echo late >> ran")
            zombie.close("completed", "stop")
        successor.run("echo x >> ran")
        assert ran(successor) == ["x"]
        assert status_of(old.instance.id) == "RUNNING"
    assert status_of(old.instance.id) in ("STOPPING", "STOPPED")


def test_an_attempt_whose_successor_has_ended_the_sandbox_is_superseded(ags_config, attempt):
    with attempt(1):
        with pytest.raises(SupersededError, match="A later attempt"):
            with sandbox_session("base", config=ags_config) as old:
                with attempt(2), sandbox_session("base", config=ags_config) as successor:
                    assert successor.instance.id == old.instance.id
                # It slept until now.
                old.run("echo late >> ran")


def test_the_first_look_of_a_download_is_repeated(ags_emulator, ags_config, tmp_path):
    with sandbox_session("base", config=ags_config) as sandbox:
        sandbox.write("report.csv", "1,2\n")
        ags_emulator.stream_fault("status", path="/filesystem.Filesystem/Stat", status=503)
        sandbox.download("report.csv", tmp_path / "report.csv")
    assert (tmp_path / "report.csv").read_text() == "1,2\n"


def test_a_retry_waits_until_the_sandbox_of_a_suspended_run_is_paused(ags_emulator, ags_config, attempt):
    with attempt(1):
        opening = Opening(ags_config, [], 600, {}, False)
        first = opening.open("base", None, None, "")
        ags_emulator.transition("instance.pause", "seconds", 2)
        opening._leased.lease.release()
        ags_config.control_plane().pause_instance(first.instance.id, memory=True)
    with attempt(2), sandbox_session("base", config=ags_config) as sandbox:
        assert sandbox.instance.id == first.instance.id
        assert sandbox.run("echo awake").stdout == "awake\n"


def test_a_throttled_pause_of_a_suspended_run_is_repeated(ags_emulator, ags_config, attempt, status_of):
    ags_emulator.fault("error", "PauseSandboxInstance", code="RequestLimitExceeded", message="too fast")
    with attempt(1), pytest.raises(Pause):
        with sandbox_session("base", config=ags_config) as sandbox:
            raise Pause("suspended", state=None)
    assert status_of(sandbox.instance.id) == "PAUSED"


def test_only_one_of_two_attempts_gets_the_sandbox(ags_config, attempt, killed_session):
    with attempt(1):
        left = killed_session()
    with attempt(2):
        first = killed_session()
        second = killed_session()
    assert first.instance.id == left.instance.id != second.instance.id


def test_a_sandbox_that_ended_since_it_was_listed_is_replaced(ags_config, attempt, killed_session, monkeypatch):
    with attempt(1):
        left = killed_session()
    stale = ags_config.control_plane().get_instance(left.instance.id)
    ags_config.control_plane().stop_instance(left.instance.id)
    monkeypatch.setattr("ags_flows.lifecycle.open_sandbox.left_by_earlier_attempts", lambda *arguments: [stale])
    with attempt(2), sandbox_session("base", config=ags_config) as sandbox:
        assert sandbox.instance.id != left.instance.id
        assert sandbox.run("echo new").stdout == "new\n"


def test_only_a_retry_reads_the_list_of_instances_and_only_that_of_its_tool(ags_config, attempt, monkeypatch):
    asked, listed = [], ControlPlane.list_instances

    def noted(self, **filters):
        # Without metadata it is a look at one instance.
        asked.extend([filters.get("tool")] if "metadata" in filters else [])
        return listed(self, **filters)

    monkeypatch.setattr(ControlPlane, "list_instances", noted)
    for number, expected in ((1, []), (2, ["base"])):
        with attempt(number):
            tasks.start_instance.fn("base", config=ags_config)
        assert asked == expected


@pytest.mark.parametrize("given", [True, False])
def test_the_retry_of_one_batch_leaves_the_sandboxes_of_another_batch_alone(
    ags_config, attempt, live, monkeypatch, tmp_path, given
):
    monkeypatch.setattr(
        "ags_flows.batch.place.result_storage", lambda filesystem, prefix: DirectoryStorage(tmp_path / "default")
    )
    module = sys.modules["ags_flows.flows.run_items"]
    begun, go_on = threading.Event(), threading.Event()

    def work(sandbox, item):
        if item == "long":
            sandbox.run("echo x >> ran")
            begun.set()
            sandbox.run("until [ -e go ]; do sleep 0.05; done", timeout=20)
            return len(ran(sandbox))
        return item

    def batches():
        for item in ("short", "long"):
            results = tmp_path / item if given else None
            reports.append(run_items([item], work, tool="base", sandboxes=1, results=results, config=ags_config))

    def killed(self, runner):
        while not runner.wait(0.05):
            if begun.is_set() and not go_on.is_set():
                raise TerminationSignal(signal=15)

    reports = []
    monkeypatch.setattr(module.Observer, "watch", killed)
    monkeypatch.setattr("ags_flows.run.interruption.ending_of", lambda *args, **options: "crashed")
    with attempt(1), pytest.raises(TerminationSignal):
        batches()
    [left] = live()
    go_on.set()
    open_plane(ags_config.connection(), left).plane.write("go", b"")
    with attempt(2):
        batches()
    assert [report.started for report in reports] == [1, 0, 0]
    assert json.loads(Path(reports[-1].results).read_text())["value"] == 1
    assert live() == []
