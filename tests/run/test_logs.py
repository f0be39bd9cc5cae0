import logging

from ags_flows.run.logs import BURST, LINES_PER_SECOND, LONGEST_LINE, OutputLog
from ags_flows.run.redaction import Redactor


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def lines_of(caplog):
    return [record.getMessage() for record in caplog.records]


def make(caplog, secrets=()):
    caplog.set_level(logging.INFO)
    clock = Clock()
    return OutputLog(logging.getLogger("test"), Redactor(secrets), clock), clock


def test_lines_of_both_streams_are_told_apart(caplog):
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
    assert len(caplog.records) == BURST
    clock.now = 1.0
    log("stdout", "later")
    assert lines_of(caplog)[-2:] == ["... 500 lines left out of the log", "| later"]
    for number in range(LINES_PER_SECOND + 7):
        log("stdout", str(number))
    log.close()
    assert lines_of(caplog)[-1] == "... 8 lines left out of the log"


def test_a_very_long_line_is_cut_and_its_length_is_told(caplog):
    log, _ = make(caplog)
    log("stdout", "x" * (LONGEST_LINE + 1))
    assert lines_of(caplog)[0].endswith("... (4,001 characters)")


def test_secrets_are_masked(caplog):
    log, _ = make(caplog, ["hunter2-hunter2"])
    log("stdout", "password is hunter2-hunter2.")
    assert "hunter2" not in caplog.text
