"""The input models of tasks. A small model is copied for each task; of a big one, each slot has one copy."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from fedpkg.dispatch.site import Job
from fedpkg.files import LINK_ABOVE_BYTES, copy_file, same_bytes


def is_big(job: Job) -> bool:
    """Whether a task gets a link to its slot's copy of the input, and not a private copy."""
    return job.model is not None and job.model.stat().st_size > LINK_ABOVE_BYTES


def copy_input(job: Job) -> None:
    """Put a small input into a task's folder."""
    assert job.model is not None
    copy_file(job.model, job.place.input)
    job.place.input.chmod(0o444)


class SlotInput:
    """A slot's copy of the model, to which its tasks get a hard link one after the other.

    The stored model is out of the reach of tasks, and tasks of other slots do not share this copy: if a task changes
    it, only that task fails, and the next one gets a new copy. A write changes the inode's times. Programs can set
    mtime but not ctime; links change ctime too, so the bytes are compared if nothing else differs.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._model: Path | None = None  # the source of the copy; None: it must be made again
        self._facts = (0, 0, 0, 0)  # after our last change

    def put(self, job: Job) -> int | None:
        """Put the input into the folder of the task in the slot; its inode, or None if it is not a link."""
        assert job.model is not None
        with self._lock:
            if self._model != job.model or self._is_changed():
                self._renew(job.model)
            try:
                os.link(self._path, job.place.input)
            except OSError:  # the file system has no hard links
                copy_input(job)
                return None
            self._path.chmod(0o444)
            self._facts = _facts(self._path)
            return self._path.stat().st_ino

    def is_as_given(self) -> bool:
        """Whether the task in the slot, which has ended with all its processes, left its input unchanged."""
        with self._lock:
            links = self._facts[2]
            is_as_given = self._model is not None and not self._is_changed()
            if self._facts[2] > links:  # the task made another link to it: the next task gets a new file
                self._model = None
            return is_as_given

    def release(self, job: Job) -> None:
        """Remove the link of a successful task. Other tasks may have the slot already."""
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
        os.utime(self._path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # older than any write, even within a tick
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
