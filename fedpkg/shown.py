"""Escapes control characters and invisible characters in text from packages, clients and archives."""

from __future__ import annotations

import json
import re

# Control characters (Cc), line and paragraph separators (Zl, Zp), lone surrogates (Cs), and Unicode's default ignorable
# ones: bidirectional marks, joiners, tags and fillers. Variation selectors (FE00 to FE0F) belong to emoji.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_LINE_END = re.compile("\r\n?")


def shown(text: str) -> str:
    """Text for one line, with control characters and invisible characters as escapes (``\\x1b``)."""
    return text if text.isascii() and text.isprintable() else _HIDDEN.sub(_escape, text)


def shown_lines(text: str) -> str:
    """`shown` for text of several lines: keeps line ends and tabs. A lone carriage return becomes a line end."""
    return _HIDDEN.sub(_escape_in_lines, _LINE_END.sub("\n", text))


def shown_json(document: str) -> str:
    """An equivalent JSON document, with such characters as JSON's own escapes."""
    return _HIDDEN.sub(_escape_in_json, document)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _escape_in_lines(found: re.Match[str]) -> str:
    return found[0] if found[0] in "\n\t" else _escape(found)


def _escape_in_json(found: re.Match[str]) -> str:
    return found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1]
