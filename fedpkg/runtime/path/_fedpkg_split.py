"""Runs the entry points of split learning: ``python -m _fedpkg_split forward forward.py -- IN OUT``.

IN and OUT are records (docs/reference/records.md). A package that uses FEDn's splitlearninghelper gets FEDn's
arguments instead: ``forward.py CLIENT OUT INFERENCE``, ``backward.py GRADIENTS CLIENT``. Other scripts run unchanged.

Runs inside a task's interpreter: standard library only, NumPy and fedpkg's client as it needs them.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile

import _fedpkg_compat  # type: ignore[import-not-found]

HELPER = b"splitlearninghelper"


def main(words: list[str]) -> None:
    entry_point, script = words[:2]
    last = len(words) - 1 - words[::-1].index("--")
    own, given = words[2:last], words[last + 1 :]
    folder = os.path.dirname(os.path.realpath(script))
    if folder not in sys.path[:1]:
        sys.path.insert(0, folder)
    if not _is_of_fedn(folder):
        _run(script, [*own, *given])
        return
    _fedpkg_compat.install()
    from fedpkg.client import load_records, save_records, task

    client_id, (in_path, out_path) = task().client_id, given[:2]
    asked = load_records(in_path)
    with tempfile.TemporaryDirectory() as place:
        path = os.path.join(place, "split.npz")
        if entry_point == "forward":
            _run(script, [*own, client_id, path, str(bool((asked.data or {}).get("inference")))])
            embedding, metadata = _embedding(path)
            save_records(out_path, {"embedding": {"embedding": embedding}}, metadata)
        else:
            _write(path, client_id, asked.sets["gradient"]["gradient"])
            _run(script, [*own, path, client_id])
            save_records(out_path)


def _is_of_fedn(folder: str) -> bool:
    for entry in os.scandir(folder):
        if entry.name.endswith(".py") and entry.is_file():
            with open(entry.path, "rb") as file:
                if HELPER in file.read():
                    return True
    return False


def _run(script: str, arguments: list[str]) -> None:
    """Run a script like ``python script …``; if it fails, this program fails."""
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise


def _embedding(path: str) -> tuple[object, dict[str, object]]:
    import numpy as np

    if not os.path.exists(path):
        raise SystemExit("forward wrote no embeddings")
    with np.load(path, allow_pickle=False) as arrays:
        if len(arrays.files) != 1:
            raise SystemExit("forward wrote %d arrays; it must write one, under the client's id" % len(arrays.files))
        embedding = arrays[arrays.files[0]]
    metadata: dict[str, object] = {}
    if os.path.exists(path + "-metadata"):
        with open(path + "-metadata") as file:
            metadata = json.load(file)
    return embedding, metadata


def _write(path: str, client_id: str, gradient: object) -> None:
    import numpy as np

    with open(path, "wb") as file:
        np.savez(file, **{client_id: gradient})  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1:])
