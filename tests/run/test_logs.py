import logging
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ags_flows.cloud import lines
from ags_flows.run.logs import BURST, LINES_PER_SECOND, LONGEST_LINE, OutputLog, copied_output
from ags_flows.run.redaction import MASK, Redactor

SECRET = "hunter2-very-secret"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def lines_of(caplog):
    # Threads of other tests may log as well.
    return [record.getMessage() for record in caplog.records if record.name == "test"]


def make(caplog, secrets=()):
    caplog.set_level(logging.INFO)
    clock = Clock()
    return OutputLog(logging.getLogger("test"), Redactor(secrets), clock), clock


def test_lines_of_both_streams_are_distinguished(caplog):
    log, _ = make(caplog)
    log("stdout", "fine")
    log("stderr", "oh no")
    assert lines_of(caplog) == ["| fine", "! oh no"]


def test_pieces_become_lines_wherever_they_are_cut(caplog):
    log, _ = make(caplog)
    read = log.reader("stdout")
    for piece in ("one\ntw", "o\nthr", "ee"):
        read(piece)
    log.close()
    assert lines_of(caplog) == ["| one", "| two", "| three"]


def test_a_flood_is_left_out_and_counted(caplog):
    log, clock = make(caplog)
    for number in range(BURST + 500):
        log("stdout", str(number))
    assert len(lines_of(caplog)) == BURST
    clock.now = 1.0
    log("stdout", "later")
    assert lines_of(caplog)[-2:] == ["... 500 lines left out of the log", "| later"]
    for number in range(LINES_PER_SECOND + 7):
        log("stdout", str(number))
    log.close()
    assert lines_of(caplog)[-1] == "... 8 lines left out of the log"


def test_a_very_long_line_is_cut_and_its_length_is_logged(caplog):
    log, _ = make(caplog)
    log("stdout", "x" * (LONGEST_LINE + 1))
    assert lines_of(caplog)[0].endswith("... (4,001 characters)")


def test_secrets_are_masked(caplog):
    log, _ = make(caplog, ["hunter2-hunter2"])
    log("stdout", "password is hunter2-hunter2.")
    assert "hunter2" not in caplog.text


def test_a_secret_is_masked_before_its_line_is_cut(caplog):
    log, _ = make(caplog, [SECRET])
    for before in range(LONGEST_LINE - len(SECRET) - 1, LONGEST_LINE + 1):
        log("stdout", "x" * before + SECRET + "y" * 100)
    assert "hun" not in caplog.text and "secret" not in caplog.text


@pytest.mark.parametrize("before", [lines.LONGEST_LINE - 1, lines.LONGEST_LINE - 9, lines.LONGEST_LINE - 18])
def test_a_secret_in_a_line_of_any_length_is_masked_in_log_and_copy(caplog, before):
    text = "x" * before + SECRET + "y" * 200_000 + f"\n{SECRET}\nend"
    copied = []
    with copied_output(lambda stream, text: copied.append(text)):
        log, _ = make(caplog, [SECRET])
        log.reader("stdout")(text)
        log.close()
    assert "".join(copied) == text.replace(SECRET, MASK) + "\n"
    first, *others = lines_of(caplog)
    assert others == [f"| {MASK}", "| end"]
    assert first.startswith("| xxxx") and first.endswith(f"x... ({before + len(SECRET) + 200_000:,} characters)")


def test_a_long_line_without_end_is_logged_at_the_end(caplog):
    log, _ = make(caplog)
    log.reader("stderr")("x" * (2 * lines.LONGEST_LINE))
    assert lines_of(caplog) == []
    log.close()
    assert lines_of(caplog) == [f"! {'x' * LONGEST_LINE}... (131,072 characters)"]


def bar(log, clock, states, seconds, end):
    read = log.reader("stderr")
    for state in states:
        read(f"\r{state}")
        clock.now += seconds
    read(end)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_progress_bar_is_logged_every_few_seconds_and_in_its_final_state(caplog, end):
    log, clock = make(caplog)
    bar(log, clock, [f"{number}%" for number in range(101)], 0.1, end)
    log("stderr", "done")
    assert lines_of(caplog) == ["! 0%", "! 51%", "! 100%", "! done"]


def test_a_progress_bar_that_is_cut_off_is_logged_in_its_last_state(caplog):
    log, clock = make(caplog)
    bar(log, clock, ["1%", "2%", "3%"], 0.1, "\r")
    log.close()
    assert lines_of(caplog) == ["! 1%", "! 3%"]


def test_a_final_state_that_is_logged_already_is_not_logged_again(caplog):
    log, clock = make(caplog)
    for line in ("50%\r", "", "60%\r", "60%", "", "text"):
        log("stdout", line)
        clock.now += 10
    assert lines_of(caplog) == ["| 50%", "| 60%", "| ", "| text"]


def test_a_terminal_gets_carriage_returns_and_masked_states(caplog):
    copied = []
    with copied_output(lambda stream, text: copied.append(text)):
        log, _ = make(caplog, [SECRET])
        log.reader("stdout")(f"{SECRET} 1%\r{SECRET} 2%\ndone\n")
    assert "".join(copied) == f"{MASK} 1%\r{MASK} 2%\ndone\n"
    assert SECRET not in caplog.text


@given(st.lists(st.sampled_from([SECRET, "x", "\n", "\r", "密", "ab " * 50]), max_size=40), st.integers(1, 99))
def test_the_copy_is_the_whole_masked_output_however_it_is_cut(words, size):
    text = "".join(words)
    copied = []
    with pytest.MonkeyPatch.context() as patch, copied_output(lambda stream, text: copied.append(text)):
        patch.setattr(lines, "LONGEST_LINE", 64)
        log = OutputLog(logging.getLogger("silent"), Redactor([SECRET]))
        read = log.reader("stdout")
        for at in range(0, len(text), size):
            read(text[at : at + size])
        log.close()
    expected = text.replace(SECRET, MASK)
    shown = "".join(copied)
    assert shown.removesuffix("\n").replace("\r", "") == expected.removesuffix("\n").replace("\r", "")


@pytest.mark.parametrize("length", [30, 60, 300])
def test_the_lines_of_quoted_printable_are_masked(caplog, length):
    secret = "".join(chr(65 + number * number * 7 % 26) for number in range(length))
    log, _ = make(caplog, [secret])
    for line in quopri.encodestring(f"{'.' * 50}{secret}....".encode()).decode().split("\n"):
        log("stdout", line)
    shown = "".join(line.removeprefix("| ").removesuffix("=") for line in lines_of(caplog))
    assert not {secret[at : at + 4] for at in range(length - 3)} & {shown[at : at + 4] for at in range(len(shown))}
