"""Draws docs/pictures/live-display.svg: a terminal in which the lesson of the digits runs.

python docs/_ext/live_display.py            needs `pip install pyte`
"""

import fcntl
import io
import os
import pty
import re
import struct
import sys
import tempfile
import termios
from pathlib import Path

import pyte
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "pictures" / "live-display.svg"
WIDTH, HEIGHT = 118, 24
COMMAND = ["fedpkg", "run", "examples/digits/run.yaml"]


def screens(command, during):
    """What the terminal shows in round ``during``, and at the end."""
    screen = pyte.Screen(WIDTH, HEIGHT)
    stream = pyte.ByteStream(screen)
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.environ.update(COLUMNS=str(WIDTH), LINES=str(HEIGHT), TERM="xterm-256color", FEDPKG_HOME=tempfile.mkdtemp())
        os.execvp(sys.executable, [sys.executable, "-m", *command])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    shown = None
    while True:
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:  # the program has ended
            break
        stream.feed(data)
        text = "\n".join(screen.display)
        if shown is None and f"round {during}/" in text and re.search(r"train: [3-8] of", text):
            shown = lines_of(screen)
    os.waitpid(child, 0)
    if shown is None:
        raise SystemExit(f"round {during} was over before it could be seen")
    return shown, lines_of(screen)


def lines_of(screen):
    lines = []
    for y in range(HEIGHT):
        line = Text()
        for x in range(WIDTH):
            char = screen.buffer[y][x]
            style = ("bold " if char.bold else "") + ("" if char.fg == "default" else _colour(char.fg))
            line.append(char.data, style.strip())
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain:
        lines.pop()
    return lines


def _colour(name):
    return f"#{name}" if len(name) == 6 and all(sign in "0123456789abcdef" for sign in name) else name


def main():
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text("$ " + " ".join(COMMAND), style="bold"))
    running, ended = screens(COMMAND, during=7)
    first = next(number for number, line in enumerate(ended) if line.plain.lstrip().startswith("round"))
    last = next(number for number, line in enumerate(ended) if number > first and not line.plain.strip())
    for line in (*running, Text("\n# at the end:", style="dim"), *ended[first:last]):
        console.print(line)
    svg = console.export_svg(title="fedpkg")
    PICTURE.write_text(re.sub(r"(?s)@font-face \{.*?\}\s*", "", svg))  # fonts of another host


if __name__ == "__main__":
    main()
