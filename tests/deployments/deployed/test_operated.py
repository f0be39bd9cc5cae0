"""Deployed from a clean clone, scheduled, paused, cancelled, retried, and looked after by automations."""

import http.server
import json
import threading
from datetime import datetime, timedelta, timezone

import pytest
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.schedules import CronSchedule

EVERY_MINUTE = CronSchedule(cron="* * * * *", timezone="Asia/Shanghai")


@pytest.fixture(params=["worker", "serve"])
def operated(request, stage):
    """The deployments on a process worker, and from serve.py."""
    stage.deploy()
    if request.param == "worker":
        with stage.worker("one"):
            yield stage
        return
    log = stage.directory / "serve.log"
    log.unlink(missing_ok=True)
    with stage.beside("serve", "python", "deployments/serve.py") as process:
        stage.wait_until(lambda: process.poll() is not None or "are being served" in log.read_text(), 60)
        assert process.poll() is None, log.read_text()[-2000:]
        yield stage


def scheduled(stage, name):
    waiting = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
    deployment = stage.deployment(name).id
    known = stage.api.read_flow_runs(flow_run_filter=waiting, limit=200)
    return [run for run in known if run.deployment_id == deployment]


def test_a_schedule_fires_is_paused_and_resumed(operated):
    stage = operated
    deployment = stage.deployment("reap/nightly-reap")
    for known in stage.api.read_deployment_schedules(deployment.id):
        stage.api.delete_deployment_schedule(deployment.id, known.id)
    before = {run.id for run in stage.runs("reap/nightly-reap")}
    (made,) = stage.api.create_deployment_schedules(deployment.id, [(EVERY_MINUTE, True)])
    run = stage.wait_until(
        lambda: next((one for one in stage.runs("reap/nightly-reap") if one.id not in before and one.start_time), None),
        120,
    )
    assert run.auto_scheduled
    stage.completed(run)
    assert "reap" in stage.artifacts(run)
    late = (run.start_time - run.expected_start_time).total_seconds()
    print(f"a scheduled run started {late:.1f} s after its time")
    stage.api.update_deployment_schedule(deployment.id, made.id, active=False)
    stage.wait_until(lambda: not scheduled(stage, "reap/nightly-reap"), 30)
    stage.api.update_deployment_schedule(deployment.id, made.id, active=True)
    again = stage.wait_until(lambda: scheduled(stage, "reap/nightly-reap"), 60)
    assert min(one.next_scheduled_start_time for one in again) > datetime.now(timezone.utc) - timedelta(seconds=5)
    stage.api.delete_deployment_schedule(deployment.id, made.id)


def test_a_job_is_cancelled_and_leaves_nothing(operated):
    stage = operated
    run = stage.start("provision-and-run/run-command", command="sleep 300")
    stage.wait_until(lambda: stage.live(run), 90)
    stage.cancel(run)
    assert stage.ended(run).type is StateType.CANCELLED
    stage.wait_until(lambda: not stage.live(run), 20)


def test_a_job_that_was_killed_goes_on_after_a_retry(operated):
    stage = operated
    command = "for i in $(seq 20); do echo step $i; echo $i >> counted; sleep 1; done; wc -l < counted"
    run = stage.start("provision-and-run/run-command", command=command)
    (instance,) = stage.wait_until(lambda: stage.live(run), 90)
    stage.wait_until(lambda: "step 2" in stage.log(run), 30)
    stage.kill(run)
    assert stage.ended(run).type is StateType.CRASHED
    stage.retry(run)
    stage.completed(run)
    assert "20\n" in stage.artifacts(run)["sandbox-run"]
    assert instance.id in stage.artifacts(run)["sandbox-run"] and not stage.live(run)


def test_a_batch_that_fails_notifies_and_a_run_that_crashed_is_reaped(operated, tmp_path):
    stage = operated
    with listening() as (url, told):
        stage.call("python", "blocks/register.py", AGS_NOTIFY_URL=url)
        files = [stage.clone / "deployments" / "automations" / f"{name}.yaml" for name in AUTOMATIONS]
        quick = tmp_path / "quick.yaml"
        quick.write_text(files[0].read_text().replace("schedule_after: 615", "schedule_after: 5"))
        stage.call("ags-flows", "automations", str(quick), *map(str, files[1:]))
        again = stage.call("ags-flows", "automations", str(quick), *map(str, files[1:]))
        assert {line.split()[0] for line in again.splitlines()} == {"left"}

        batch = stage.start("run-batch/nightly-batch", items=["good", "bad"], command='test "$ITEM" = good')
        assert stage.ended(batch).type is StateType.FAILED
        stage.wait_until(lambda: told, 60)
        assert "1 of 2 items" in json.dumps(told) and str(batch.id) in json.dumps(told)

        before = {run.id for run in stage.runs("reap/reap-one-run")}
        run = stage.start("provision-and-run/run-command", command="sleep 300")
        (instance,) = stage.wait_until(lambda: stage.live(run), 90)
        stage.kill(run)
        assert stage.ended(run).type is StateType.CRASHED
        reap = stage.wait_until(
            lambda: next(
                (
                    one
                    for one in stage.runs("reap/reap-one-run")
                    if one.id not in before and one.parameters.get("flow_run_id") == str(run.id)
                ),
                None,
            ),
            60,
        )
        stage.completed(reap)
        # Within the grace time it is left for a retry; after it the same parameters stop it.
        assert [one.id for one in stage.live(run)] == [instance.id]
        stage.completed(stage.start("reap/reap-one-run", flow_run_id=str(run.id), rules={"grace_minutes": 0}))
        stage.wait_until(lambda: not stage.live(run), 20)
    for known in stage.api.read_automations():
        stage.api.delete_automation(known.id)


AUTOMATIONS = ("reap-after-a-crash", "failed-batch", "lost-runs")


class listening:
    """A webhook: keeps what is posted to it."""

    def __enter__(self):
        told = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}/hook", told

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()
