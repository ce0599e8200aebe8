"""The home folder of a federation: its layout, and the lock for writing to it."""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from fedpkg.errors import HomeLocked, NotFound, StoreError
from fedpkg.files import atomic_write
from fedpkg.stores.sql import StateStore
from fedpkg.waist.place import SESSIONS

_NOTE = "lock.json"


@dataclass(frozen=True)
class Holder:
    """The process that holds a home's lock, as recorded in the lock's note."""

    pid: int
    host: str
    since: float
    command: str
    session_id: str = ""  # ids of its running sessions, separated by spaces

    def is_alive(self) -> bool:
        """Whether that process is alive; a process on another host counts as alive."""
        if self.host != os.uname().nodename:
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # it is alive, and belongs to another user
            return True
        return True


class Home:
    """The folder (by default ``.fedpkg``) in which fedpkg keeps everything.

    ::

        state.db      sessions, rounds, tasks … (`fedpkg.stores.opening`)
        models/       global models by their content (``ModelStore``)
        packages/     unpacked compute packages (a cache)
        data/         the clients' partitions
        sessions/     <session_id>/…  the files of each session
        lock          held by the one controller that may write; lock.json describes it
        slots.jsonl   what each slot runs now, while a session runs
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.state_db = self.root / "state.db"
        self.models = self.root / "models"
        self.packages = self.root / "packages"
        self.data = self.root / "data"
        self.sessions = self.root / SESSIONS

    @classmethod
    def open(cls, root: Path, *, create: bool = True) -> Home:
        """The home at ``root``, created if absent.

        Raises:
            NotFound: it is absent and ``create`` is False.
            StoreError: it cannot be created.
        """
        home = cls(root)
        if not create:
            if not home.root.is_dir():
                raise NotFound(
                    f"there is no fedpkg home at {home.root}",
                    hint="go to the folder where the session was started, or name its home with --home",
                    path=str(home.root),
                )
            return home
        try:
            for folder in (home.models, home.packages, home.data, home.sessions):
                folder.mkdir(parents=True, exist_ok=True)
            if home.sessions.stat().st_mode & 0o077:  # other users must not read clients' states and working copies
                with suppress(PermissionError):  # owned by another user, or on a file system without permissions
                    home.sessions.chmod(0o700)
            ignore = home.root / ".gitignore"  # homes are often inside a repository, and large
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise _unwritable(home.root, error) from error
        return home

    def session_folder(self, session_id: str) -> Path:
        return self.sessions / session_id

    @contextmanager
    def lock(self, *, clock: Callable[[], float] = time.time) -> Iterator[Callable[[str], None]]:
        """Hold the lock for writing to this home; reading needs no lock.

        Yields a function that records the running sessions.

        The kernel releases the lock when the process ends, however it ends.

        Raises:
            HomeLocked: another process (or thread) holds it; the message names the process and its start time.
        """
        from filelock import FileLock, Timeout  # here: readers do not need it, and it takes 30 ms to import

        note = self.root / _NOTE
        lock = FileLock(self.root / "lock", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise self._locked() from None
        except OSError as error:
            raise _unwritable(self.root, error) from error
        try:
            me = Holder(pid=os.getpid(), host=os.uname().nodename, since=clock(), command=shlex.join(sys.argv))
            self._write_note(me)
            yield lambda session_id: self._write_note(replace(me, session_id=session_id))
        finally:
            note.unlink(missing_ok=True)
            lock.release()

    def _write_note(self, holder: Holder) -> None:
        try:
            with atomic_write(self.root / _NOTE, durable=False) as file:
                file.write(msgspec.json.encode(holder))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # making space must not need any
                raise _unwritable(self.root, error) from error

    def holder(self) -> Holder | None:
        """The holder of the lock, perhaps killed since: only the note is read, the lock itself is not tried."""
        try:
            return msgspec.json.decode((self.root / _NOTE).read_bytes(), type=Holder)
        except (OSError, msgspec.MsgspecError):  # not written yet, or just being removed
            return None

    def _locked(self) -> HomeLocked:
        holder, words = self.holder(), "another process"
        if holder is not None:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
            words = f"process {holder.pid} on {holder.host} since {since} ({holder.command})"
        return HomeLocked(
            f"{self.root} is in use by {words}",
            hint="wait until it ends, stop it with `fedpkg session stop`, or use another --home",
            **{**(asdict(holder) if holder else {}), "path": str(self.root)},
        )

    def new_session_id(self, name: str, store: StateStore, *, clock: Callable[[], float] = time.time) -> str:
        """``<name>-<yyyymmdd>-<hhmmss>`` (local time), with ``-2`` … appended if that id exists.

        Only letters, digits, ``_`` and ``-`` of the name are kept: the id is a folder, ``<id>.<round>`` a model.
        """
        word = re.sub(r"[^\w-]+", "-", name).strip("-_").encode()[:100].decode(errors="ignore") or "session"
        first = f"{word}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(clock()))}"
        taken = {session.session_id for session in store.list_sessions()}
        session_id, number = first, 1
        while session_id in taken or self.session_folder(session_id).exists():
            number += 1
            session_id = f"{first}-{number}"
        return session_id


def stored_path(path: Path, root: Path) -> str:
    """A path as stored in rows: relative to the home's ``root`` if it is inside, so that a home can be moved.

    ``root / row.folder`` gives the path again, even if the row has an absolute one.
    """
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _unwritable(root: Path, error: OSError) -> StoreError:
    return StoreError(
        f"the home {root} cannot be used: {error.strerror or error}",
        hint="make its folder writable, free space, or use another --home",
        path=str(root),
    )
