"""The status page: live instances, ended ones, tools, recent requests. It refreshes itself and needs nothing else.

It is made of the state at the time of the request. A filter is a text of the query, `/?q=TEXT`: each of its words must
occur in what is shown of a thing, or in its metadata.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any
from urllib.parse import parse_qs

from ags_flows.emulator.journal import Journal
from ags_flows.emulator.status.look import SCRIPT, SECONDS, STYLE
from ags_flows.emulator.world.instance import Instance
from ags_flows.emulator.world.tool import Tool
from ags_flows.emulator.world.world import World

MOST_LIVE = 500
MOST_ENDED = 200
MOST_TOOLS = 200
MOST_REQUESTS = 60
SHORT_ID = 12
OWNER = "flow-run-name"
"""Clients may write the name of their flow run under it."""

_KINDS = {
    "ACTIVE": "good",
    "RUNNING": "good",
    "CREATING": "wait",
    "DELETING": "wait",
    "STARTING": "wait",
    "PAUSING": "wait",
    "RESUMING": "wait",
    "STOPPING": "wait",
    "PAUSED": "rest",
    "STOPPED": "rest",
}


def page(world: World, journal: Journal, query: str = "") -> str:
    """Return the page as HTML.

    Args:
        world: What there is.
        journal: The request log.
        query: The query of the URL; its `q` filters what is shown.
    """
    text = parse_qs(query).get("q", [""])[0][:200]
    words = text.lower().split()
    now = world.clock.now()
    instances = sorted(world.all_instances(), key=lambda one: one.number, reverse=True)
    live = [one for one in instances if not one.ended]
    ended = [one for one in instances if one.ended]
    tools = [(name, tool) for name, region in world.regions.items() for tool in region.tools]
    body = [
        *_live(live, words, now),
        *_ended(ended, words, now),
        *_tools(tools, words),
        *_requests(journal, words),
    ]
    counts = (
        f"<p id=counts>{_count(len(live), 'live instance')}, {len(ended):,} ended, {_count(len(tools), 'tool')}, "
        f"{_count(journal.count, 'request')}{_ahead(world.clock.offset)}</p>"
    )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        f"<title>{len(live)} live - AGS emulator</title>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<noscript><meta http-equiv=refresh content={SECONDS}></noscript>"
        f"<link rel=icon href='data:,'><style>{STYLE}</style></head><body>"
        f"<header><div><h1>AGS emulator</h1>{counts}"
        "<nav><a href=#live>Live</a><a href=#ended>Ended</a><a href=#tools>Tools</a>"
        "<a href=#requests>Requests</a></nav>"
        f'<form><input name=q type=search value="{escape(text)}" aria-label=Filter '
        'placeholder="Filter: id, tool, status, flow run, metadata, command"></form></div></header>'
        f"<main>{''.join(body)}</main><script>{SCRIPT % (SECONDS * 1000, SECONDS * 1000)}</script></body></html>"
    )


def _live(instances: list[Instance], words: list[str], now: float) -> Iterable[str]:
    found = [one for one in instances if _matches(words, *_words_of(one))]
    rows = [_instance(one, now) for one in found[:MOST_LIVE]]
    empty = "No live instances. Start one with StartSandboxInstance or Sandbox.create()."
    yield f"<h2 id=live>Live instances{_shown(len(rows), len(found), len(instances), words)}</h2>"
    yield _instances(rows, empty if not instances else "No live instance has all of these words.")


def _ended(instances: list[Instance], words: list[str], now: float) -> Iterable[str]:
    found = [one for one in instances if _matches(words, *_words_of(one))]
    rows = [_instance(one, now) for one in found[:MOST_ENDED]]
    yield f"<details class=fold id=ended><summary>Ended{_shown(len(rows), len(found), len(instances), words)}</summary>"
    yield f"{_instances(rows, 'None.')}</details>"


def _instances(rows: list[str], empty: str) -> str:
    heads = ("", "Instance", "Tool", "Status", "Flow run", "Region", "-Ends in", "-Processes")
    head = _row(
        [_cell(text.lstrip("-"), large=n in (2, 4, 5, 7), right=text[:1] == "-") for n, text in enumerate(heads)]
    )
    return _card("instances", head, rows, empty)


def _instance(instance: Instance, now: float) -> str:
    processes = instance.machine.processes() if instance.machine is not None else []
    why = instance.status_reason or instance.stop_reason or ""
    cells = [
        "<span></span>",
        f"<code title='{escape(instance.instance_id)}'>{escape(instance.instance_id[:SHORT_ID])}</code>",
        _cell(instance.tool_name, large=True),
        _status(instance.status, why),
        _cell(instance.metadata.get(OWNER, ""), large=True),
        _cell(instance.region, large=True),
        _cell(_left(instance, now), right=True),
        _cell(str(len(processes) or ""), large=True, right=True),
    ]
    facts = [
        ("instance", f"<code>{escape(instance.instance_id)}</code>"),
        ("tool", f"{escape(instance.tool_name)} <code>{escape(instance.tool_id)}</code>"),
        ("status", _status(instance.status, why, whole=True)),
        ("started", _clock(instance.created) + (f", ended {_clock(instance.ended_at)}" if instance.ended_at else "")),
        *((escape(name), escape(value)) for name, value in sorted(instance.metadata.items())),
        *(
            (f"process {one.get('pid', '')}", f"<code>{escape(str(one.get('command', '')))}</code>")
            for one in processes
        ),
    ]
    more = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return (
        f'<details id="{escape(instance.instance_id)}"><summary class=row>{"".join(cells)}</summary>'
        f"<div class=more><dl>{more}</dl></div></details>"
    )


def _tools(tools: list[tuple[str, Tool]], words: list[str]) -> Iterable[str]:
    found = [(region, tool) for region, tool in tools if _matches(words, *_words_of_tool(region, tool))]
    rows = [
        _row(
            [
                _cell(tool.name),
                f"<code class=large>{escape(tool.tool_id)}</code>",
                _cell(tool.type, large=True),
                _status(tool.status, tool.status_reason),
                _cell(region, large=True),
                f"<code>{escape(_image(tool))}</code>",
            ]
        )
        for region, tool in found[:MOST_TOOLS]
    ]
    yield f"<h2 id=tools>Tools{_shown(len(rows), len(found), len(tools), words)}</h2>"
    heads = ("Name", "Tool", "Type", "Status", "Region", "Image")
    yield _card("tools", _row([_cell(head, large=n in (1, 2, 4)) for n, head in enumerate(heads)]), rows, "None.")


def _requests(journal: Journal, words: list[str]) -> Iterable[str]:
    latest = journal.latest(MOST_REQUESTS)
    found = [one for one in latest if _matches(words, one["plane"], one["operation"], one["outcome"])]
    rows = [_request(one) for one in found]
    yield f"<h2 id=requests>Recent requests{_shown(len(rows), len(found), len(latest), words)}</h2>"
    heads = ("Time", "Plane", "Request", "Outcome", "-Took")
    head = [_cell(text.lstrip("-"), large=n in (1, 4), right=text[:1] == "-") for n, text in enumerate(heads)]
    yield _card("requests", _row(head), rows, "None.")


def _request(entry: dict[str, Any]) -> str:
    good = entry["outcome"] == "ok" or entry["outcome"][:1] in "12"
    return _row(
        [
            _cell(time.strftime("%H:%M:%S", time.localtime(entry["at"]))),
            _cell(entry["plane"], large=True),
            f"<code title='{escape(entry['operation'])}'>{escape(entry['operation'])}</code>",
            f"<span class={'good' if good else 'bad'} title='{escape(entry['outcome'])}'>"
            f"{escape(entry['outcome'])}</span>",
            _cell(f"{entry['seconds'] * 1000:.1f} ms", large=True, right=True),
        ]
    )


def _words_of(instance: Instance) -> Iterable[str]:
    yield from (instance.instance_id, instance.tool_name, instance.tool_id, instance.status, instance.region)
    yield from (f"{name}={value}" for name, value in instance.metadata.items())
    if instance.machine is not None:
        yield from (str(process.get("command", "")) for process in instance.machine.processes())


def _words_of_tool(region: str, tool: Tool) -> Iterable[str]:
    yield from (tool.name, tool.tool_id, tool.type, tool.status, region, _image(tool))


def _matches(words: Sequence[str], *texts: str) -> bool:
    if not words:
        return True
    whole = "\n".join(texts).lower()
    return all(word in whole for word in words)


def _image(tool: Tool) -> str:
    return (tool.custom or {}).get("Image") or ""


def _left(instance: Instance, now: float) -> str:
    if instance.status != "RUNNING" or instance.expires_at is None:
        return ""
    left = max(0, int(instance.expires_at - now))
    return f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _card(kind: str, head: str, rows: list[str], empty: str) -> str:
    if not rows:
        return f"<div class=card><div class=empty>{escape(empty)}</div></div>"
    return f"<div class='card {kind}'>{head.replace('row', 'row head', 1)}{''.join(rows)}</div>"


def _row(cells: list[str]) -> str:
    return f"<div class='row'>{''.join(cells)}</div>"


def _cell(text: str, *, large: bool = False, right: bool = False) -> str:
    """Return a cell; a `large` one is left out on narrow screens."""
    kinds = " ".join(name for name, given in (("large", large), ("num", right)) if given)
    title = f' title="{escape(text)}"' if len(text) > SHORT_ID else ""
    return f'<span class="{kinds}"{title}>{escape(text)}</span>'


def _status(status: str, why: str, *, whole: bool = False) -> str:
    kind = _KINDS.get(status, "bad")
    reason = f" ({escape(why)})" if why and (whole or kind == "bad") else ""
    return f"<span title='{escape(why or status)}'><span class={kind}>{escape(status)}</span>{reason}</span>"


def _shown(rows: int, found: int, there: int, words: list[str]) -> str:
    """Return how many of how many are shown."""
    if words:
        more = f", the first {rows:,} of them" if rows < found else ""
        return f"<small>{found:,} of {there:,}{more}</small>"
    return f"<small>{rows:,} of {there:,}</small>" if rows < there else f"<small>{there:,}</small>"


def _ahead(seconds: float) -> str:
    return f", {seconds:g} s ahead of real time" if seconds else ""


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
