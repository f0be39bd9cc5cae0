"""Results of evaluating patches on SWE-bench."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ags_flows.models.value import Value

Outcome = Literal["resolved", "unresolved", "patch failed", "timeout", "empty patch", "error"]
"""`error` means that the sandbox or the cloud failed after all retries. It is not a verdict on the patch."""


class Verdict(Value):
    """The result of one instance.

    Attributes:
        instance_id: The instance.
        outcome: See `Outcome`.
        reason: Why the evaluation failed, or why the patch could not be applied.
        report: The official package's report of this instance, if its log was graded.
        log: Path or URL of the log of the tests.
        seconds: Duration of the evaluation script.
        suspicion: Official classification of a failure's log, such as `environment: out_of_memory`. The kind is
            `environment` if a patch cannot be the cause, and `ambiguous` if it can.
    """

    instance_id: str
    outcome: Outcome
    reason: str = ""
    report: dict[str, Any] = Field(default_factory=dict)
    log: str = ""
    seconds: float = 0.0
    suspicion: str = ""


class EvaluationReport(Value):
    """The results of all predictions.

    Attributes:
        model: Name of the model, from the predictions.
        verdicts: One for each prediction of an instance of the data set, in the order of the predictions.
        problems: Problems with the predictions or the data set, with line and instance.
        report: Path or URL of the report in the official format.
        resumed: Number of verdicts that are from earlier runs with the same patch.
        seconds: Duration of the evaluation.
    """

    MEASURED = frozenset({"seconds", "resumed"})

    model: str
    verdicts: tuple[Verdict, ...] = ()
    problems: tuple[str, ...] = ()
    report: str = ""
    resumed: int = 0
    seconds: float = 0.0

    def ids(self, *outcomes: Outcome) -> list[str]:
        """Return the sorted ids of the instances with one of the given outcomes."""
        return sorted(verdict.instance_id for verdict in self.verdicts if verdict.outcome in outcomes)
