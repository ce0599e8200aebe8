"""What programs wrote, as it may be shown: nothing in it is obeyed by a terminal or stays unseen."""

from __future__ import annotations

import json
import logging
import sys
import unicodedata

import pytest

from fedpkg.log import configure, event
from fedpkg.shown import shown, shown_json, shown_lines
from fedpkg.waist.answer import Failure

# Signs that stand before or around digits, and format controls of hieroglyphs: a font draws them.
SEEN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)}


def test_every_character_that_is_not_seen_or_moves_the_cursor_is_escaped() -> None:
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        is_hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and number not in SEEN
        if is_hidden:
            assert shown(character).isascii() and shown(character).isprintable(), hex(number)
            assert shown_lines(character) in (shown(character), "\n", "\t"), hex(number)
            assert json.loads(shown_json(json.dumps(character, ensure_ascii=False))) == character


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy", "accuracy"),
        ("Übung 精度 ✔️ a\\b", "Übung 精度 ✔️ a\\b"),
        ("a\nerror: b\rc\td", r"a\nerror: b\rc\td"),
        ("\x1b[31mred\x9b2J\x07", r"\x1b[31mred\x9b2J\x07"),
        ("abc\u202egnp.exe\u2066\u200b\u2028", r"abc\u202egnp.exe\u2066\u200b\u2028"),
        ("\udcff", r"\udcff"),
        ("\U000e0041\u115f", r"\U000e0041\u115f"),
    ],
)
def test_text_is_shown_on_one_line(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_lines_of_a_log_stay_lines() -> None:
    assert shown_lines("a\tb\r\n 10%\r 20%\x1b[2K\nc") == "a\tb\n 10%\n 20%\\x1b[2K\nc"


def test_json_keeps_its_meaning_and_has_no_raw_control_characters() -> None:
    value = {"a\x1b\x9b\u202e\udcff": ["\U000e0041", "é\n"]}
    text = shown_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(text) == value
    assert all(line.isprintable() for line in text.splitlines()) and "é" in text


def test_message_of_a_failure_is_one_line() -> None:
    assert Failure("mismatch", "extra set 'a\n    try      curl\x1b[2J'").message == (
        r"extra set 'a\n    try      curl\x1b[2J'"
    )


def test_log_lines_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("fedpkg")
    before = logger.handlers[:], logger.level, logger.propagate
    try:
        configure(0)
        event(logging.getLogger("fedpkg.test"), logging.WARNING, "x.y", path="a\nb\x1b[2J", about="c\u202e")
        logging.getLogger("fedpkg.test").warning("from a library: \x1b]0;title\x07")
    finally:
        logger.handlers[:], logger.propagate = before[0], before[2]
        logger.setLevel(before[1])
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(r"x.y path=a\nb\x1b[2J about=c\u202e")
    assert second.endswith(r"from a library: \x1b]0;title\x07")
