"""The rules of ownership hold in every interleaving that the model generates, and the model finds faults in them.

`MODEL_EXAMPLES=100000` generates that many other interleavings than the ones of each test run.
"""

import os

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from . import programs
from .machine import Interleavings

EXAMPLES = os.environ.get("MODEL_EXAMPLES", "")
QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
MODEL = settings(
    max_examples=int(EXAMPLES or 6000), stateful_step_count=10, derandomize=not EXAMPLES, print_blob=False, **QUIET
)


def test_what_must_hold_holds_in_every_interleaving():
    run_state_machine_as_test(lambda: Interleavings(list(programs.ALL.values())), settings=MODEL)
