"""SWE-bench from a terminal."""

from __future__ import annotations

from typing import Any

from ags_flows.cli.listing import Column
from ags_flows.cli.steps import run_with_steps
from ags_flows.flows import swebench_evaluate
from ags_flows.models import EvaluationReport
from ags_flows.swebench import report as page

COLUMNS = (
    Column("instance", whole=True),
    Column("outcome", whole=True),
    Column("why", folded=True),
    Column("seconds"),
)


def evaluate_now(predictions: str, dataset: str, **options: Any) -> EvaluationReport:
    """Evaluate, as a run of the flow `swebench_evaluate` where a Prefect server is in the settings.

    Args:
        predictions: The file.
        dataset: A file or a name.
        **options: Those of `swebench_evaluate`.
    """
    return run_with_steps(swebench_evaluate, False, predictions=predictions, dataset=dataset, **options)


def rows_of(report: EvaluationReport) -> list[dict[str, str]]:
    """Return the verdicts as rows of a listing."""
    return page.rows_of(report)


def summary_of(report: EvaluationReport) -> str:
    """Return the summary of the report as plain text."""
    return page.summary_of(report).replace("**", "").replace("`", "")
