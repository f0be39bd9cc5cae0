"""Failures of the sandbox, the machine or the evaluating process are not verdicts on a patch."""

import functools
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ags_flows.batch.storage import storage_at
from ags_flows.errors import ServiceError
from ags_flows.ownership import LIVE
from ags_flows.session import sandbox_session
from ags_flows.swebench.evaluation import Evaluation, evaluate
from ags_flows.swebench.predictions import Prediction

RUN = "python3 -m unittest -v test_calc"
KILLS_ITS_SUPERVISOR = "kill -9 $(cut -d ' ' -f 4 /proc/$PPID/stat); sleep 60"


@pytest.fixture
def variants(projects, changed):
    """Create instances like that of `calc`, each with a separate image and evaluation script."""
    images, instances, places = projects
    calc = instances["demo__calc-1"]

    def variants(names):
        made = []
        for name, script in names.items():
            image = f"swebench/{name}:1"
            folder = images / image.replace("/", "_").replace(":", "_") / "testbed"
            shutil.copytree(places["demo__calc-1"], folder, dirs_exist_ok=True)
            script = changed(calc["eval_script"], RUN, script)
            made.append({**calc, "instance_id": f"demo__calc-{name}", "image": image, "eval_script": script})
        return made

    return variants


def sandboxes_of(config, image):
    """Return the states of all sandboxes that were started from an image."""
    everything = config.control_plane().call("DescribeSandboxInstanceList", {"Limit": 100})["InstanceSet"]
    return [one["Status"] for one in everything if (one.get("CustomConfiguration") or {}).get("Image") == image]


@pytest.fixture
def pictures(tmp_path):
    """Serve a folder over HTTP; yield the folder and its URL."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.long
@pytest.mark.usefixtures("prefect_server")
def test_failures_of_the_sandbox_are_retried_and_never_become_a_verdict(
    evaluate_all, write, predicted, variants, account, projects, pictures, monkeypatch
):
    monkeypatch.setattr("ags_flows.durable.command.LOOK_AFTER", 0.5)
    monkeypatch.setattr("ags_flows.batch.runner.FIRST_PAUSE", 0.1)
    images, _, _ = projects
    folder, url = pictures
    (folder / "expected.png").write_bytes(b"\x89PNG\xff")
    needs = f"test $(stat -c %s shots/expected.png) = 5 && {RUN}"
    scripts = {
        "empty-image": RUN,
        "no-network": "echo 'Could not resolve host: pypi.org'",
        "vanished": KILLS_ITS_SUPERVISOR,
        "slow": f"sleep 3; {RUN}",
        "picture": needs,
        "no-picture": needs,
    }
    dataset = variants(scripts)
    missing = images / "swebench_empty-image_1" / "testbed"
    missing.rename(missing.parent / "elsewhere")
    for instance, name in ((dataset[-2], "expected.png"), (dataset[-1], "lost.png")):
        asset = {"path": "shots/expected.png", "url": f"{url}/{name}"}
        instance["image_assets"] = json.dumps({"problem_statement": ["https://x.invalid"], "test_patch": [asset]})
    predictions = write("p.jsonl", [predicted(one["instance_id"], one["patch"]) for one in dataset])
    first = evaluate_all(predictions, write("d.jsonl", dataset), timeout=2, retries=1, sandboxes=6)
    verdicts = {verdict.instance_id.removeprefix("demo__calc-"): verdict for verdict in first.verdicts}
    assert {name: one.outcome for name, one in verdicts.items()} == {
        **dict.fromkeys(("empty-image", "no-network", "vanished", "no-picture"), "error"),
        "slow": "timeout",
        "picture": "resolved",
    }
    for name, reason in {
        "empty-image": "/testbed: No such file",
        "no-network": "network_unreachable",
        "vanished": "its journal vanished",
        "no-picture": "shots/expected.png cannot be downloaded",
    }.items():
        assert reason in verdicts[name].reason
        # The first attempt and one retry.
        assert len(sandboxes_of(account, f"swebench/{name}:1")) == 2
    # The next run evaluates instances without a verdict, and timeouts if it has a longer limit.
    (missing.parent / "elsewhere").rename(missing)
    (folder / "lost.png").write_bytes(b"\x89PNG\xff")
    again = evaluate_all(predictions, write("d.jsonl", dataset), timeout=60, retries=0, sandboxes=6)
    assert again.resumed == 1
    assert again.ids("resolved") == [f"demo__calc-{name}" for name in ("empty-image", "no-picture", "picture", "slow")]
    assert again.ids("error") == ["demo__calc-no-network", "demo__calc-vanished"]


def test_a_full_disk_is_an_error_and_not_a_verdict(machines, account, tool, projects, tmp_path):
    _, instances, _ = projects
    calc = instances["demo__calc-1"]
    storage = storage_at(str(tmp_path))
    evaluation = Evaluation(Prediction(calc["instance_id"], calc["patch"], "model", "line 1"), calc)
    with sandbox_session(tool.model_copy(update={"name": "full"}), config=account) as sandbox:
        machines.fill_disk(sandbox.instance.id)
        with pytest.raises(ServiceError, match="not enough disk space"):
            evaluate(sandbox, evaluation, storage, 60)
    assert not (tmp_path / "verdicts").exists()


@pytest.mark.long
def test_a_killed_evaluation_continues_with_the_instances_that_are_not_graded(
    evaluate_all, write, predicted, variants, machines, account, tool, tmp_path
):
    dataset = variants({"first": RUN, "second": f"sleep 2; {RUN}", "third": RUN})
    predictions = write("p.jsonl", [predicted(one["instance_id"], one["patch"]) for one in dataset])
    data = write("d.jsonl", dataset)
    account.control_plane().create_tool(tool.model_copy(update={"name": "killed"}), client_token="killed")
    command = [sys.executable, "-m", "ags_flows.cli", "swebench", "--predictions", predictions, "--dataset", data]
    place = tmp_path / "results"
    evaluating = subprocess.Popen(
        [*command, "--tool", "killed", "--sandboxes", "1", "--results", str(place)],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **machines.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(Path(place, "verdicts").glob("demo__calc-first-*.json")):
            assert evaluating.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        evaluating.send_signal(signal.SIGKILL)
    finally:
        evaluating.kill()
        evaluating.wait(30)
    report = evaluate_all.fn(predictions, data, tool="killed")
    assert report.resumed == 1 and len(report.ids("resolved")) == 3
    assert len(sandboxes_of(account, "swebench/first:1")) == 1
    # The sandboxes of the killed process end when their leases expire.
    machines.advance(901)
    deadline = time.monotonic() + 30
    while [status for one in dataset for status in sandboxes_of(account, one["image"]) if status in LIVE]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
