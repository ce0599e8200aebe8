"""Files that a program writes into its working folder are kept; those that it was given are not."""

from __future__ import annotations

import os
from pathlib import Path

from fedpkg.coordinators.saved import facts_of, keep_written


def test_new_and_changed_files_are_kept(tmp_path: Path) -> None:
    work, saved = tmp_path / "work", tmp_path / "saved"
    (work / "inner").mkdir(parents=True)
    (work / "given.py").write_text("given")
    (work / "changed.txt").write_text("before")
    before = facts_of(work)
    (work / "changed.txt").write_text("after it ran")
    (work / "inner" / "model.pt").write_text("model")
    (work / "__pycache__").mkdir()
    (work / "__pycache__" / "given.pyc").write_text("cache")
    assert keep_written(work, before, saved) == ["changed.txt", "inner/model.pt"]
    assert (saved / "inner" / "model.pt").read_text() == "model"
    assert sorted(path.name for path in saved.iterdir()) == ["changed.txt", "inner"]


def test_links_and_special_files_are_not_kept(tmp_path: Path) -> None:
    work, secret = tmp_path / "work", tmp_path / "secret"
    work.mkdir()
    secret.write_text("secret")
    (work / "link").symlink_to(secret)
    (work / "hard").hardlink_to(secret)
    os.mkfifo(work / "pipe")
    assert keep_written(work, {}, tmp_path / "saved") == []
    assert not (tmp_path / "saved").exists()


def test_a_later_start_replaces_what_an_earlier_one_wrote(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    for number, paths in enumerate((["a", "b/c"], ["a/x", "b"], ["a/x"])):
        work = tmp_path / f"work-{number}"
        for path in paths:
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_text(str(number))
        assert keep_written(work, {}, saved) == sorted(paths)
    assert {str(one.relative_to(saved)): one.read_text() for one in saved.rglob("*") if one.is_file()} == {
        "a/x": "2",
        "b": "1",
    }
