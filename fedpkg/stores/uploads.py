"""Uploads by scripts that use FEDn's API: packages and models, and the model from which each session started."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from fedpkg.errors import StoreError
from fedpkg.files import atomic_write, open_regular, sha256_file
from fedpkg.stores.home import Home

Upload: TypeAlias = "dict[str, Any]"
KINDS = ("packages", "models", "attributes", "predictions")


class Uploads:
    """The folder ``api/`` of a home: ``uploads.json``, and copies of the files by their sha256.

    Files are copied because scripts may overwrite them with the next package or seed.
    """

    def __init__(self, home: Home) -> None:
        self.folder = home.root / "api"

    def list(self, kind: str) -> list[Upload]:
        """All entries of one of the ``KINDS``, oldest first."""
        return list(self._read().get(kind, []))

    def add(self, kind: str, upload: Upload, *, key: str | None = None) -> None:
        """Add an entry; it replaces earlier ones with an equal ``key``."""

        def edit(state: dict[str, Any]) -> None:
            others = [one for one in state.get(kind, []) if key is None or one[key] != upload[key]]
            state[kind] = [*others, upload]

        self._change(edit)

    def active_package(self) -> Upload | None:
        """The package that was last set active."""
        packages = self.list("packages")
        return packages[-1] if packages else None

    def seeds(self) -> dict[str, str]:
        """For each session, the id of the model that was given to it as its seed."""
        return dict(self._read().get("seeds", {}))

    def note_seed(self, session_id: str, model_id: str) -> None:
        self._change(lambda state: state.setdefault("seeds", {}).update({session_id: model_id}))

    def keep(self, source: Path) -> tuple[str, Path]:
        """Copy a file; return its sha256 and the path of the copy.

        Raises:
            OSError: it cannot be read.
            StoreError: the copy cannot be written.
        """
        digest = sha256_file(source)
        try:
            name = source.name.partition(".")
            target = self.path(digest, name[1] + name[2])
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_regular(source) as src, atomic_write(target) as dst:
                shutil.copyfileobj(src, dst, 1 << 20)
        except OSError as error:
            raise StoreError(f"{source}: cannot be uploaded: {error.strerror or error}", path=str(source)) from error
        return digest, target

    def keep_text(self, text: str, name: str) -> Path:
        """Keep a text as a file, as `keep` does; return its path."""
        with tempfile.TemporaryDirectory(prefix="fedpkg-api-") as folder:
            file = Path(folder) / name
            file.write_text(text)
            return self.keep(file)[1]

    def told(self, text: str) -> str:
        """A text for a person: in place of the path of a copy, it has the path that was uploaded."""
        if str(self.folder) not in text:
            return text
        for kind in ("packages", "models"):
            for one in self.list(kind):
                copy = one.get("path") or str(self.path(one["model_id"], one["suffix"]))
                text = text.replace(copy, one.get("source") or one.get("file_name") or one["name"])
        return text

    def path(self, digest: str, suffix: str) -> Path:
        return self.folder / "files" / f"{digest}{suffix}"

    def _read(self) -> dict[str, Any]:
        path = self.folder / "uploads.json"
        try:
            state = json.loads(path.read_text()) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} cannot be read", hint="remove it, and upload again", path=str(path)) from error
        return state if isinstance(state, dict) else {}

    def _change(self, edit: Callable[[dict[str, Any]], None]) -> None:
        from filelock import FileLock

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "lock", thread_local=False):
                state = self._read()
                edit(state)
                with atomic_write(self.folder / "uploads.json") as file:
                    file.write(json.dumps(state).encode())
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be written: {error.strerror or error}") from error
