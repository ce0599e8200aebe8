"""Which modules a warm interpreter imports for a package: found by reading, never by running."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpkg.compute_package.imports import (
    ALL_FILES,
    BIGGEST_FILE,
    imports_of,
    own_modules,
    texts_of,
    trees_of,
    used_by,
)
from fedpkg.fedn.helpers import helper_named, mention_helper


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "Paket mit λ"
    path.mkdir()
    return path


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def test_absolute_imports_are_found_wherever_they_stand(folder: Path) -> None:
    code = """
from __future__ import annotations
import numpy as np, torch.nn.functional as F
from torch.optim import SGD
def later():
    import json
    try:
        from missing_one import thing
    except ImportError:
        thing = None
"""
    write(folder / "entrypoint.py", code)
    assert imports_of(folder) == ["numpy", "torch.nn.functional", "torch.optim", "json", "missing_one"]


def test_own_modules_and_relative_imports_are_left_out(folder: Path) -> None:
    write(folder / "entrypoint.py", "import model, helpers.io, data\nfrom . import x\nfrom .y import z\nimport csv\n")
    write(folder / "model.py", "import deep\n")
    write(folder / "helpers" / "io.py", "import gzip\n")
    write(folder / "lib" / "deep.py", "")
    (folder / "data").mkdir()
    assert imports_of(folder) == ["csv", "gzip"]


def test_nothing_is_run(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    write(folder / "entrypoint.py", f"open({str(canary)!r}, 'w')\nimport csv\n")
    assert imports_of(folder) == ["csv"]
    assert not canary.exists()


def test_named_scripts_are_read_whatever_their_name(folder: Path) -> None:
    write(folder / "bin" / "train", "#!/usr/bin/env python\nimport csv\n")
    write(folder / "other", "import gzip\n")
    assert imports_of(folder, ["bin/train", "absent.py"]) == ["csv"]


@pytest.mark.parametrize(
    "content",
    [
        b"import (\n",
        b"\x00\x01import os",
        b"\xff\xfe",
        b"# coding: no-such-code\nimport os\n",
        b"(" * 5000,
        b"-" * 100_000 + b"1",
        b"import os\n" + b"#" * BIGGEST_FILE,
    ],
    ids=["syntax", "nul", "not utf-8", "coding", "nested", "deep", "big"],
)
def test_files_that_cannot_be_read_are_skipped(folder: Path, content: bytes) -> None:
    write(folder / "bad.py", content)
    write(folder / "good.py", "x = '\\d'\nimport csv\n")
    assert imports_of(folder) == ["csv"]


def test_odd_entries_are_skipped(folder: Path) -> None:
    (folder / "folder.py").mkdir()
    (folder / "gone.py").symlink_to("nowhere")
    (folder / "loop").symlink_to(".")
    write(folder / "good.py", "import csv\n")
    assert imports_of(folder) == ["csv"]


def test_modules_beside_the_scripts_are_the_packages_own(folder: Path) -> None:
    for name in ("wave.py", "helpers/__init__.py", "data/x.csv", "src/run.py", "src/inner.py", "deep/er/no.py"):
        write(folder / name, "")
    assert own_modules(folder) == ["helpers", "wave"]
    assert own_modules(folder, ["src/run.py"]) == ["helpers", "inner", "run", "wave"]


def test_helpers_of_fedn_bring_numpy(folder: Path) -> None:
    write(folder / "train.py", "from fedn.utils.helpers.helpers import get_helper\n")
    assert imports_of(folder) == ["fedn.utils.helpers.helpers", "numpy"]


@pytest.mark.parametrize(
    ("files", "helper"),
    [
        ({"a.py": "get_helper('binaryhelper')"}, "binaryhelper"),
        ({"a.py": "H = 'numpyhelper'", "b.py": "get_helper(H)"}, "numpyhelper"),
        ({"script": "from fedn.utils.numpyarrayhelper import NumpyArrayHelper"}, "numpyarrayhelper"),
        ({"a.py": "H = 'numpyhelper'", "b.py": "H = 'androidhelper'"}, None),
        ({"a.py": "get_helper('numpyhelper').save(w, path, file_type='raw_binary')"}, "binaryhelper"),
        ({"a.py": "get_helper('numpyhelper').save(w, path, file_type='npz')", "b.py": "'raw_binary'"}, "numpyhelper"),
        ({"a.py": "get_helper('androidhelper')", "b.py": "save(w, file_type='raw_binary')"}, None),
        ({"a.py": "'binaryhelpers and the like'  # binaryhelper"}, None),
        ({}, None),
    ],
)
def test_helper_is_the_only_one_that_the_files_name(folder: Path, files: dict[str, str], helper: str | None) -> None:
    for name, text in files.items():
        write(folder / name, text)
    assert helper_named(trees_of(folder, ["script"]).values()) == helper
    assert helper is None or mention_helper(texts_of(folder, ["script"]).values())


def test_files_are_parsed_for_a_helper_only_if_they_contain_a_name_of_one(folder: Path) -> None:
    write(folder / "a.py", "def helper(): return 'numpy'")
    assert not mention_helper(texts_of(folder).values())
    write(folder / "b.py", "H = get_helper('numpyhelper')")
    assert mention_helper(texts_of(folder).values())


@pytest.mark.parametrize(
    ("files", "helper"),
    [
        ({"train.py": "import model", "model.py": "'binaryhelper'", "old.py": "'numpyhelper'"}, "binaryhelper"),
        ({"train.py": "from lib import model", "lib/model.py": "from . import form", "lib/form.py": "'androidhelper'",
          "model.py": "'numpyhelper'"}, "androidhelper"),
        ({"train.py": "from lib.forms.mine import save", "lib/forms/mine.py": "from ..names import NAME",
          "lib/names.py": "NAME = 'binaryhelper'"}, None),  # two levels up: not followed
        ({"train.py": "import lib", "lib/__init__.py": "import train; 'binaryhelper'", "x.py": "'numpyhelper'"},
         "binaryhelper"),
        ({"train.py": "import a, b", "a.py": "'binaryhelper'", "b.py": "'numpyhelper'"}, None),
        ({"train.py": "import json", "a.py": "'binaryhelper'"}, None),
    ],
)  # fmt: skip
def test_helper_of_a_script_is_that_which_it_and_its_imports_name(
    folder: Path, files: dict[str, str], helper: str | None
) -> None:
    for name, text in files.items():
        write(folder / name, text)
    assert helper_named(used_by(folder / "train.py", trees_of(folder))) == helper


def test_only_so_much_is_parsed_and_scripts_come_first(tmp_path):
    padding = b"#" * (BIGGEST_FILE - 20)
    for number in range(ALL_FILES // BIGGEST_FILE + 1):
        (tmp_path / f"a{number}.py").write_bytes(b"import csv\n" + padding)
    (tmp_path / "z.py").write_bytes(b"import gzip\n" + padding)
    assert imports_of(tmp_path, ["z.py"]) == ["gzip", "csv"]
    (tmp_path / f"a{number}.py").write_bytes(b"import json\n" + padding)
    assert imports_of(tmp_path, ["z.py"]) == ["gzip", "csv"]
