"""The status page: tools, instances, processes, recent requests; it refreshes itself and needs nothing else."""

from __future__ import annotations

import time
from html import escape
from typing import Any

from ..journal import Journal
from ..world.instance import Instance
from ..world.world import World

_SECONDS = 3

_STYLE = """
:root { color-scheme: light dark; --line: #d5d9de; --soft: #65707c; --back: #f6f7f9; --card: #fff;
  --good: #14713c; --wait: #8a5a00; --bad: #b3261e; --rest: #4b5563; }
@media (prefers-color-scheme: dark) { :root { --line: #333b45; --soft: #9aa5b1; --back: #14181d;
  --card: #1c2128; --good: #4cc38a; --wait: #e2a336; --bad: #ff8a80; --rest: #a3adb8; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 22px; margin: 0; } h2 { font-size: 16px; margin: 32px 0 8px; }
p { margin: 4px 0; color: var(--soft); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 7px 12px; border-bottom: 1px solid var(--line); white-space: nowrap;
  vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th { font-weight: 600; font-size: 13px; color: var(--soft); }
td.wide { white-space: normal; overflow-wrap: anywhere; min-width: 180px; }
code { font: 13px/1.5 ui-monospace, monospace; }
.num { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: var(--good); } .wait { color: var(--wait); } .bad { color: var(--bad); } .rest { color: var(--rest); }
.empty { padding: 14px 12px; color: var(--soft); }
"""

# The page fetches itself and swaps its content, so that scroll position and selection survive; without scripts the
# browser reloads it.
_SCRIPT = """
async function refresh() {
  try {
    const answer = await fetch("/", { cache: "no-store" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (String(getSelection()) === "") document.querySelector("main").replaceWith(page.querySelector("main"));
    document.title = page.title;
  } catch { document.title = "AGS emulator (not reachable)"; }
}
setInterval(refresh, %d);
"""

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


def page(world: World, journal: Journal) -> str:
    """Return the page as HTML."""
    instances = list(world.all_instances())
    live = [each for each in instances if not each.ended]
    tools = [(name, tool) for name, region in world.regions.items() for tool in region.tools]
    advanced = f", {world.clock.offset:g} s ahead of real time" if world.clock.offset else ""
    sections = [
        f"<h1>AGS emulator</h1><p>{_count(len(tools), 'tool')}, {_count(len(live), 'live instance')}, "
        f"{_count(journal.count, 'request')} so far{advanced}. This page refreshes itself.</p>",
        "<h2>Instances</h2>",
        _table(
            ("Instance", "Tool", "Status", "Region", "Ends in", "Metadata"),
            [_instance_row(each, world.clock.now()) for each in instances[:200]],
            "No instances. Start one with StartSandboxInstance or Sandbox.create().",
        ),
        "<h2>Processes</h2>",
        _table(
            ("Instance", "Pid", "Command"),
            [row for each in live for row in _process_rows(each)][:200],
            "No processes that clients have started.",
        ),
        "<h2>Tools</h2>",
        _table(
            ("Name", "Tool", "Type", "Status", "Region", "Image"),
            [
                (
                    escape(tool.name),
                    f"<code>{escape(tool.tool_id)}</code>",
                    escape(tool.type),
                    _status(tool.status, tool.status_reason),
                    escape(region),
                    f"<code>{escape((tool.custom or {}).get('Image') or '')}</code>",
                )
                for region, tool in tools[:200]
            ],
            "No tools.",
        ),
        "<h2>Recent requests</h2>",
        _table(
            ("Time", "Plane", "Request", "Outcome", "Took"),
            [_request_row(entry) for entry in journal.latest(60)],
            "No requests yet.",
        ),
    ]
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>AGS emulator</title>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<noscript><meta http-equiv=refresh content={_SECONDS}></noscript>"
        f"<link rel=icon href='data:,'><style>{_STYLE}</style></head><body><main>{''.join(sections)}</main>"
        f"<script>{_SCRIPT % (_SECONDS * 1000)}</script></body></html>"
    )


def _instance_row(instance: Instance, now: float) -> tuple[str, ...]:
    ends = ""
    if instance.status == "RUNNING" and instance.expires_at is not None:
        left = max(0, int(instance.expires_at - now))
        ends = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
    why = instance.status_reason or (instance.stop_reason or "")
    metadata = ", ".join(f"{name}={value}" for name, value in instance.metadata.items())
    return (
        f"<code>{escape(instance.instance_id)}</code>",
        escape(instance.tool_name),
        _status(instance.status, why),
        escape(instance.region),
        ends,
        _Wide(escape(metadata[:300])),
    )


def _process_rows(instance: Instance) -> list[tuple[str, ...]]:
    if instance.machine is None:
        return []
    return [
        (
            f"<code>{escape(instance.instance_id[:12])}</code>",
            _Number(str(process.get("pid", ""))),
            _Wide(f"<code>{escape(str(process.get('command', ''))[:300])}</code>"),
        )
        for process in instance.machine.processes()
    ]


def _request_row(entry: dict[str, Any]) -> tuple[str, ...]:
    good = entry["outcome"] == "ok" or entry["outcome"][:1] in "12"
    return (
        time.strftime("%H:%M:%S", time.localtime(entry["at"])),
        escape(entry["plane"]),
        _Wide(f"<code>{escape(entry['operation'])}</code>"),
        f"<span class={'good' if good else 'bad'}>{escape(entry['outcome'])}</span>",
        _Number(f"{entry['seconds'] * 1000:.1f} ms"),
    )


class _Wide(str):
    """A cell that may be broken into lines."""


class _Number(str):
    """A cell that is aligned to the right."""


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]], empty: str) -> str:
    if not rows:
        return f"<div class=scroll><div class=empty>{escape(empty)}</div></div>"
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    kinds = (" class=num" if isinstance(cell, _Number) else "" for cell in rows[0])
    head = "".join(f"<th scope=col{kind}>{escape(each)}</th>" for each, kind in zip(heads, kinds, strict=True))
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _cell(content: str) -> str:
    kind = " class=wide" if isinstance(content, _Wide) else " class=num" if isinstance(content, _Number) else ""
    return f"<td{kind}>{content}</td>"


def _status(status: str, why: str) -> str:
    kind = _KINDS.get(status, "bad")
    reason = f" <span title='{escape(why)}'>({escape(why[:80])})</span>" if why else ""
    return f"<span class={kind}>{escape(status)}</span>{reason}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
