"""What moves at the foot of the terminal, with the lines that scroll by above it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from fedpkg.cli import output
from fedpkg.shown import shown, shown_lines

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


class Foot:
    """Shown while it is entered, on standard error; rich refreshes it in a thread.

    Args:
        render: what is shown now.
    """

    def __init__(self, render: Callable[[], RenderableType]) -> None:
        from rich.console import Console
        from rich.live import Live

        # Standard output is not redirected: nothing is written there before the end, and it may be a file.
        self._live = Live(
            get_renderable=render,
            console=Console(stderr=True, highlight=False),
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
        )

    def __enter__(self) -> Foot:
        self._live.start(refresh=True)
        _send_log_to_standard_error()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        _send_log_to_standard_error()

    def refresh(self) -> None:
        self._live.refresh()

    def say(self, text: str) -> None:
        """Lines above it."""
        from rich.text import Text

        self._live.console.print(Text(shown_lines(text)), soft_wrap=True)


def overall(name: str, count: str, share_done: float | None, left_s: float | None) -> Table:
    """The line of the whole: its name, how far it is, a bar, and the time that is left.

    ``share_done`` is None if the end is not known.
    """
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, 2))
    for _ in range(5):
        line.add_column(no_wrap=True)
    percent = 100 * (share_done or 0.0)
    line.add_row(
        Text(shown(name), style="bold"),
        count,
        ProgressBar(total=None if share_done is None else 100, completed=percent, width=24),
        "" if share_done is None else f"{percent:.0f} %",
        "" if left_s is None else f"{output.seconds(left_s)} left",
    )
    return line


def _send_log_to_standard_error() -> None:
    """Log lines go where standard error goes now: the live display puts a proxy there that prints above itself."""
    for handler in logging.getLogger("fedpkg").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
