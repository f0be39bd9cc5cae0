import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ags_flows.batch.pool import Order
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.errors import BatchFailedError, ConfigurationError, ToolFailedError, UnreachableError
from ags_flows.flows import run_items
from ags_flows.lifecycle.waiting import wait_tool_active
from ags_flows.models import CustomConfiguration, ToolSpec
from ags_flows.ownership import Frame, Owner
from ags_flows.run.holder import Execution, acting_as
from ags_flows.testing import config_for


def lines(report):
    return [json.loads(line) for line in Path(report.results).read_text().splitlines()]


def live(config):
    control = config.control_plane()
    return [one for one in control.list_instances() if one.status in ("STARTING", "RUNNING", "PAUSED")]


def test_a_command_runs_for_each_item_and_its_results_stand_in_order(ags_config, tmp_path):
    items = [{"id": f"n{number}", "number": number} for number in range(12)]
    report = run_items(
        items,
        command='echo "$ITEM_KEY is $ITEM_NUMBER"; echo "$ITEM" >&2; test "$ITEM_NUMBER" != 7',
        tool="base",
        sandboxes=3,
        results=tmp_path,
        config=ags_config,
    )
    assert (report.items, report.succeeded, report.failed, report.sandboxes, report.started) == (12, 11, 1, 3, 3)
    assert [line["stdout"] for line in lines(report)] == [f"n{number} is {number}\n" for number in range(12)]
    assert json.loads(lines(report)[3]["stderr"]) == items[3]
    assert [(one.key, one.exit_code, one.error_class) for one in report.failures] == [("n7", 1, "ExitCode")]
    assert not live(ags_config)


def test_a_function_gets_a_sandbox_and_the_item(ags_config, tmp_path):
    def work(sandbox, item):
        if item == 3:
            raise ValueError("three is not for me")
        sandbox.write("in.txt", str(item))
        sandbox.run("echo $(( $(cat in.txt) * 2 )) > out.txt", check=True)
        return {"double": int(sandbox.read("out.txt"))}

    report = run_items(
        list(range(6)), work, tool="base", sandboxes=2, fail_above=0.5, results=tmp_path, config=ags_config
    )
    assert [line["value"] for line in lines(report)] == [{"double": 2 * n} if n != 3 else None for n in range(6)]
    assert report.failures[0].error == "three is not for me"
    assert report.failures[0].error_class == "ValueError"


def test_what_a_function_does_wrong_fails_its_item_alone(ags_config, tmp_path):
    def work(sandbox, item):
        if item == "exit":
            sys.exit("enough")
        return {"half": "\ud800"} if item == "half" else {}

    report = run_items(["exit", "half", "good"], work, tool="base", fail_above=0.9, results=tmp_path, config=ags_config)
    assert [(one.key, one.error_class) for one in report.failures] == [
        ("exit", "SystemExit"),
        ("half", "UnicodeEncodeError"),
    ]
    assert report.succeeded == 1


