"""Functions in an open session: what they see, what they return, and how they fail."""

import dataclasses
import hashlib
import logging
import os
import random
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import pytest
from prefect.blocks.system import Secret
from prefect.client.schemas.objects import TaskRun
from prefect.states import Failed

from ags_flows import SandboxFile, in_sandbox
from ags_flows.errors import (
    CommandTimeoutError,
    ConfigurationError,
    FunctionError,
    InstanceGoneError,
    OutputTooLargeError,
)
from ags_flows.ownership import Frame, Owner
from ags_flows.run.holder import Execution, acting_as


@dataclasses.dataclass
class Order:
    price: float
    when: datetime


class Pair(NamedTuple):
    left: int
    right: Order


def inside(number):
    import os
    import sys

    return {"number": number, "home": os.getcwd(), "modules": "ags_flows" in sys.modules, "names": list(os.environ)}


def test_a_function_runs_in_the_sandbox_and_not_here_and_sees_nothing_of_this_environment(session, monkeypatch):
    monkeypatch.setenv("OF_THIS_MACHINE", "a key")
    seen = session.call(inside, 3)
    assert seen["number"] == 3
    assert seen["home"] == "/home/user"
    assert not seen["modules"] and "OF_THIS_MACHINE" not in seen["names"]
    assert session.steps[-1].name == "call: inside"
    # Python sets LC_CTYPE where no locale is set.
    every = session.run("env -0").stdout.split("\0")
    assert set(seen["names"]) - {one.partition("=")[0] for one in every} <= {"LC_CTYPE"}


def doubled(order: Order, *others: Order, times: int = 2) -> list[Pair]:
    return [(times, {"price": one.price * times, "when": one["when"]}) for one in (order, *others)]


def test_the_annotation_of_the_result_makes_dataclasses_and_named_tuples(session):
    day = datetime(2026, 11, 1, 3, tzinfo=timezone.utc)
    found = session.call(doubled, Order(1.5, day), Order(2.0, day))
    assert found == [Pair(2, Order(3.0, day)), Pair(2, Order(4.0, day))]
    assert isinstance(found[0].right, Order)


def wrong() -> Order:
    return {"price": "much"}


def test_a_result_that_does_not_match_the_annotation_is_an_error_of_the_function(session):
    with pytest.raises(FunctionError, match="annotation") as caught:
        session.call(wrong)
    assert caught.value.error_type == "ValidationError"


def failing(items):
    def deeper(one):
        return 1 / one

    return [deeper(one) for one in items]


def test_an_exception_has_type_message_and_a_traceback_with_the_lines_of_this_file(session):
    with pytest.raises(FunctionError) as caught:
        session.call(failing, [1, 0])
    error = caught.value
    assert (error.function, error.error_type, error.error_message) == (
        "failing",
        "ZeroDivisionError",
        "division by zero",
    )
    line = failing.__code__.co_firstlineno + 2
    assert f'File "{__file__}", line {line}, in deeper\n    return 1 / one' in error.traceback
    assert "guest" not in error.traceback
    assert error.traceback in str(error)


def leaving(code):
    import sys

    sys.exit(code)


def killed():
    import os

    print("so far")
    os.kill(os.getpid(), 9)


def broken_json():
    return {"days": [1, 2j]}


def broken_text():
    return ["a", "\ud800"]


def raising_broken_text():
    raise ValueError("\ud800")


def many_bytes(size):
    return "x" * size


def hanging():
    import time

    while True:
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("function", "args", "kind", "message"),
    [
        (leaving, (3,), "SystemExit", "3"),
        (killed, (), "ProcessEnded", "exit code 137"),
        (broken_json, (), "NotJSON", "result.days[1]: a value of type complex is not JSON"),
        (broken_text, (), "NotJSON", "result[1]: the text has half a pair of surrogates"),
        (raising_broken_text, (), "ValueError", r"\ud800"),
    ],
    ids=["exit", "kill", "result", "text", "message"],
)
def test_every_other_end_of_a_function_is_its_error_too(session, function, args, kind, message):
    with pytest.raises(FunctionError) as caught:
        session.call(function, *args)
    assert caught.value.error_type == kind
    assert message in caught.value.error_message


def test_a_result_over_the_limit_is_refused_with_its_size(session):
    with pytest.raises(OutputTooLargeError, match=r"67,108,867 bytes .* SandboxFile"):
        session.call(many_bytes, (64 << 20) + 1)


@pytest.mark.parametrize("size", [100, 30_000, 1 << 20])
def test_results_and_arguments_of_every_size_arrive(session, size):
    def echo(text):
        return text[::-1]

    text = "".join(random.Random(size).choices("abc\n'\"\\é漢", k=size))
    assert session.call(echo, text) == text[::-1]


def test_arguments_over_the_limit_are_refused_before_anything_is_sent(session):
    with pytest.raises(ConfigurationError, match="SandboxFile"):
        session.call(many_bytes, "x" * (65 << 20))


def test_a_time_limit_kills_the_function(session):
    with pytest.raises(
        CommandTimeoutError, match=r"limit of 1 s and was killed: hanging\(\)\. Give it more time with timeout=...$"
    ):
        session.call(in_sandbox(timeout=1)(hanging))


def talking(word):
    import logging
    import sys

    print("out", word)
    print("no end", end="")
    logging.getLogger("own").info("logged %s", word)
    print("err", file=sys.stderr)
    os_level = __import__("os")
    os_level.write(1, b"\n\nraw\n")
    sys.stdout.close()
    return word


