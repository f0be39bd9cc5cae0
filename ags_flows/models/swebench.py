"""What came of evaluating patches on SWE-bench."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ags_flows.models.value import Value

Outcome = Literal["resolved", "unresolved", "patch failed", "timeout", "empty patch", "error"]
"""`error` is what the sandbox or the cloud failed at, after all retries: it says nothing about the patch."""


class Verdict(Value):
    """What came of one instance.

    Attributes:
        instance_id: The instance.
        outcome: See `Outcome`.
        reason: Why it is no verdict, or why the patch could not be applied.
        report: The official package's report of this instance, where it graded one.
        log: Where the log of the tests is.
        seconds: How long the evaluation script took.
        suspicion: What the official package makes of the log of a failure: `environment: out_of_memory`, ... Its kind
            is `environment` where no patch can be the cause, and `ambiguous` where one can.
    """

    instance_id: str
    outcome: Outcome
    reason: str = ""
    report: dict[str, Any] = Field(default_factory=dict)
    log: str = ""
    seconds: float = 0.0
    suspicion: str = ""


class EvaluationReport(Value):
    """What came of all predictions.

    Attributes:
        model: The name of the model, from the predictions.
        verdicts: One for each prediction of an instance of the data set, in the order of the predictions.
        problems: What is wrong with the predictions or the data set, with line and instance.
        report: Where the report in the official form is.
        resumed: How many were graded before, for the same patch.
        seconds: How long all took.
    """

    model: str
    verdicts: tuple[Verdict, ...] = ()
    problems: tuple[str, ...] = ()
    report: str = ""
    resumed: int = 0
    seconds: float = 0.0

    def ids(self, *outcomes: Outcome) -> list[str]:
        """Return the instances that had one of some outcomes, sorted."""
        return sorted(verdict.instance_id for verdict in self.verdicts if verdict.outcome in outcomes)
