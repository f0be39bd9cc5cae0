"""Evaluate one instance in its sandbox: apply the patch, run the tests, grade the log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ags_flows.batch.storage import Storage
from ags_flows.errors import (
    AGSFlowsError,
    CommandTimeoutError,
    NotFoundError,
    OutcomeUnknownError,
    ServiceError,
    TransferError,
)
from ags_flows.models import ExecResult, Outcome, Verdict
from ags_flows.ownership import fingerprint
from ags_flows.session import SandboxSession
from ags_flows.swebench.assets import assets_of, restoring, stage
from ags_flows.swebench.dataset import NEEDED, Instance
from ags_flows.swebench.official import grade, script_of, suspicion_of
from ags_flows.swebench.predictions import Prediction

WORKDIR = "/testbed"
PATCH = "/tmp/patch.diff"
SCRIPT = "/eval.sh"
LOG = "/test_output.txt"
"""Not in /tmp, because test suites clean that up."""

LARGEST_LOG = 256 << 20
KEPT_OF_A_TIMEOUT = 16 << 20
APPLYING = 600.0
AGAIN = "The instance is evaluated again in another sandbox."

APPLIED, REFUSED, TESTED = "ags-flows: applied", "ags-flows: refused", "ags-flows: tested"
"""Last line of a script that ran to its end. A script that does not print one of them (no such directory, full disk,
out of memory) has its reason on stderr; this is not evidence about the patch."""

# The commands of the official harness, in its order. A partly patched tree is restored before the next command.
# If all commands fail although the patch is already in the tree, it counts as applied.
_APPLY = f"""\
cd {WORKDIR} && cat > {PATCH} || exit 0
command -v git > /dev/null || command -v patch > /dev/null || {{ echo 'there is neither git nor patch' >&2; exit 0; }}
attempt=0
for command in 'git apply --verbose' 'git apply --verbose --3way' 'git apply --verbose --reject' \\
    'patch --batch --forward --fuzz=5 -p1 -i'; do
  [ $attempt -eq 0 ] || {{ git checkout -- . ; git clean -fd; }} > /dev/null 2>&1
  attempt=$((attempt + 1))
  $command {PATCH} && echo && echo '{APPLIED}' && exit 0
