"""The emulator's time."""

import asyncio
import time

import pytest

from ags_flows.emulator.world.clock import Clock, iso


def test_alarms_ring_in_order_when_time_is_advanced():
    async def run():
        clock, rung = Clock(), []
        now = clock.now()
        for delay in (30, 10, 20):
            clock.schedule(now + delay, lambda delay=delay: rung.append(delay))
        cancelled = clock.schedule(now + 15, lambda: rung.append("cancelled"))
        cancelled.cancel()
        clock.advance(25)
        assert rung == [10, 20]
        clock.advance(10)
        assert rung == [10, 20, 30]
        clock.close()

    asyncio.run(run())


def test_alarms_ring_in_real_time_too():
    async def run():
        clock, rung = Clock(), asyncio.Event()
        clock.schedule(clock.now() + 30, rung.set)
        clock.schedule(clock.now() + 0.02, rung.set)
        await asyncio.wait_for(rung.wait(), 2)
        began = time.monotonic()
        await clock.sleep(0.03)
        assert 0.02 < time.monotonic() - began < 1
        clock.close()

    asyncio.run(run())


def test_a_sleep_ends_when_time_is_advanced():
    async def run():
        clock = Clock()
        sleeping = asyncio.ensure_future(clock.sleep(3600))
        await asyncio.sleep(0)
        clock.advance(3601)
        await asyncio.wait_for(sleeping, 1)
        with pytest.raises(ValueError, match="advanced"):
            clock.advance(float("nan"))
        clock.close()

    asyncio.run(run())


def test_moments_are_written_as_iso_8601():
    assert iso(0.0625) == "1970-01-01T00:00:00.062Z"
    assert iso(None) is None
