"""The input models of tasks. A small one is copied for each task; of a big one, each slot has a copy for its tasks."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from fedpkg.dispatch.site import Job
from fedpkg.files import LINK_ABOVE_BYTES, copy_file, same_bytes


def is_big(job: Job) -> bool:
    """Whether a task gets its input from its slot, and not as a copy of its own."""
    return job.model is not None and job.model.stat().st_size > LINK_ABOVE_BYTES


def copy_input(job: Job) -> None:
    """Put a small input into a task's folder."""
    assert job.model is not None
    copy_file(job.model, job.place.input)
    job.place.input.chmod(0o444)


class SlotInput:
    """A slot's copy of the model that its tasks get one after the other, each as a hard link.

    The stored model is out of the reach of tasks, and no task of another slot has this copy: a task that changed it had
    it alone, and only that task fails. The next one gets a new copy. A task's write changes the inode's times. Programs
    can set the time of the last modification, not that of the last status change; as links change that one, too, bytes
    are compared where nothing else differs.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._model: Path | None = None  # what it is a copy of; None: it must be made anew
        self._facts = (0, 0, 0, 0)  # as they were when we last touched it

    def put(self, job: Job) -> int | None:
        """Put the input into the folder of a task that has the slot; its inode, None if it is a copy and no link."""
        assert job.model is not None
        with self._lock:
            if self._model != job.model or self._is_changed():
                self._renew(job.model)
            try:
                os.link(self._path, job.place.input)
            except OSError:  # links cannot be made here
                copy_input(job)
                return None
            self._path.chmod(0o444)
            self._facts = _facts(self._path)
            return self._path.stat().st_ino

    def is_as_given(self) -> bool:
        """The task in the slot has ended, with its processes: did it leave its input as it was?"""
        with self._lock:
            links = self._facts[2]
            is_as_given = self._model is not None and not self._is_changed()
            if self._facts[2] > links:  # the task gave it a name of its own: the next one gets another file
                self._model = None
            return is_as_given

    def release(self, job: Job) -> None:
        """Remove the link of a task that has ended, and will not be repeated by hand. Others may have the slot now."""
        with self._lock:
            is_ours = self._model is not None and not self._is_changed()
            job.place.input.unlink(missing_ok=True)
            if is_ours:
                self._facts = _facts(self._path)

    def _renew(self, model: Path) -> None:
        self._model = None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        copy_file(model, self._path)
        facts = model.stat()
        os.utime(self._path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # older than any write, even in the same tick
        self._model, self._facts = model, _facts(self._path)

    def _is_changed(self) -> bool:
        now, before = _facts(self._path), self._facts
        if now == before:
            return False
        assert self._model is not None
        if now[:2] != before[:2] or not same_bytes(self._path, self._model):
            self._model = None
            return True
        self._facts = now
        return False


def _facts(path: Path) -> tuple[int, int, int, int]:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return (-1, -1, -1, -1)
    return (facts.st_size, facts.st_mtime_ns, facts.st_nlink, facts.st_ctime_ns)
