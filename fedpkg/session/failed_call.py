"""The error for a call of an entry point that failed."""

from __future__ import annotations

from fedpkg.dispatch.base import TaskResult, told_in
from fedpkg.errors import EntryPointFailed


def entry_point_failed(result: TaskResult, *, hint: str | None, tail_lines: int = 8) -> EntryPointFailed:
    """The error for a call that failed: what, its command, and the end of its log."""
    message = result.failure.message if result.failure else result.status
    lines = [message, f"    command  {result.command}"]
    tail = result.log_tail.splitlines()[-tail_lines:]
    log = told_in(result.task.folder, message)
    stream = log.name.split(".")[-2]
    if tail:
        lines += [f"    {stream}   {log}, last lines:", *(f"             {line}" for line in tail)]
    elif log.exists():
        lines.append(f"    {stream}   {log} (nothing was written)")
    return EntryPointFailed(
        "\n".join(lines),
        hint=hint,
        entry_point=result.task.entry_point,
        failure=result.failure.kind if result.failure else None,
        exit_status=result.exit_code,
        command=result.command,
        folder=str(result.task.folder),
        log_tail=result.log_tail,
    )
