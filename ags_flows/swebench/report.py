"""The report in the official format (schema version 2), and the summary for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ags_flows.models import EvaluationReport, Outcome, Verdict

SHOWN = 200
ORDER: tuple[Outcome, ...] = ("error", "timeout", "patch failed", "unresolved", "resolved", "empty patch")


def official_report(report: EvaluationReport, dataset_ids: Iterable[str], submitted: Iterable[str]) -> dict[str, Any]:
    """Return the report in the format of the official harness.

    In this format, patches that do not apply, timeouts and infrastructure failures are all errors.
    """
    resolved, unresolved = report.ids("resolved"), report.ids("unresolved")
    errors, empty = report.ids("patch failed", "timeout", "error"), report.ids("empty patch")
    everything, sent = sorted(dataset_ids), sorted(submitted)
    suspicions = {one.instance_id: _suspicion(one) for one in report.verdicts}
    infra = sorted(one for one, (kind, _) in suspicions.items() if kind == "environment")
    ambiguous = sorted(one for one, (kind, _) in suspicions.items() if kind == "ambiguous")
    return {
        "total_instances": len(everything),
        "submitted_instances": len(sent),
        "completed_instances": len(resolved) + len(unresolved),
        "resolved_instances": len(resolved),
        "unresolved_instances": len(unresolved),
        "infra_failure_instances": len(infra),
        "ambiguous_failure_instances": len(ambiguous),
        "empty_patch_instances": len(empty),
        "error_instances": len(errors),
        "completed_ids": sorted([*resolved, *unresolved]),
        "incomplete_ids": sorted(set(everything) - set(sent)),
        "empty_patch_ids": empty,
        "submitted_ids": sent,
        "resolved_ids": resolved,
        "unresolved_ids": unresolved,
        "infra_failure_ids": infra,
        "ambiguous_failure_ids": ambiguous,
        "failure_reasons": {one: reason for one, (_, reason) in sorted(suspicions.items()) if reason},
        "error_ids": errors,
        "schema_version": 2,
    }


def rows_of(report: EvaluationReport) -> list[dict[str, str]]:
    """Return the rows of a table, failures first, at most 200."""
    ordered = sorted(report.verdicts, key=lambda one: (ORDER.index(one.outcome), one.instance_id))
    return [
        {
            "instance": one.instance_id,
            "outcome": one.outcome,
            "why": one.reason.strip().splitlines()[-1][:200] if one.reason.strip() else _tests(one),
            "seconds": f"{one.seconds:.1f}" if one.seconds else "",
            "log": one.log,
        }
        for one in ordered[:SHOWN]
    ]


def summary_of(report: EvaluationReport) -> str:
    """Return the Markdown text above the table."""
    count = {outcome: len(report.ids(outcome)) for outcome in ORDER}
    graded = sum(count.values()) - count["error"]
    share = f" ({count['resolved'] / graded:.1%} of {graded:,} graded)" if graded else ""
    counts = ", ".join(f"{count[outcome]:,} {outcome}" for outcome in reversed(ORDER) if count[outcome])
    lines = [
        f"**{report.model}: {count['resolved']:,} resolved**{share}, in {report.seconds:.0f} s.",
        "",
        f"- {counts}",
    ]
    if report.resumed:
        lines.append(f"- {report.resumed:,} verdicts are from earlier runs with the same patch")
    lines.append(f"- Report in the official format: `{report.report}`")
    lines += [f"- {problem}" for problem in report.problems[:20]]
    if len(report.problems) > 20:
        lines.append(f"- and {len(report.problems) - 20:,} more such problems")
    return "\n".join(lines)


def _tests(verdict: Verdict) -> str:
    tests = verdict.report.get("tests_status") or {}
    failed = [name for group in ("FAIL_TO_PASS", "PASS_TO_PASS") for name in tests.get(group, {}).get("failure", [])]
    if not failed:
        return "" if verdict.outcome != "unresolved" else verdict.report.get("infra_failure_reason", "no test results")
    return f"{failed[0]} failed" + (f", and {len(failed) - 1} more tests" if len(failed) > 1 else "")


def _suspicion(verdict: Verdict) -> tuple[str, str]:
    """Return the kind of a failure and its reason; two empty strings if there is no suspicion."""
    if verdict.outcome == "error":
        return "environment", verdict.reason.splitlines()[0] if verdict.reason else "sandbox"
    kind, _, reason = verdict.suspicion.partition(": ")
    return kind, reason
