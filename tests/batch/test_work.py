"""What a batch does with unusual items and functions."""

import asyncio
import functools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from prefect import flow

from ags_flows.batch.work import Work
from ags_flows.errors import ConfigurationError
from ags_flows.flows import run_items
from ags_flows.flows.batch_progress import Observer


def test_an_item_that_is_tried_again_has_its_file_again(ags_config, tmp_path):
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "a.txt").write_text("content")
    report = run_items(
        tmp_path / "items",
        command='[ -e /tmp/seen ] || { touch /tmp/seen; exit 3; }; cat "$ITEM_FILE"',
        tool="base",
        sandboxes=1,
        retries_of_failed=1,
        results=tmp_path / "out",
        config=ags_config,
    )
    (line,) = [json.loads(line) for line in Path(report.results).read_text().splitlines()]
    assert (line["status"], line["stdout"], line["attempts"]) == ("ok", "content", 2)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({f"f{number}": "x" * 3_900 for number in range(800)}, "in its key and its simple fields"),
        ({"id": "k" * 40_000}, "in its key and its simple fields"),
        ({1: "a"}, "a field whose name is not a text"),
        ({None: "a"}, "a field whose name is not a text"),
    ],
)
def test_an_item_that_no_command_can_get_is_named_before_anything_starts(
    ags_emulator, ags_config, tmp_path, item, message
):
    before = ags_emulator.overview()["requests"]
    with pytest.raises(ConfigurationError, match=f"^items: item 1, key .*{message}"):
        run_items(["good", item], command="true", tool="base", results=tmp_path, config=ags_config)
    assert ags_emulator.overview()["requests"] == before


def test_a_command_and_a_function_together_are_refused():
    with pytest.raises(ConfigurationError, match="Give a command or a function, one of them"):
        Work.of({"command": "true", "function": "missing.module:function"})


class Unprintable(Exception):
    def __str__(self):
        raise ValueError("no text")


class Panic(BaseException):
    """As of the extensions that are written in Rust."""


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("task_runs", ["none", "items"])
@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        GeneratorExit(),
        Unprintable(),
        SystemExit(3),
        Panic("a"),
        KeyboardInterrupt(),
        MemoryError(),
    ],
)
def test_whatever_a_function_raises_is_the_failure_of_its_item(ags_config, tmp_path, error, task_runs):
    def work(sandbox, item):
        if item == "b":
            raise error
        return item

    options = {"tool": "base", "sandboxes": 1, "fail_above": 1.0, "results": tmp_path, "config": ags_config}
    batch = lambda: run_items(["a", "b", "c"], work, task_runs=task_runs, **options)  # noqa: E731
    report = batch() if task_runs == "none" else flow(batch, name="batch")()
    assert (report.succeeded, report.failed) == (2, 1)
    assert report.failures[0].error_class == type(error).__name__


def add(number, sandbox, item):
    return item + number


def adding(number, done):
    def work(sandbox, item):
        done.append(item)
        return item + number

    return work, lambda sandbox, item: done.append(item + number), lambda sandbox, item, number=number: item + number


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *zip(adding(1, []), adding(2, []), strict=True),
        (functools.partial(add, 1), functools.partial(add, 2)),
        (functools.partial(add, number=1), functools.partial(add, number=2)),
        (lambda sandbox, item: item + 1, lambda sandbox, item: item + 2),
    ],
)
def test_functions_that_do_something_else_are_other_work(one, other):
    assert Work(function=one).does == Work(function=one).does != Work(function=other).does


def test_what_a_function_collects_does_not_distinguish_its_work():
    assert [Work(function=one).does for one in adding(1, [])] == [Work(function=one).does for one in adding(1, ["a"])]


class Rate:
    def __init__(self, number):
        self.number = number


def test_partial_functions_with_other_objects_are_other_work():
    one, other = (functools.partial(add, Rate(number)) for number in (1, 2))
    assert Work(function=one).does == Work(function=functools.partial(add, Rate(1))).does != Work(function=other).does


def test_a_partial_function_whose_argument_cannot_be_compared_is_refused(ags_emulator, ags_config, tmp_path):
    function, before = functools.partial(add, threading.Lock()), ags_emulator.overview()["requests"]
    with pytest.raises(ConfigurationError, match="a partial .*:add has an argument that is not the same in each"):
        run_items(["a"], function, tool="base", results=tmp_path, config=ags_config)
    assert ags_emulator.overview()["requests"] == before


