"""A batch of real items that is killed three times: each item runs once, in the sandboxes of the first attempt.

`make chaos` takes ten thousand items (BATCH_ITEMS).
"""

import json
import os
import time

import pytest
from prefect.client.schemas.objects import StateType

ITEMS = int(os.environ.get("BATCH_ITEMS", "60"))
SANDBOXES = int(os.environ.get("BATCH_SANDBOXES", "4"))
PAUSE = 0.8 if ITEMS < 1000 else 0.05
"""Seconds of an item: few short ones would be done before the batch can be killed three times."""

pytestmark = [
    pytest.mark.skipif("BATCH_ITEMS" not in os.environ, reason="takes minutes: make chaos runs it"),
    pytest.mark.slow,
    pytest.mark.timeout(300 + ITEMS),
    pytest.mark.xdist_group("stage"),
]


def records(directory):
    """Return all whole records of the batch."""
    lines = [line for part in sorted(directory.glob("ledger-*")) for line in part.read_bytes().splitlines()]
    return [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]


def test_a_batch_that_is_killed_three_times_does_each_item_once(stage, tmp_path):
    began = time.monotonic()
    parameters = {"tool": "batched", "items": ITEMS, "sandboxes": SANDBOXES, "pause": PAUSE}
    run = stage.start("batched", results=str(tmp_path), **parameters)
    for part in (1, 2, 3):
        wanted = ITEMS * part // 4
        stage.wait_until(lambda: sum("result" in one for one in records(tmp_path)) >= wanted, 120 + ITEMS)  # noqa: B023
        stage.kill(run)
        assert stage.ended(run).type is StateType.CRASHED
        stage.retry(run)
    assert stage.ended(run, 120 + ITEMS).type is StateType.COMPLETED, stage.log(run)
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    # Each item counts how often it has run in its sandbox, and each was handed to one sandbox alone.
    assert [(one["key"], one["stdout"], one["attempts"]) for one in results] == [
        (str(number), "1\n", 1) for number in range(ITEMS)
    ]
    where = {}
    for one in records(tmp_path):
        if "begun" in one:
            where.setdefault(one["key"], set()).add(one["begun"])
    moved = {key: found for key, found in where.items() if len(found) > 1}
    assert not moved
    assert len(set.union(*where.values())) <= SANDBOXES
    assert stage.live() == []
    assert stage.tools() == []
    print(f"{ITEMS} items in {time.monotonic() - began:.0f} s, killed three times")
