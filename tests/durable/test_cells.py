"""The result of what runs once is kept in the sandbox, whatever its size."""

import uuid

import pytest

from ags_flows.durable.cells import Once
from ags_flows.errors import OutcomeUnknownError
from ags_flows.ownership import Frame, Holder, Place, Step

LARGE = "x" * (65 << 20)


def step(attempt, name="cell"):
    frames = (Frame("flow", "b" * 32, attempt), Frame("call", uuid.uuid4().hex))
    return Step(name, "", "b" * 32, Place(), Holder(frames))


def never():
    raise AssertionError("executed again")


def test_a_large_result_is_kept_for_a_later_attempt(plane):
    first = Once(plane, "cells", step(1)).run(lambda: LARGE, str, bytes.decode)[0]
    again = Once(plane, "cells", step(2)).run(never, str, bytes.decode)[0]
    assert first == again == LARGE
    # The first attempt is over: what follows has the sandbox.
    plane.script("rm -rf ~/.ags_flows")


def test_a_result_that_cannot_be_kept_is_returned_and_reported(plane, sandbox, ags_emulator_process):
    told = []
    once = Once(plane, "cells", step(3, "full"), on_trouble=told.append)

    def execute():
        # Each time: a response before the end of a request may also end its connection, after which it is repeated.
        full = {"path": "/files", "status": 507, "times": None}
        ags_emulator_process.stream_fault("status", instance_id=sandbox[1].id, **full)
        return "result"

    try:
        assert once.run(execute, str, bytes.decode)[0] == "result"
    finally:
        ags_emulator_process.clear_faults()
    assert len(told) == 1 and "(6 bytes) cannot be kept" in told[0] and "OutcomeUnknownError" in told[0]
    with pytest.raises(OutcomeUnknownError, match="left no result"):
        Once(plane, "cells", step(4, "full")).run(never, str, bytes.decode)
