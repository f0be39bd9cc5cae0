"""The command `ags-flows verify`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ags_flows.blocks import AGSConfig
from ags_flows.errors import CredentialsError
from ags_flows.verify.account import TIMEOUT, Account
from ags_flows.verify.check import Check, Result
from ags_flows.verify.groups import creates
from ags_flows.verify.profile import Profile
from ags_flows.verify.runner import checks_of, run_checks

_MARKS = {
    "as expected": "[green]✓[/]",
    "different": "[yellow]≠[/]",
    "not available here": "[dim]–[/]",
    "failed": "[red]✗[/]",
}

MOST_AT_ONCE = 3
"""Instances that run at the same time."""

_WIDEST = 10_000


@dataclass(frozen=True)
class Options:
    """What the user asks for.

    Attributes:
        only: Groups; all when empty.
        quick: Leave out what waits for half a minute or more.
        keep: Keep tools and instances for inspection; instances end with their timeouts.
        as_json: One JSON document instead of a table.
        record: Where to write a profile.
        against: A profile to compare with.
    """

    only: Sequence[str] = ()
    quick: bool = False
    keep: bool = False
    as_json: bool = False
    record: Path | None = None
    against: Path | None = None


def announcement(config: AGSConfig, only: Sequence[str] = (), *, keep: bool = False) -> str:
    """Return what a run will create, for the user to agree to.

    Args:
        config: Where AGS is.
        only: Groups; all when empty.
        keep: Whether nothing is deleted at the end.
    """
    connection = config.connection()
    account = f"This checks the account at {connection.control_url}, region {connection.region}."
    tools, instances = creates(only)
    if not tools:
        return f"{account} It creates nothing."
    started = f" and {_count(instances, 'instance')} of the smallest size" if instances else ""
    started += f", up to {MOST_AT_ONCE} at a time" if instances > MOST_AT_ONCE else ""
    ends = f" An instance ends after {TIMEOUT} at the latest." if instances else ""
    deleted = ". --keep: it deletes nothing, and the next run does" if keep else ", and deletes all of it when it ends"
    return f"{account} It creates up to {_count(tools, 'tool')} of type code-interpreter{started}{deleted}.{ends}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def verify(config: AGSConfig, options: Options, agree: Callable[[], object] = lambda: None) -> int:
    """Run the checks, show them, clean up.

    Args:
        config: Where AGS is.
        options: What the user asks for.
        agree: Called once the options are found right, before anything is created; it may raise to end the run.

    Returns:
        0 when all is as expected (or not available), or as it is in the profile to compare with; 2 when the account
        refuses the keys; else 1.

    Raises:
        ConfigurationError: An option is wrong; nothing was created.
        CredentialsError: There are no keys.
    """
    checks = checks_of(options.only, quick=options.quick)
    before = Profile.load(options.against) if options.against else None
    if options.record:
        Profile.check_writable(options.record)
    config.connection().require_keys()
    agree()
    account = Account(config)
    console = Console(stderr=options.as_json)
    if not console.is_terminal:
        # A line of a file or a pipe is not broken.
        console.width = _WIDEST
    results: list[Result] = []
    with _cleaned_up(account, keep=options.keep):
        swept, refused = 0, False
        try:
            swept = account.sweep()
        except CredentialsError:
            # The checks of the keys have more to report than this.
            refused = True
        if swept:
            console.print(f"Deleted {_count(swept, 'tool')} that an earlier run left behind.", highlight=False)
        with _shown(console, len(checks)) as (starts, shows):
            for result in run_checks(account, checks, starts):
                results.append(result)
                shows(result)
    profile = Profile.of(account, results)
    if options.record:
        profile.save(options.record)
    differences = profile.differences(before, results) if before else []
    _report(console, options, results, profile, differences)
    known = before.checks if before else {}
    bad = any(one.status in ("different", "failed") and known.get(one.key) != one.status for one in results)
    return 2 if refused else 1 if bad or differences else 0


@contextmanager
def _cleaned_up(account: Account, *, keep: bool) -> Iterator[None]:
    """Delete at the end what was created; print what could not be deleted, and that the run was interrupted."""
    errors = Console(stderr=True)
    outcome = ""
    try:
        yield
    except KeyboardInterrupt:
        outcome = "Interrupted. What this run created was " + ("kept." if keep else "deleted.")
        raise
    finally:
        for left in [] if keep else account.close():
            errors.print(f"Not deleted: {left}", style="red", highlight=False, markup=False)
            outcome = outcome and "Interrupted. The rest of what this run created was deleted."
        if outcome:
            errors.print(outcome, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _shown(console: Console, count: int) -> Iterator[tuple[Callable[[Check], None], Callable[[Result], None]]]:
    """Show progress, and each result as a line below its group."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    group = ""
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=count)

        def starts(check: Check) -> None:
            progress.update(task, description=f"{check.group}: {check.sentence}")

        def shows(result: Result) -> None:
            nonlocal group
            if result.group != group:
                group = result.group
                progress.console.print(f"\n[bold]{group}[/]")
            seen = f": {escape(result.seen)}" if result.seen else ""
            seen = f"[dim]{seen}[/]" if result.status == "as expected" else seen
            text = f"{escape(result.check)}{seen} [dim]({result.seconds:.1f}s)[/]"
            progress.console.print(_line(_MARKS[result.status], text))
            progress.advance(task)

        yield starts, shows


def _line(mark: str, text: str) -> Table:
    """Return a line that is broken between words only, at the width of the console."""
    row = Table.grid(padding=(0, 1))
    row.add_column(width=1)
    row.add_column(overflow="fold")
    row.add_row(mark, text)
    return row


def _report(
    console: Console,
    options: Options,
    results: Sequence[Result],
    profile: Profile,
    differences: Sequence[dict[str, object]],
) -> None:
    counts: Counter[str] = Counter(result.status for result in results)
    if options.as_json:
        document = {
            "region": profile.region,
            "counts": counts,
            "checks": [result.row() for result in results],
            "answers": profile.answers,
            "codes": profile.codes,
            "differences": list(differences),
        }
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return
    if differences:
        console.print(f"\n[bold]Different from {escape(str(options.against))}[/]", highlight=False)
        for row in differences:
            what, now, recorded = (escape(str(row[name])) for name in ("what", "now", "recorded"))
            console.print(_line(_MARKS["different"], f"{what}: {now}, recorded was {recorded}"))
    elif options.against:
        console.print(f"\nNothing differs from {options.against}.", highlight=False, markup=False)
    seconds = sum(result.seconds for result in results)
    told = ", ".join(f"{counts[status]} {status}" for status in _MARKS if counts[status])
    console.print(f"\n{told}; {seconds:.0f} s", highlight=False)
    if options.record:
        console.print(f"The profile is in {options.record}.", highlight=False, markup=False)
