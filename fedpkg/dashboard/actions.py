"""Actions of operators: stop a session, and resume one in a process of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from fedpkg.errors import SessionError

SOON_S = 5.0  # a resume that fails at once is told; one that goes on is seen on the page
_MOST_WORDS = 2000


def start(command: list[str], home: Path) -> None:
    """Start a command that outlives this server. Its output is not kept: what it does is in the home.

    Raises:
        SessionError: it fails soon; the message is that of the command.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=home.absolute().parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "NO_COLOR": "1"},
        )
        try:
            code = process.wait(SOON_S)
        except subprocess.TimeoutExpired:
            return
        if code:
            output.seek(0)
            words = output.read(1 << 20).decode(errors="replace").rpartition("error: ")[2].strip()
            raise SessionError(words[:_MOST_WORDS] or f"it ended with exit code {code}")
