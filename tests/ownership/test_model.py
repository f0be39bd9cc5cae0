"""The rules of ownership hold in every interleaving that the model generates, and the model finds faults in them.

The interleavings are the same in each test run. `MODEL_EXAMPLES=100000` generates that many random ones instead.
"""

import os

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import run_state_machine_as_test

from . import programs
from .errors import BrokenRuleError
from .faults import FAULTS
from .machine import Interleavings
from .model import World

EXAMPLES = os.environ.get("MODEL_EXAMPLES", "")
QUIET = {"deadline": None, "database": None, "print_blob": False, "suppress_health_check": list(HealthCheck)}
MODEL = settings(max_examples=int(EXAMPLES or 800), stateful_step_count=20, derandomize=not EXAMPLES, **QUIET)
# The first failure is enough: it is neither made smaller nor printed. Most faults are found in some hundred examples.
SEARCH = settings(
    max_examples=20_000,
    stateful_step_count=16,
    derandomize=True,
    phases=[Phase.generate],
    verbosity=Verbosity.quiet,
    report_multiple_bugs=False,
    **QUIET,
)


@pytest.mark.parametrize("name", programs.ALL)
def test_each_program_ends_without_faults(name):
    world = World(programs.ALL[name])
    world.finish()
    assert {run.attempt for run in world.runs} == {1}


@pytest.mark.timeout(max(600, int(EXAMPLES or 0) // 20))
def test_the_invariants_hold_in_every_interleaving():
    run_state_machine_as_test(lambda: Interleavings(list(programs.ALL.values())), settings=MODEL)


@pytest.mark.parametrize("name", FAULTS)
def test_the_model_finds_a_fault_in_the_rules(name):
    fault = FAULTS[name]
    with pytest.raises(BrokenRuleError, match=fault.found or None):
        run_state_machine_as_test(lambda: Interleavings(fault.programs, fault.rules), settings=SEARCH)
