"""The parts of the official package that are used. It is imported on first use, because the import takes seconds."""

from __future__ import annotations

import importlib
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ags_flows.errors import ConfigurationError


@dataclass(frozen=True)
class Harness:
    """The parts of `swebench.harness` that are used."""

    PARSER_REGISTRY: dict[str, Any]
    START_TEST_OUTPUT: str
    EvalType: Any
    load_swebench_dataset: Any
    make_test_spec: Any
    get_eval_report: Any
    classify_text: Any


@cache
def harness() -> Harness:
    """Return the official harness.

    Raises:
        ConfigurationError: It is not installed, or its version is not supported.
    """
    try:
        grading = importlib.import_module("swebench.harness.grading")
        utils = importlib.import_module("swebench.harness.utils")
        infra = importlib.import_module("swebench.harness.infra_failure")
        return Harness(
            grading.PARSER_REGISTRY,
            grading.START_TEST_OUTPUT,
            grading.EvalType,
            utils.load_swebench_dataset,
            utils.make_test_spec,
            grading.get_eval_report,
            infra.classify_text,
        )
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"The evaluation needs the package swebench, version 5 ({error}).",
            hint="Install it: pip install 'ags-flows[swebench]'. Nothing was started.",
        ) from error


def script_of(instance: dict[str, Any]) -> str:
    """Return the official evaluation script of an instance."""
    return str(harness().make_test_spec(instance).eval_script)


def suspicion_of(text: str) -> str:
    """Return the official classification of a failure's log, such as `environment: out_of_memory`, or ''."""
    found = harness().classify_text(text)
    return f"{found[1]}: {found[0]}" if found else ""


def grade(instance: dict[str, Any], prediction: dict[str, str], log: str) -> dict[str, Any]:
    """Grade the log of an instance's tests and return the official report."""
    with tempfile.TemporaryDirectory(prefix="ags-swebench-") as directory:
        path = Path(directory, "test_output.txt")
        path.write_text(log)
        report = harness().get_eval_report(harness().make_test_spec(instance), prediction, str(path), True)
    return dict(report[instance["instance_id"]])