def test_files_and_long_items_lie_in_the_sandbox(ags_config, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.bin").write_bytes(bytes(range(256)))
    report = run_items(
        tmp_path / "in",
        command='wc -c < "$ITEM_FILE"; echo "$ITEM"',
        tool="base",
        results=tmp_path / "out",
        config=ags_config,
    )
    assert lines(report)[0]["stdout"] == "256\na.bin\n"
    long = {"id": "long", "text": "x" * 40_000}
    report = run_items(
        [long], command='cat "$ITEM_FILE" | wc -c', tool="base", results=tmp_path / "long", config=ags_config
    )
    assert int(lines(report)[0]["stdout"]) == len(json.dumps(long))


def test_sandboxes_are_reused_or_fresh_as_asked_and_fit_what_an_item_needs(ags_config, tmp_path):
    used = "echo x >> used; wc -l < used"
    many = run_items(list("abcd"), command=used, tool="base", sandboxes=1, results=tmp_path / "1", config=ags_config)
    assert sorted(int(line["stdout"]) for line in lines(many)) == [1, 2, 3, 4]
    fresh = run_items(
        list("abcd"),
        command=used,
        tool="base",
        sandboxes=2,
        items_per_sandbox=1,
        results=tmp_path / "2",
        config=ags_config,
    )
    assert [int(line["stdout"]) for line in lines(fresh)] == [1, 1, 1, 1]
    assert fresh.started == 4
    tool = ags_config.control_plane().create_tool(ToolSpec(name="mine", image="python:3.11"))
    wait_tool_active(ags_config.control_plane(), tool, timeout=30)

    def order(item):
        return Order(tool, CustomConfiguration(env={"NAME": item}))

    own = run_items(
        ["x", "y"], command="echo $NAME", order=order, sandboxes=1, results=tmp_path / "3", config=ags_config
    )
    assert [line["stdout"] for line in lines(own)] == ["x\n", "y\n"]
    assert own.started == 2


def test_a_sandbox_that_dies_costs_its_item_another_attempt(ags_emulator, ags_config, tmp_path):
    died = threading.Event()

    def work(sandbox, item):
        if item == "b" and not died.is_set():
            died.set()
            ags_config.control_plane().stop_instance(sandbox.instance.id)
        return sandbox.run("echo fine").stdout

    report = run_items(list("abc"), work, tool="base", sandboxes=1, results=tmp_path, config=ags_config)
    assert (report.succeeded, report.started) == (3, 2)
    assert [line["attempts"] for line in lines(report)] == [1, 2, 1]


def test_more_failures_than_allowed_end_the_batch_early_and_a_retry_does_the_rest(ags_config, tmp_path):
    items = [str(number) for number in range(20)]
    options = {"command": 'exit "$CODE"', "tool": "base", "results": tmp_path, "config": ags_config}
    with pytest.raises(BatchFailedError, match="3 of 20 items failed") as caught:
        run_items(items, sandboxes=1, options={"env": {"CODE": "4"}}, **options)
    assert caught.value.report.failed == 3
    assert "exit code 4" in str(caught.value)
    report = run_items(items, sandboxes=2, options={"env": {"CODE": "0"}}, **options)
    assert (report.succeeded, report.failed, report.resumed) == (20, 0, 0)
    again = run_items(items, options={"env": {"CODE": "0"}}, **options)
    assert (again.succeeded, again.resumed, again.started) == (20, 20, 0)
    with pytest.raises(ConfigurationError, match="There: command exit .* Here: command false"):
        run_items(items, **{**options, "command": "false"})


SCRIPT = """
import sys
from ags_flows import AGSConfig
from ags_flows.flows import run_items
from ags_flows.ownership import Frame, Owner
from ags_flows.run.holder import Execution, acting_as

with acting_as(Execution((Frame("flow", "run-1"),), owner=Owner("run-1"))):
    run_items(list("abcdef"), command=sys.argv[2], tool="base", sandboxes=2, results=sys.argv[1])
"""


def test_a_killed_batch_goes_on_in_its_sandboxes_and_does_nothing_twice(ags_emulator, ags_config, tmp_path):
    command = 'echo "$ITEM" >> ran; sleep 1.5; cat ran'
    killed = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path), command], env={**os.environ, **ags_emulator.environment}
    )
    ledger = tmp_path / "ledger-00000.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not ledger.exists() or ledger.read_text().count("begun") < 4):
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(live(ags_config)) == 2
    with acting_as(Execution((Frame("flow", "run-1", 2),), owner=Owner("run-1"))):
        report = run_items(
            list("abcdef"), command=command, tool="base", sandboxes=2, results=tmp_path, config=ags_config
        )
    assert report.succeeded == 6 and report.resumed == 2
    assert report.started == 0
    # Each sandbox wrote down what ran in it: together, each item once.
    last = {}
    for line in lines(report):
        if len(line["stdout"]) > len(last.get(line["instance_id"], "")):
            last[line["instance_id"]] = line["stdout"]
    assert sorted("".join(last.values()).split()) == list("abcdef")
    assert not live(ags_config)


