"""One instance in its sandbox: the patch applied, the tests run, the log graded."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from ags_flows.batch.storage import Storage
from ags_flows.errors import CommandTimeoutError
from ags_flows.models import Outcome, Verdict
from ags_flows.ownership import fingerprint
from ags_flows.session import SandboxSession
from ags_flows.swebench.dataset import Instance
from ags_flows.swebench.official import grade, script_of
from ags_flows.swebench.predictions import Prediction

WORKDIR = "/testbed"
PATCH = "/tmp/ags-flows.diff"
SCRIPT = "/tmp/ags-flows-eval.sh"
LOG = "/tmp/ags-flows-test-output.txt"
LARGEST_LOG = 256 << 20
NOT_APPLIED = 97

# What the official harness tries, in its order; a tree that an attempt left half patched is restored before the next.
# A patch that is in the tree already although each attempt complained counts as applied.
_APPLY = f"""\
cd {WORKDIR} || exit 98
attempt=0
for command in 'git apply --verbose' 'git apply --verbose --3way' 'git apply --verbose --reject' \\
    'patch --batch --forward --fuzz=5 -p1 -i'; do
  [ $attempt -eq 0 ] || {{ git checkout -- . ; git clean -fd; }} > /dev/null 2>&1
  attempt=$((attempt + 1))
  $command {PATCH} && exit 0
done
git apply --check --reverse {PATCH} && exit 0
exit {NOT_APPLIED}
"""


@dataclass(frozen=True)
class Evaluation:
    """One patch for one instance. `key` is the same for the same patch, image and script, and for nothing else."""

    prediction: Prediction
    instance: Instance

    @property
    def key(self) -> str:
        """What it is known by."""
        what = {name: self.instance[name] for name in ("image", "eval_script", "FAIL_TO_PASS", "PASS_TO_PASS")}
        return f"{self.prediction.instance_id}-{fingerprint({**what, 'patch': self.prediction.patch})}"


def evaluate(sandbox: SandboxSession, evaluation: Evaluation, storage: Storage, timeout: float) -> Verdict:
    """Evaluate a patch; what was graded before for the same patch is not evaluated again.

    Args:
        sandbox: Of the instance's image; used for nothing before.
        evaluation: The patch and the instance.
        storage: Where log, report and verdict are kept.
        timeout: Seconds for the evaluation script.

    Raises:
        AGSFlowsError: The sandbox or the cloud failed: nothing is known of the patch.
    """
    known = known_verdict(evaluation, storage)
    if known is not None:
        # An earlier attempt died between this and noting that the item is done.
        return known
    logs = storage.under(f"logs/{evaluation.prediction.model.replace('/', '__')}/{evaluation.prediction.instance_id}/")
    as_root: dict[str, Any] = {"user": "root", "log_output": False}
    sandbox.write(PATCH, evaluation.prediction.patch, user="root")
    logs.write("patch.diff", evaluation.prediction.patch.encode())
    applied = sandbox.run(_APPLY, timeout=600, **as_root)
    if not applied.ok:
        told = f"{applied.stdout}{applied.stderr}".strip()
        logs.write("run_instance.log", told.encode())
        return _keep(evaluation, storage, "patch failed", reason=told[-1_000:], log=logs.where("run_instance.log"))
    sandbox.write(SCRIPT, script_of(evaluation.instance), user="root")
    started, timed_out, seconds = time.monotonic(), False, 0.0
    try:
        seconds = sandbox.run(f"/bin/bash {SCRIPT} > {LOG} 2>&1", timeout=timeout, **as_root).seconds
    except CommandTimeoutError:
        timed_out, seconds = True, time.monotonic() - started
    log = sandbox.read(LOG, user="root", limit=LARGEST_LOG).decode(errors="replace")
    if timed_out:
        log += f"\n\nTimeout error: {timeout:g} seconds exceeded."
    logs.write("test_output.txt", log.encode())
    where = logs.where("test_output.txt")
    if timed_out:
        reason = f"The tests took longer than {timeout:g} seconds."
        return _keep(evaluation, storage, "timeout", reason=reason, log=where, seconds=seconds)
    report = grade(evaluation.instance, evaluation.prediction.official(), log)
    logs.write("report.json", json.dumps({evaluation.prediction.instance_id: report}, indent=4).encode())
    outcome: Outcome = "resolved" if report["resolved"] else "unresolved"
    return _keep(evaluation, storage, outcome, report=report, log=where, seconds=seconds)


def known_verdict(evaluation: Evaluation, storage: Storage) -> Verdict | None:
    """Return the verdict of an earlier run for the same patch."""
    try:
        return Verdict.model_validate_json(storage.under("verdicts/").read(f"{evaluation.key}.json"))
    except ValueError:
        # There is none, or it was cut off.
        return None


def _keep(evaluation: Evaluation, storage: Storage, outcome: Outcome, **more: Any) -> Verdict:
    verdict = Verdict(instance_id=evaluation.prediction.instance_id, outcome=outcome, **more)
    storage.under("verdicts/").write(f"{evaluation.key}.json", verdict.model_dump_json().encode())
    return verdict
