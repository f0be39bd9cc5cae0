import asyncio

from hypothesis import given
from hypothesis import strategies as st

from ags_flows.emulator.code_interpreter.backlog import LONGEST_TEXT, Backlog

MESSAGES = st.one_of(
    st.text(max_size=300).map(lambda text: ("stream", {"name": "stdout", "text": text})),
    st.text(max_size=300).map(lambda text: ("execute_result", {"data": {"text/plain": text}})),
)


def drained(backlog):
    found = []
    while not backlog.empty():
        found.append(backlog.get_nowait())
    return found


@given(st.lists(MESSAGES, max_size=60))
def test_what_fits_comes_out_as_it_went_in(messages):
    backlog = Backlog()
    for message in messages:
        backlog.put_nowait(message)
    assert drained(backlog) == messages


@given(st.lists(MESSAGES, max_size=60))
def test_the_middle_of_too_much_output_is_dropped_and_nothing_else(messages):
    backlog = Backlog(4000)
    for message in [*messages, None]:
        backlog.put_nowait(message)
    found = drained(backlog)
    assert found[-1] is None
    kept = [message for message in found[:-1] if message in messages]
    assert [one for one in kept if one[0] != "stream"] == [one for one in messages if one[0] != "stream"]
    streams = [one for one in found[:-1] if one[0] == "stream"]
    assert sum(256 + len(one[1]["text"]) for one in streams) < 5000


def test_long_text_becomes_several_messages():
    backlog = Backlog()
    backlog.put_nowait(("stream", {"name": "stderr", "text": "x" * (LONGEST_TEXT + 1)}))
    assert [len(content["text"]) for _, content in drained(backlog)] == [LONGEST_TEXT, 1]


def test_a_reader_waits_for_a_message():
    async def read():
        backlog = Backlog()
        asyncio.get_running_loop().call_later(0.01, backlog.put_nowait, None)
        return await backlog.get()

    assert asyncio.run(read()) is None