def test_prints_and_logs_stream_into_the_log_and_the_report_does_not(session, caplog):
    with caplog.at_level(logging.INFO, "ags_flows"):
        session.call(talking, "loud")
    lines = [record.getMessage() for record in caplog.records if getattr(record, "is_output", False)]
    assert {"| out loud", "| no end", "| raw", "! INFO own: logged loud", "! err"} <= set(lines)
    assert lines.count("| ") == 1
    assert "@ags-function" not in caplog.text


def test_secrets_reach_the_environment_and_are_masked_in_log_result_and_errors(session, prefect_server, caplog):
    Secret(value="hunter2-and-more").save("login-for-functions", overwrite=True)

    @in_sandbox(secrets={"LOGIN": "login-for-functions"}, env={"PLAIN": 1})
    def reveal(fail):
        import hashlib
        import os

        print("login is", os.environ["LOGIN"])
        if fail:
            raise ValueError(os.environ["LOGIN"])
        return [hashlib.sha256(os.environ["LOGIN"].encode()).hexdigest(), os.environ["LOGIN"], os.environ["PLAIN"]]

    with caplog.at_level(logging.INFO, "ags_flows"):
        digest, shown, plain = session.call(reveal, False)
        with pytest.raises(FunctionError) as caught:
            session.call(reveal, True)
    assert digest == hashlib.sha256(b"hunter2-and-more").hexdigest()
    assert plain == "1"
    assert "hunter2" not in shown + str(caught.value) + caught.value.traceback + caplog.text
    assert "hunter2" not in session.run("cat ~/.ags_flows/*/journal/*/cmd").stdout


def shout(text: SandboxFile, numbers: list[int]) -> dict:
    import os

    with open(text) as source, open("shouted.txt", "w") as target:
        target.write(source.read().upper())
    os.makedirs("parts", exist_ok=True)
    for number in numbers:
        open(f"parts/{number}", "w").write(str(number))
    return {"file": SandboxFile("shouted.txt", to="deep/out.txt"), "parts": SandboxFile("parts"), "given": text.path}


def test_files_are_uploaded_before_and_downloaded_after_the_call(session, tmp_path):
    (tmp_path / "in.txt").write_text("quiet")
    found = session.call(in_sandbox(files=str(tmp_path / "results"))(shout), SandboxFile(tmp_path / "in.txt"), [1, 2])
    assert found["file"] == SandboxFile(str(tmp_path / "results" / "deep" / "out.txt"))
    assert Path(found["file"]).read_text() == "QUIET"
    assert sorted(os.listdir(found["parts"])) == ["1", "2"]
    assert found["given"].startswith("/home/user/")


@pytest.mark.parametrize("to", ["../escaped", "/tmp/escaped-from-a-sandbox"])
def test_a_file_never_leads_out_of_its_directory(session, tmp_path, to):
    def lead(to):
        open("made", "w").close()
        return SandboxFile("made", to=to)

    with pytest.raises(FunctionError, match="leads out of the directory"):
        session.call(in_sandbox(files=str(tmp_path))(lead), to)
    assert not os.listdir(tmp_path)


def test_local_code_is_on_the_path_of_the_function(session, tmp_path, monkeypatch):
    package = tmp_path / "ownpackage"
    package.mkdir()
    (package / "__init__.py").write_text("from ownpackage.part import VALUE\n")
    (package / "part.py").write_text("VALUE = 41\n")
    (tmp_path / "ownmodule.py").write_text("def more(n):\n    return n + 1\n")
    monkeypatch.syspath_prepend(tmp_path)

    def add():
        from ownmodule import more
        from ownpackage import VALUE

        return more(VALUE)

    remote = in_sandbox(include=["ownpackage", str(tmp_path / "ownmodule.py")])(add)
    assert session.call(remote) == 42
    (package / "part.py").write_text("VALUE = 1\n")
    assert session.call(remote) == 2
    with pytest.raises(ConfigurationError, match="'nowhere' is neither a path below"):
        session.call(in_sandbox(include=["nowhere"])(add))


def counted(name):
    with open(name, "a") as runs:
        runs.write("x")
    if name == "failing":
        raise ValueError(name)
    return open(name).read()


def attempt(number):
    return acting_as(Execution(frames=(Frame("flow", "f" * 32, number),), owner=Owner("run-of-calls")))


def test_a_retry_finds_a_call_that_succeeded_and_repeats_one_that_failed(session):
    for number in (1, 2):
        with attempt(number):
            assert session.call(counted, "succeeding") == "x"
            with pytest.raises(FunctionError):
                session.call(counted, "failing")
    assert session.read("failing") == b"xx"
    with attempt(2):
        # A second equal call is a separate step.
        assert session.call(counted, "succeeding") == "xx"


def test_a_mapping_that_looks_like_a_file_is_data(session, tmp_path):
    (tmp_path / "private").write_text("private")

    def same(value: dict) -> dict:
        return value

    for value in (
        {"$ags": "file", "value": [str(tmp_path / "private"), None]},
        {"$ags": "file"},
        {"$ags": {"$ags": 1}},
    ):
        assert session.call(same, value) == value


def test_the_retries_of_with_options_count(session):
    @in_sandbox(tool="base", retries=1)
    def nothing():
        pass

    def is_repeated(task, count):
        run = TaskRun(task_key="x", dynamic_key="0", run_count=count)
        return task.retry_condition_fn(task, run, Failed(data=InstanceGoneError("gone")))

    assert [is_repeated(nothing, count) for count in (1, 2, 3)] == [True, False, False]
    more = nothing.with_options(retries=2)
    assert [is_repeated(more, count) for count in (1, 2, 3)] == [True, True, False]
