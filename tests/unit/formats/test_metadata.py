"""The JSON beside a model file, and the number of examples in it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedpkg.errors import ModelFileError
from fedpkg.formats.metadata import metadata_path, num_examples, read_metadata, read_metrics, write_metadata
from fedpkg.types import Json


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    folder = tmp_path / "clïent 7"
    folder.mkdir()
    return folder / "out.npz"


def test_metadata_lies_beside_the_model(model_path: Path) -> None:
    assert metadata_path(model_path).name == "out.npz-metadata"
    metadata: dict[str, Json] = {"num_examples": 600, "näme": "clïent", "nested": {"list": [1, None, True, 0.5]}}
    write_metadata(model_path, metadata)
    assert read_metadata(model_path) == metadata


def test_not_a_number_literals_become_floats(model_path: Path) -> None:
    metadata_path(model_path).write_text('{"loss": NaN, "worst": -Infinity}')
    metadata = read_metadata(model_path)
    assert isinstance(metadata["loss"], float)
    assert math.isnan(metadata["loss"])
    assert metadata["worst"] == -math.inf


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not JSON"),
        (b"num_examples = 3", "is not JSON"),
        (b'{"a": 1} x', "is not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[1]", "must be a JSON object, not a list"),
        (b"3", "must be a JSON object, not a number"),
        (b"null", "must be a JSON object, not null"),
        (b'{"a": "\xff"}', "is not UTF-8"),
        (b"[" * 400_000, "is nested too deeply"),
        (b'{"a": ' + b"[" * 980 + b"]" * 980 + b"}", "is nested too deeply"),
        (b'{"a": ' + b'{"\\"]}": ' * 64 + b"0" + b"}" * 65, "is nested too deeply"),
        (b'{"a": "' + b"x" * 1_000_000 + b'"}', "larger than 488 KiB"),
    ],
    ids=range(12),
)
def test_unusable_metadata_is_refused_with_its_reason(model_path: Path, content: bytes, reason: str) -> None:
    metadata_path(model_path).write_bytes(content)
    with pytest.raises(ModelFileError, match=reason) as caught:
        read_metadata(model_path, max_bytes=500_000)
    assert str(metadata_path(model_path)) in caught.value.message


def test_json_may_have_64_levels_and_any_brackets_in_its_strings(model_path: Path) -> None:
    path = metadata_path(model_path)
    path.write_bytes(b"[" * 64 + b"]" * 64 + b"\n")
    assert json.dumps(read_metrics(path)) == "[" * 64 + "]" * 64
    path.write_bytes(b"[" * 980 + b"]" * 980)
    with pytest.raises(ModelFileError, match="is nested too deeply"):
        read_metrics(path)
    words: list[Json] = ["[" * 500, '"{' * 500, "\\", "]", [[{}]] * 100]
    path.write_text(json.dumps(words))
    assert read_metrics(path) == words


def test_strings_without_an_end_are_refused_at_once(model_path: Path) -> None:
    path = metadata_path(model_path)
    path.write_bytes(b"[" * 65 + b'\\"' * 1_000_000)
    with pytest.raises(ModelFileError):
        read_metrics(path)


def test_metadata_must_be_a_regular_file(model_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        read_metadata(model_path)
    metadata_path(model_path).mkdir()
    with pytest.raises(ModelFileError, match=r"cannot be read|not a regular file"):
        read_metadata(model_path)
    metadata_path(model_path).rmdir()
    os.mkfifo(metadata_path(model_path))
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_metadata(model_path)


@pytest.mark.parametrize("content", ["3.5", '"text"', "null", "[1, {}]", '{"accuracy": 0.9}'])
def test_metrics_may_be_any_json(model_path: Path, content: str) -> None:
    model_path.write_text(content)
    assert read_metrics(model_path) is not ...


@pytest.mark.parametrize("value", [1, 600, 0.5, 2**53, 1e-9])
def test_num_examples_is_a_positive_number(value: float) -> None:
    assert num_examples({"num_examples": value}) == value


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({}, "num_examples is missing"),
        ({"num_examples": "600"}, 'must be a number, not text: "600"'),
        ({"num_examples": True}, "must be a number, not a boolean: true"),
        ({"num_examples": None}, "must be a number, not null"),
        ({"num_examples": [600]}, "must be a number, not a list"),
        ({"num_examples": math.nan}, "is NaN"),
        ({"num_examples": 0}, "is zero"),
        ({"num_examples": -0.0}, "is zero"),
        ({"num_examples": -3}, "is negative: -3"),
        ({"num_examples": -math.inf}, "is negative: -inf"),
        ({"num_examples": math.inf}, "is too big: inf"),
        ({"num_examples": 2**53 + 1}, "is too big: 9007199254740993"),
        ({"num_examples": 10**400}, "is too big: a number of more than 20 digits"),
        ({"num_examples": -(10**400)}, "is negative: a number of more than 20 digits"),
    ],
)
def test_num_examples_says_what_is_wrong(metadata: dict[str, Json], reason: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        num_examples(metadata)
    assert reason in caught.value.message


def test_metadata_needs_neither_torch_nor_numpy() -> None:
    code = "import sys, fedpkg.formats.metadata, fedpkg.formats.base; print({'torch', 'numpy'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
