"""Charts become files: PNG, SVG and PDF by matplotlib, and a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpkg.errors import ConfigError
from fedpkg.pictures.files import save_charts
from tests.unit.pictures.kinds import HOSTILE, every_kind

pytest.importorskip("matplotlib")


def test_charts_become_a_file_of_each_sort_and_equal_charts_the_same_bytes(tmp_path: Path) -> None:
    kinds = every_kind("a $x_1$ 日本")
    for name, begin in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF"), ("a.html", b"<!DOCTYPE")):
        charts = kinds if name == "a.png" else kinds[:1]
        save_charts(charts, tmp_path / name, title="all")
        first = (tmp_path / name).read_bytes()
        assert first.startswith(begin)
        save_charts(charts, tmp_path / name, title="all")
        assert (tmp_path / name).read_bytes() == first
    assert "$x_1$" in (tmp_path / "a.svg").read_text(), "a name is no formula"


def test_texts_of_clients_stay_texts_in_the_svg_of_matplotlib(tmp_path: Path) -> None:
    save_charts(every_kind(HOSTILE), tmp_path / "a.svg", title="")
    assert "<script" not in (tmp_path / "a.svg").read_text()


def test_another_suffix_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.pgn.*did you mean '\.png'") as caught:
        save_charts(every_kind(), tmp_path / "a.pgn", title="")
    assert ".html, .png, .svg, .pdf" in (caught.value.hint or "")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"a\.html cannot be written"):
        save_charts(every_kind(), tmp_path / "file" / "a.html", title="")