done
git apply --check --reverse {PATCH} && echo && echo '{APPLIED}' && exit 0
echo > {PATCH}.room || exit 0
echo && echo '{REFUSED}'
"""

_TEST = f"""\
cd {WORKDIR} && cat > {SCRIPT} || exit 0
/bin/bash {SCRIPT} > {LOG} 2>&1 < /dev/null
echo > {LOG}.room && echo '{TESTED}'
"""


@dataclass(frozen=True)
class Evaluation:
    """One patch for one instance."""

    prediction: Prediction
    instance: Instance

    @property
    def key(self) -> str:
        """Key of the verdict: equal exactly if instance and patch are equal."""
        what = {name: self.instance.get(name) for name in (*NEEDED, "image_assets")}
        return f"{self.prediction.instance_id}-{fingerprint({**what, 'patch': self.prediction.patch})}"


def evaluate(sandbox: SandboxSession, evaluation: Evaluation, storage: Storage, timeout: float) -> Verdict:
    """Evaluate a patch, or return the stored verdict for the same patch.

    Args:
        sandbox: A new, unused sandbox of the instance's image.
        evaluation: The patch and the instance.
        storage: Storage for log, report and verdict.
        timeout: Seconds for the evaluation script.

    Raises:
        AGSFlowsError: The sandbox or the cloud failed. There is no verdict on the patch.
    """
    known = known_verdict(evaluation, storage, timeout)
    if known is not None:
        # An earlier attempt stored the verdict and died before it recorded that the item is done.
        return known
    try:
        return _evaluate(sandbox, evaluation, storage, timeout)
    except (OutcomeUnknownError, NotFoundError, TransferError) as error:
        # A retryable error, because a new sandbox is not affected by the state of this one.
        raise ServiceError(error.message, hint=AGAIN) from error


def known_verdict(evaluation: Evaluation, storage: Storage, timeout: float) -> Verdict | None:
    """Return the stored verdict for this patch, or None. A timeout under a shorter limit is not reused."""
    try:
        verdict = Verdict.model_validate_json(storage.under("verdicts/").read(f"{evaluation.key}.json"))
    except ValueError:
        # There is no file, or it is truncated.
        return None
    return None if verdict.outcome == "timeout" and verdict.seconds < timeout else verdict


def _evaluate(sandbox: SandboxSession, evaluation: Evaluation, storage: Storage, timeout: float) -> Verdict:
    prediction, instance = evaluation.prediction, evaluation.instance
    logs = storage.under(f"logs/{prediction.model.replace('/', '__')}/{prediction.instance_id}/")
    logs.write("patch.diff", prediction.patch.encode())
    applied, output = _apply(sandbox, prediction.patch)
    if not applied:
        logs.write("run_instance.log", output.encode())
        where = logs.where("run_instance.log")
        suspicion = suspicion_of(output)
        return _keep(evaluation, storage, "patch failed", reason=output[-1_000:], log=where, suspicion=suspicion)
    timed_out, seconds, log = _test(sandbox, instance, timeout)
    if timed_out:
        log += f"\n\nTimeout error: {timeout:g} seconds exceeded."
    logs.write("test_output.txt", log.encode())
    known_by: dict[str, Any] = {"log": logs.where("test_output.txt"), "seconds": seconds}
    if timed_out:
        reason = f"The tests took longer than {timeout:g} seconds."
        return _keep(evaluation, storage, "timeout", reason=reason, suspicion=suspicion_of(log), **known_by)
    report = grade(instance, prediction.official(), log)
    if report["infra_failure"]:
        # The official package found no test results, and signs of a failure that a patch cannot cause.
        reason = f"The tests could not run: {report['infra_failure_reason']}. Their log: {known_by['log']}"
        raise ServiceError(reason, hint=AGAIN)
    logs.write("report.json", json.dumps({prediction.instance_id: report}, indent=4).encode())
    outcome: Outcome = "resolved" if report["resolved"] else "unresolved"
    suspicion = "" if report["resolved"] else suspicion_of(log)
    return _keep(evaluation, storage, outcome, report=report, suspicion=suspicion, **known_by)


def _apply(sandbox: SandboxSession, patch: str) -> tuple[bool, str]:
    """Return whether the patch could be applied, and the output of the attempts."""
    try:
        done = _run(sandbox, _APPLY, (APPLIED, REFUSED), stdin=patch, timeout=APPLYING)
    except CommandTimeoutError as error:
        raise ServiceError(f"The patch was not applied within {APPLYING:g} seconds.", hint=AGAIN) from error
    output, _, word = done.stdout.rstrip().rpartition("\n")
    return word == APPLIED, f"{output}{done.stderr}".strip()


def _test(sandbox: SandboxSession, instance: Instance, timeout: float) -> tuple[bool, float, str]:
    """Return whether the evaluation script reached its time limit, its duration in seconds, and its log."""
    assets = assets_of(instance)
    stage(assets, sandbox)
    script = restoring(assets, script_of(instance))
    try:
        seconds = _run(sandbox, _TEST, (TESTED,), stdin=script, timeout=timeout).seconds
    except CommandTimeoutError:
        return True, timeout, _end_of_log(sandbox)
    # Read as a file: secrets would be masked in the output of a command.
    return False, seconds, sandbox.read(LOG, user="root", limit=LARGEST_LOG).decode(errors="replace")


def _end_of_log(sandbox: SandboxSession) -> str:
    try:
        sandbox.run(f"tail -c {KEPT_OF_A_TIMEOUT} {LOG} > {LOG}.end", user="root", timeout=60)
        return sandbox.read(f"{LOG}.end", user="root", limit=KEPT_OF_A_TIMEOUT).decode(errors="replace")
    except AGSFlowsError as error:
        # The timeout is a verdict even without the log.
        return f"The log could not be read: {error}"


def _run(sandbox: SandboxSession, script: str, words: tuple[str, ...], **options: Any) -> ExecResult:
    """Run a script whose last line must be one of `words`.

    Raises:
        ServiceError: The last line is different.
    """
    done = sandbox.run(script, user="root", log_output=False, **options)
    if done.stdout.rstrip().rpartition("\n")[2] not in words:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.exit_code}"]
        raise ServiceError(f"The sandbox failed: {lines[-1][:300]}.", hint=AGAIN)
    return done


def _keep(evaluation: Evaluation, storage: Storage, outcome: Outcome, **more: Any) -> Verdict:
    verdict = Verdict(instance_id=evaluation.prediction.instance_id, outcome=outcome, **more)
    storage.under("verdicts/").write(f"{evaluation.key}.json", verdict.model_dump_json().encode())
    return verdict
