"""What commands print: lines that survive a closed pipe, tables, JSON, and numbers as people read them."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from fedpkg.shown import shown, shown_json, shown_lines

_NUMBER = re.compile(r"[-+]?[0-9][0-9.,]*(e[-+]?[0-9]+)?( ?[a-zA-Z%]{1,2})?|nan|-?inf|-")


def result(text: str = "") -> None:
    """A line on standard output (or several): what was asked for."""
    _write(sys.stdout, shown_lines(text))


def words(text: str = "") -> None:
    """A line on standard error (or several): what is said about it."""
    try:
        _write(sys.stderr, shown_lines(text))
    except OSError:  # a full disk: there is no other place to say so
        silence(sys.stderr)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except BrokenPipeError:  # `| head` has seen enough
        silence(stream)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


def silence(stream: TextIO) -> None:
    """Let everything that is still to come, also what is buffered, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)


def document(value: Any) -> None:
    """One JSON document on standard output."""
    _write(sys.stdout, shown_json(json.dumps(_plain(value), indent=2, ensure_ascii=False, default=str)))


def event_line(**values: Any) -> None:
    """One JSON object on one line of standard output."""
    _write(sys.stdout, shown_json(json.dumps(_plain(values), ensure_ascii=False, default=str)))


def _plain(value: Any) -> Any:
    """JSON has no NaN: null stands for what is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows under headings on standard output, the headings bold on a terminal.

    No cell is ever broken: what is too wide, the terminal itself wraps, and an id can still be copied whole.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    columns = [shown(name) for name in columns]
    rows = [[shown(cell) for cell in row] for row in rows]
    numeric = [bool(rows) and all(_NUMBER.fullmatch(row[i]) or not row[i] for row in rows) for i in range(len(columns))]
    widths = [max(cell_len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    for n, row in enumerate([columns, *rows]):
        spaces = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [gap + cell if right else cell + gap for cell, gap, right in zip(row, spaces, numeric, strict=True)]
        line = "  ".join(cells).rstrip()
        if n == 0 and sys.stdout.isatty():
            Console().print(Text(line, style="bold"), soft_wrap=True)
        else:
            result(line)


def explained(name: str, allowed: str, default: str | None, about: str, *, indent: str = "") -> None:
    """A setting, its values and default (None: it is required); below, its explanation, wrapped to the terminal."""
    width = min(shutil.get_terminal_size().columns, 100)
    result(f"{indent}{name}: {allowed}; {'required' if default is None else f'default {default}'}")
    if about:
        result(textwrap.fill(about, width, initial_indent=f"{indent}    ", subsequent_indent=f"{indent}    "))


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one pair a line."""
    pairs = [(shown(name), value) for name, value in pairs]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        result(f"{name.ljust(width)}  {shown(value)}".rstrip())


def suggestions(pairs: Sequence[tuple[str, str]]) -> None:
    """Commands to run next, and what each does."""
    width = min(70, max(len(command) for command, _ in pairs))
    for command, purpose in pairs:
        result(f"  {command.ljust(width)}  # {purpose}")


def number(value: object) -> str:
    """A number for a table: whole ones as they are, others with three decimals or four digits."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else f"{str(value)[:4]}… ({len(str(value))} digits)"
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.3f}" if 0.001 <= abs(value) < 1000 else f"{value:.4g}"


def measures(values: Sequence[object], *, decimals: bool = False) -> list[str]:
    """A column of metrics: 1 becomes 1.000 where others have decimals, or with ``decimals``."""
    numbers = [value for value in values if isinstance(value, float) and math.isfinite(value)]
    if not decimals and all(value.is_integer() for value in numbers):
        return [number(value) for value in values]
    return [f"{v:.3f}" if isinstance(v, float) and v.is_integer() and abs(v) < 1000 else number(v) for v in values]


def seconds(value: float | None) -> str:
    """``0.4 s``, ``12.3 s``, ``4:05`` (minutes and seconds), ``2:00:05``."""
    if value is None:
        return "-"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(value: float) -> str:
    """``812 B``, ``32.5 kB``, ``1.2 GB``: powers of 1000."""
    if value < 1000:
        return f"{value:.0f} B"
    power = next((power for power in (1, 2, 3) if value < 999.95 * 1000**power), 4)
    return f"{value / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def when(timestamp: float) -> str:
    """Local time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(timestamp))


def near(path: Path | str) -> str:
    """A path from here if it lies below, else absolute."""
    path = Path(path)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def near_quoted(path: Path | str) -> str:
    """`near`, as a word for a shell."""
    return shlex.quote(near(path))