@pytest.mark.parametrize("value", [float("nan"), {"deep": [float("inf")]}])
def test_a_result_that_json_has_no_form_for_fails_its_item(ags_config, tmp_path, value):
    options = {"tool": "base", "fail_above": 1.0, "results": tmp_path, "config": ags_config}
    report = run_items(["a"], lambda sandbox, item: value, **options)
    assert "is not JSON: Out of range float values" in report.failures[0].error


def test_a_lambda_is_the_same_work_in_every_process():
    code = (
        "from ags_flows.batch.work import Work\n"
        "print(Work(function=lambda sandbox, item: item in {'north', 'south', 'east', 'west', 1, 2.5}).does)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


@pytest.mark.parametrize("depth", [300, 900, 20_000])
def test_a_result_that_is_too_deep_for_the_record_fails_its_item_alone(ags_config, tmp_path, depth):
    def work(sandbox, item):
        value = item
        for _ in range(depth if item == "deep" else 0):
            value = [value]
        return value

    options = {"tool": "base", "sandboxes": 1, "fail_above": 1.0, "results": tmp_path, "config": ags_config}
    report = run_items(["deep", "b"], work, **options)
    assert (report.succeeded, [one.key for one in report.failures]) == (1, ["deep"])
    assert run_items(["deep", "b"], work, **options).resumed == 1


@pytest.mark.parametrize("what", ["a command", "a slow command", "a function"])
def test_a_file_that_vanishes_while_the_batch_is_at_work_fails_its_item_alone(ags_config, tmp_path, monkeypatch, what):
    directory, names = tmp_path / "in", list("abcde")
    directory.mkdir()
    for name in names:
        (directory / name).write_text(name)

    def work(sandbox, item):
        (directory / "c").unlink(missing_ok=True)
        return item

    def vanish(self, done):
        (directory / "c").unlink()

    options = {"tool": "base", "sandboxes": 1, "fail_above": 1.0, "results": tmp_path / "out", "config": ags_config}
    if what == "a function":
        options["function"] = work
    else:
        options["command"] = 'cat "$ITEM_FILE"' + "; sleep 1.1" * (what == "a slow command")
        monkeypatch.setattr(Observer, "announce", vanish)
    report = run_items(directory, **options)
    assert (report.succeeded, [one.key for one in report.failures]) == (4, ["c"])
    assert str(directory / "c") in report.failures[0].error
    assert report.started == 1


class Times:
    def __init__(self, number):
        self.number = number

    def __call__(self, sandbox, item):
        return item * self.number

    def method(self, sandbox, item):
        return item * self.number


def surrounded(value, default):
    def inner(sandbox, item, default=default):
        return value, default

    return inner


@pytest.mark.parametrize(
    "made",
    [
        lambda number: Times(number),
        lambda number: Times([number]),
        lambda number: Times(number).method,
        lambda number: functools.partial(Times.method, Times(number)),
        lambda number: surrounded((number, "a"), None),
        lambda number: surrounded(None, frozenset({number})),
    ],
    ids=["object", "object with a list", "bound method", "partial method", "closure", "default"],
)
def test_what_a_callable_holds_is_a_part_of_its_work(made):
    assert Work(function=made(1)).does == Work(function=made(1)).does != Work(function=made(2)).does


@pytest.mark.parametrize("function", [Times(threading.Lock()), Times(threading.Lock()).method])
def test_an_object_that_cannot_be_compared_is_refused_by_its_class(function):
    with pytest.raises(ConfigurationError, match="an object of the class .*:Times has a value that is not the same"):
        _ = Work(function=function).does


@pytest.mark.parametrize(
    "made",
    [
        lambda number: {"function": functools.partial(add, number)},
        lambda number: {"command": f"{'true; ' * 30}true {number}"},
    ],
    ids=["function", "command"],
)
def test_a_location_of_other_work_that_is_described_alike_is_refused_with_the_difference(ags_config, tmp_path, made):
    options = {"tool": "base", "sandboxes": 1, "results": tmp_path, "config": ags_config}
    run_items([1], **made(1), **options)
    with pytest.raises(ConfigurationError, match=r"There: (.*) for 1 item\. Here: \1 for 1 item, with other arg"):
        run_items([1], **made(2), **options)
