"""An area measured in a separate process: Prefect's clients keep to the first server that they met."""

from __future__ import annotations

import importlib
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from bench.figure import Figure


def measured_alone(area: str) -> list[Figure]:
    """Measure an area in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_figures, area).result()


def _figures(area: str) -> list[Figure]:
    # The control plane is measured with a self-signed certificate.
    warnings.filterwarnings("ignore", message="Unverified HTTPS request")
    return list(importlib.import_module(f"bench.{area}").figures())
