"""Which messages of a kernel belong to an execution, and when it is over."""

import asyncio

import pytest

from ags_flows.emulator.code_interpreter import execution
from ags_flows.emulator.code_interpreter.execution import Execution

MARK = "\x1emark\x1e"


def stream(text):
    return "stream", {"name": "stdout", "text": text}


def taken(messages, mark=None):
    """Return the messages that an execution passes on, until its end or for one second."""

    async def take():
        one = Execution("", mark=mark)
        for kind, content in messages:
            one.take(kind, content)
        got = []
        while True:
            message = await asyncio.wait_for(one.messages.get(), 1)
            if message is None:
                return got
            got.append(message)

    return asyncio.run(take())


IDLE = "status", {"execution_state": "idle"}
REPLY = "execute_reply", {"status": "ok"}


def test_it_is_over_when_the_kernel_is_idle():
    assert taken([stream("a"), IDLE, stream("late")]) == [stream("a")]


def test_a_kernel_that_is_busy_does_not_execute_the_code_yet():
    """Python's kernel is busy before an interrupt has an effect."""

    async def begin():
        one = Execution("")
        one.take("status", {"execution_state": "busy"})
        before = one.began.is_set()
        one.take("execute_input", {"execution_count": 1})
        return before, one.began.is_set()

    assert asyncio.run(begin()) == (False, True)


def test_an_execution_ends_after_a_silence_if_the_kernel_replies_and_is_never_idle(monkeypatch):
    monkeypatch.setattr(execution, "QUIET", 0.05)
    assert taken([REPLY, stream("a")]) == [stream("a")]


@pytest.mark.parametrize("before", ["", "a", "a\n"])
def test_with_a_mark_output_after_the_idle_kernel_belongs_to_it(before):
    expected = [stream("x"), *([stream(before)] if before else [])]
    assert taken([IDLE, REPLY, stream("x"), stream(f"{before}{MARK}\n"), stream("next")], MARK) == expected


def test_a_mark_that_never_comes_ends_it_after_a_silence(monkeypatch):
    monkeypatch.setattr(execution, "QUIET", 0.05)

    async def take():
        one = Execution("", mark=MARK)
        one.take(*stream("a"))
        one.answered()
        return [await asyncio.wait_for(one.messages.get(), 1) for _ in range(2)]

    assert asyncio.run(take()) == [stream("a"), None]
