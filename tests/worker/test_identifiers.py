"""What the Prefect server has as the identifier of a flow run's infrastructure."""

import pytest
from prefect.states import Cancelling

from tests.worker.conftest import ended, soon

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect leaves sockets to the garbage collector when an event loop ends.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_run_that_is_cancelled_while_its_sandbox_starts_has_the_id_of_the_sandbox(pool, emulator):
    emulator.transition("instance.start", "seconds", 60)
    run = pool.submit("sleep 100")

    async def scenario(worker):
        await soon(lambda: pool.live(run))
        pool.set_state(run, Cancelling(), force=True)
        await soon(lambda: ended(pool, run))
        return await soon(lambda: pool.run(run).infrastructure_pid)

    assert [pool.perform(scenario)] == [one.id for one in pool.instances(run)]


def test_a_run_that_is_cancelled_before_it_has_a_sandbox_names_none(pool, emulator):
    emulator.limits(quotas=True, instances=0)
    run = pool.submit("sleep 100")

    async def scenario(worker):
        await soon(lambda: "Waiting for a sandbox" in (pool.run(run).state.message or ""))
        pool.set_state(run, Cancelling(), force=True)
        await soon(lambda: ended(pool, run))
        await soon(lambda: not worker._has(run))
        return pool.run(run).infrastructure_pid

    assert not pool.perform(scenario)
