"""The status page as it is sent: what comes first, what is folded, the filter, and many instances."""

import copy
import re
import time
from types import SimpleNamespace

import httpx
import pytest

from ags_flows.emulator.status.page import MOST_LIVE, page


@pytest.fixture
def shown(ags_emulator):
    """Return a function that gets the page, divided into its sections."""

    def shown(query=""):
        html = httpx.get(f"{ags_emulator.url}/", params={"q": query} if query else None).text
        live, _, rest = html.partition("id=ended")
        ended, _, rest = rest.partition("id=tools")
        tools, _, requests = rest.partition("id=requests>")
        return SimpleNamespace(html=html, live=live, ended=ended, tools=tools, requests=requests)

    return shown


@pytest.fixture
def start(ags_config):
    control = ags_config.control_plane()
    return lambda **metadata: control.start_instance(tool="base", metadata=metadata).id


def test_live_instances_come_first_and_ended_ones_are_folded(shown, start, ags_config):
    first, second = start(), start()
    control = ags_config.control_plane()
    control.stop_instance(first)
    deadline = time.monotonic() + 30
    while control.get_instance(first).status != "STOPPED":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    page = shown()
    assert second in page.live and second not in page.ended
    assert first in page.ended and first not in page.live
    assert "<details class=fold" in page.live[page.live.rindex("<details") :]


def test_metadata_is_there_on_demand_and_escaped(shown, start):
    instance = start(**{"flow-run-name": "nightly <etl>", "long": "x" * 200})
    row = re.search(rf'<details id="{instance}">(.*?)</details>', shown().live, re.S)[1]
    summary, _, more = row.partition("</summary>")
    assert "nightly &lt;etl&gt;" in summary and "x" * 200 not in summary
    assert f"<dt>long</dt><dd>{'x' * 200}</dd>" in more


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("team=data", {"one"}),
        ("TEAM=DATA running", {"one"}),
        ("base", {"one", "two"}),
        ("data ml", set()),
        ('"><script>', set()),
    ],
)
def test_the_filter_takes_words_of_everything_that_is_shown(shown, start, ags_config, query, found):
    from ags_flows.lifecycle.waiting import wait_instance_running

    ids = {"one": start(team="data"), "two": start(team="ml")}
    for instance in ids.values():
        wait_instance_running(ags_config.control_plane(), instance, timeout=30)
    page = shown(query)
    assert {name for name, instance in ids.items() if instance in page.live} == found
    assert "<script>\n" in page.html and page.html.count("<script>") == 1


def test_thousands_of_instances_are_limited_and_counted(ags_emulator, start):
    start(team="data")
    world = ags_emulator._controls._world
    (one,) = world.all_instances()
    copies = [copy.copy(one) for _ in range(3_000)]
    for number, each in enumerate(copies):
        each.instance_id, each.number, each.machine = f"{number:032x}", number, None
        each.metadata = {"flow-run-name": f"run {number}", "place": "p" * 200}
    many = SimpleNamespace(all_instances=lambda: iter(copies), clock=world.clock, regions=world.regions)
    began = time.perf_counter()
    html = page(many, SimpleNamespace(count=0, latest=lambda most: []))
    assert time.perf_counter() - began < 2
    assert html.count("<details id=") == MOST_LIVE and f"{MOST_LIVE} of 3,000" in html
    assert "1 of 3,000" in page(many, SimpleNamespace(count=0, latest=lambda most: []), "q=run+2718")
