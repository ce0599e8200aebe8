"""The error for a call of an entry point that failed."""

from __future__ import annotations

from pathlib import Path

from fedpkg.errors import EntryPointFailed
from fedpkg.waist.answer import Answer
from fedpkg.waist.place import told_in


def entry_point_failed(
    entry_point: str, answer: Answer, folder: Path, *, hint: str | None, tail_lines: int = 8
) -> EntryPointFailed:
    """The error for a failed call: its message, its command, and the end of its log, which is in ``folder``."""
    message = answer.failure.message if answer.failure else answer.status
    lines = [message, f"    command  {answer.command}"]
    tail = answer.log_tail.splitlines()[-tail_lines:]
    log = told_in(folder, message)
    stream = log.name.split(".")[-2]
    if tail:
        lines += [f"    {stream}   {log}, last lines:", *(f"             {line}" for line in tail)]
    elif log.exists():
        lines.append(f"    {stream}   {log} (nothing was written)")
    return EntryPointFailed(
        "\n".join(lines),
        hint=hint,
        entry_point=entry_point,
        failure=answer.failure.kind if answer.failure else None,
        exit_status=answer.exit_code,
        command=answer.command,
        folder=str(folder),
        log_tail=answer.log_tail,
    )
