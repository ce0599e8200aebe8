"""Ignore files follow FEDn's rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpkg.compute_package.ignore import read_ignore
from fedpkg.errors import PackageError


def write(folder: Path, text: str, name: str = ".fedpkgignore") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*.npz", "seed.npz"),
        ("*.npz", "deep/down/seed.npz"),  # the last part fits
        ("data/*.csv", "data/a.csv"),  # the path fits
        ("data/*.csv", "data/x/a.csv"),  # * crosses folders, as in fnmatch
        ("[abc].txt", "b.txt"),
        ("data/", "data"),
    ],
)
def test_pattern_fits_the_relative_path_or_the_last_part(tmp_path: Path, pattern: str, name: str) -> None:
    assert read_ignore(write(tmp_path, pattern)).match(name, is_folder="." not in name)


@pytest.mark.parametrize(("pattern", "name"), [("data", "data2"), ("a/x.txt", "b/a/x.txt"), ("*.NPZ", "seed.npz")])
def test_other_names_are_kept(tmp_path: Path, pattern: str, name: str) -> None:
    assert read_ignore(write(tmp_path, pattern)).match(name) is None


def test_pattern_with_a_slash_at_its_end_means_folders_only(tmp_path: Path) -> None:
    assert read_ignore(write(tmp_path, "data/")).match("data", is_folder=False) is None


def test_both_ignore_files_count_and_comments_and_blank_lines_do_not(tmp_path: Path) -> None:
    write(tmp_path, "# notes\n\n  *.md  \n")
    write(tmp_path, "*.csv\n", ".fednignore")
    rules = read_ignore(tmp_path)
    assert rules.match("a.md") and rules.match("a.csv")
    assert rules.match("# notes") is None


@pytest.mark.parametrize(
    "name",
    [".git", "__pycache__", "m.pyc", ".venv", ".fedpkg", ".DS_Store", ".fedpkgignore", ".fednignore", "sub/.git"],
)
def test_what_never_belongs_into_a_package_is_always_ignored(tmp_path: Path, name: str) -> None:
    assert read_ignore(tmp_path).match(name, is_folder=True)


def test_pattern_with_an_exclamation_mark_gets_a_warning(tmp_path: Path) -> None:
    assert read_ignore(write(tmp_path, "*.txt\n!keep.txt")).warnings() == [
        ".fedpkgignore, line 2: '!keep.txt' has no effect: ignore files do not support exceptions (!)"
    ]


def test_ignore_file_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".fednignore").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(PackageError, match=r"\.fednignore: cannot be read"):
        read_ignore(tmp_path)
