"""Rows on a terminal, on a pipe and as JSON."""

import pytest

from ags_flows.cli.listing import Column, show

COLUMNS = (Column("check", whole=True), Column("finding", folded=True), Column("remedy", "what to do", folded=True))


@pytest.mark.parametrize("remedy", ["", "restart the server " * 4], ids=["none", "one"])
def test_a_terminal_leaves_out_a_column_without_values(remedy, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    rows = [{"check": "server", "finding": "here " * 30, "remedy": remedy}, {"check": "keys", "finding": "there"}]
    show(rows, COLUMNS)
    assert capsys.readouterr().out.splitlines()[0] == "check\tfinding\tremedy"
    monkeypatch.setenv("FORCE_COLOR", "1")
    show(rows, COLUMNS)
    shown = capsys.readouterr().out
    assert ("what" in shown) == bool(remedy) and "server" in shown
