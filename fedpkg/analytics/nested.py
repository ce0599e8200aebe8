"""A function at an organization that creates tasks itself: it is run again with their results, and never waits.

The first time that it looks at a result, its task ends with a reply that has the new tasks. The coordinator runs them
and sends the task again, with all results so far. No slot is held meanwhile; the function must depend only on its
input, its data and these results.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fedpkg.analytics.current import current
from fedpkg.analytics.recorded import Recorded


class Wants(BaseException):
    """The function waits for tasks that have not run. Not an Exception, which an algorithm might catch."""


class Nested(Recorded):
    """The backend of a task. ``answers`` are those to its tasks of earlier attempts, in the order of their creation.

    Each answer is a list with the status, the log, and the result (bytes) of each organization.
    """

    answers: Sequence[Sequence[tuple[str, bytes | None, str]]] = ()

    def run(self) -> None:
        """Take the answers that there are.

        Raises:
            Wants: There are tasks without one.
        """
        for task in self.left():
            if task.task_id > len(self.answers):
                raise Wants
            self.end(task, self.answers[task.task_id - 1])

    def wanted(self) -> tuple[list[dict[str, Any]], Mapping[str, bytes]]:
        """The tasks without an answer as JSON, and their inputs."""
        tasks = [one for one in self._tasks if one.task_id > len(self.answers)]
        told = [
            {"organizations": list(one.organization_ids), "name": one.name, "databases": list(one.databases)}
            for one in tasks
        ]
        return told, {str(number): one.input_ for number, one in enumerate(tasks)}


@contextmanager
def without_waiting() -> Iterator[None]:
    """A function that sleeps while its tasks have not run takes their answers instead, or ends the attempt.

    Which function that is, is found when it sleeps: modules may keep `time.sleep` from an earlier task.
    """
    really = time.sleep

    def sleep(seconds: float) -> None:
        call = current()
        if call is not None and isinstance(call.backend, Nested) and call.backend.left():
            call.backend.run()
        else:
            really(seconds)

    time.sleep = sleep  # type: ignore[assignment]
    try:
        yield
    finally:
        time.sleep = really