def test_the_quota_is_never_exceeded_also_by_two_concurrent_batches(ags_emulator, ags_config, tmp_path):
    ags_emulator.limits(quotas=True, instances=3)
    most = []
    reports = []

    def batch(name):
        reports.append(
            run_items(list("abcdefgh"), command="sleep 0.3", tool="base", results=tmp_path / name, config=ags_config)
        )

    threads = [threading.Thread(target=batch, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most.append(len(live(ags_config)))
        time.sleep(0.05)
    assert [report.succeeded for report in reports] == [8, 8]
    assert max(most) <= 3


def test_a_quota_of_zero_is_reported_before_anything_is_started(ags_emulator, ags_config, tmp_path):
    ags_emulator.limits(quotas=True, instances=0)
    with pytest.raises(ConfigurationError, match="quota of instances is 0"):
        run_items(["a"], command="true", tool="base", results=tmp_path, config=ags_config)
    assert not list(tmp_path.iterdir())


def test_ags_that_does_not_respond_is_reported_and_nothing_is_half_done(ags_emulator, tmp_path):
    config = config_for(ags_emulator, http_endpoint="http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match="127.0.0.1:9"):
        run_items(["a"], command="true", tool="base", results=tmp_path, config=config)
    assert not (tmp_path / "ledger-00000.jsonl").read_text()


@pytest.mark.parametrize("sandboxes", [1, None])
def test_a_quota_that_is_not_known_does_not_end_a_batch(ags_emulator, ags_config, tmp_path, monkeypatch, sandboxes):
    asked = []

    def quotas(self):
        asked.append(self)
        raise UnreachableError("cut")

    monkeypatch.setattr(ControlPlane, "quotas", quotas)
    options = {"tool": "base", "sandboxes": sandboxes, "results": tmp_path, "config": ags_config}
    assert run_items(["a"], command="true", **options).succeeded == 1
    # It is not asked where the caller has decided.
    assert bool(asked) == (sandboxes is None)


def test_options_of_the_command_have_their_place(ags_config, tmp_path):
    with pytest.raises(ConfigurationError, match=r"takes cwd, env in options=\{...\}"):
        run_items(["a"], command="true", tool="base", env={"A": "b"}, cwd="/", results=tmp_path, config=ags_config)


def test_as_many_may_fail_as_the_part_is_in_decimal(ags_config, tmp_path):
    items = [{"id": str(number), "code": int(number < 29)} for number in range(100)]
    options = {"results": tmp_path, "config": ags_config, "options": {"durable": False}, "sandboxes": 4}
    report = run_items(items, command='exit "$ITEM_CODE"', tool="base", fail_above=0.29, **options)
    assert report.failed == 29


def test_a_tool_of_a_spec_is_made_and_deleted(ags_config, tmp_path):
    spec = ToolSpec(name="batch", image="python:3.11")
    report = run_items(["a", "b"], command="python3 -V", tool=spec, results=tmp_path, config=ags_config)
    assert report.succeeded == 2
    assert "batch" not in [tool.name for tool in ags_config.control_plane().list_tools()]


def test_settings_that_make_no_sense_are_refused(ags_config, tmp_path):
    options = {"tool": "base", "results": tmp_path, "config": ags_config}
    for wrong in (
        {"command": None},
        {"command": " "},
        {"command": "true", "function": print},
        {"command": "true", "sandboxes": 0},
        {"command": "true", "fail_above": 2},
        {"command": "true", "retries": -1},
        {"command": "true", "tool": None},
        {"command": "true", "options": {"timeout": -1}},
        {"command": "true", "sandbox": 3},
    ):
        with pytest.raises(ConfigurationError):
            run_items(["a"], **{**options, **wrong})
    assert not live(ags_config)


def test_an_item_without_a_sandbox_fails_alone(ags_config, tmp_path):
    def order(item):
        if item == "b":
            raise ToolFailedError("There is no image for it.")
        return Order("base")

    options = {"order": order, "sandboxes": 1, "fail_above": 0.5, "results": tmp_path, "config": ags_config}
    report = run_items(list("abc"), command="true", **options)
    assert [(one.key, one.error_class) for one in report.failures] == [("b", "ToolFailedError")]
    assert (report.succeeded, report.started) == (2, 1)
