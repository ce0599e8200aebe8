"""Tables on a terminal: wide enough, and too narrow."""

import contextlib
import io
import os

import pytest

from fedpkg.cli import output

SESSION = "digits-20250102-030405-abcdef"
END = "-- end --"


def on_a_terminal(columns, rows):
    """What a table sends to a terminal."""
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal, contextlib.redirect_stdout(terminal):
        output.table(columns, rows)
        print(END)
        terminal.flush()
        shown = b""
        while END.encode() not in shown:  # a terminal hands over its text in pieces
            shown += os.read(ours, 1 << 16)
    os.close(ours)
    return shown.decode().partition(END)[0]


@pytest.mark.parametrize("width", [20, 79, 80, 200])
def test_no_id_and_no_number_is_ever_broken(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm-256color")
    row = [SESSION, "0.123456789", "a/path/that/is/long/" + 30 * "x"]
    shown = on_a_terminal(["session", "loss", "package"], [row, ["é", "1", "p"]])
    assert all(cell in shown for cell in row)
    assert len(shown.splitlines()) == 3, "the terminal wraps what is too long, and a copy of it has no line ends"


def test_where_there_is_room_the_heading_is_bold(monkeypatch):
    monkeypatch.setenv("COLUMNS", str(len(SESSION) + 2 + len("rounds")))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = on_a_terminal(["session", "rounds"], [[SESSION, "2/2"]])
    assert shown.startswith("\x1b[1msession")
    assert SESSION in shown


def test_names_of_columns_and_cells_are_neither_markup_nor_escape_sequences(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    columns = ["[red]loss[/red]", "b\x1b[2J\u202e"]
    for shown in (on_a_terminal(columns, [["[bold]x", "y\nz\x9b"]]), plain(columns, [["[bold]x", "y\nz\x9b"]])):
        heading, row = shown.splitlines()
        assert heading.split() == ["[red]loss[/red]", r"b\x1b[2J\u202e"]
        assert row.split() == ["[bold]x", r"y\nz\x9b"]


def plain(columns, rows):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        output.table(columns, rows)
    return out.getvalue()
