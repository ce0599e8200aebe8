"""Files of records: what is written is read, whatever its names; anybody can write them; no file harms its reader."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpkg import client
from fedpkg.errors import ModelFileError
from fedpkg.formats import records_file
from fedpkg.formats.base import ModelForm
from fedpkg.formats.records_file import is_records, read_records, write_records
from fedpkg.weights import Records, Weights

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "records.md"
ALONE = "assert 'torch' not in sys.modules and 'fedpkg' not in sys.modules"
FORMS = [ModelForm(suffix) for suffix in (".npz", ".safetensors")]  # type: ignore[arg-type]
FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.suffix)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.one_of(
    TEXT, st.sampled_from(["", "/", "%", "%2F", "%json", "%empty", "a/b", " ", ".npy", "x", "x.npy", "\0"])
)
TENSORS = st.sampled_from([torch.tensor(7), torch.full((2, 0), 1.5), torch.arange(6).reshape(2, 3) == 1, torch.ones(3)])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def raw(value: Any) -> Any:
    return np.frombuffer(value if isinstance(value, bytes) else json.dumps(value).encode(), np.uint8)


def plain(sets: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, list[Any]]]:
    return {name: {key: [array.tolist(), str(array.dtype)] for key, array in one.items()} for name, one in sets.items()}


def order_of(sets: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    return [(name, list(one)) for name, one in sets.items()]


@FORM
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sets=st.dictionaries(NAMES, st.dictionaries(NAMES, TENSORS, max_size=3), max_size=4), data=JSON)
def test_records_come_back_as_they_were_on_both_sides(
    tmp_path: Path, form: ModelForm, sets: dict[str, dict[str, torch.Tensor]], data: Any
) -> None:
    path, other = tmp_path / f"out{form.suffix}", tmp_path / f"of the client{form.suffix}"
    write_records(path, Records({name: Weights(one) for name, one in sets.items()}, data), form)
    again = read_records(path)
    assert (order_of(again.sets), again.data) == (order_of(sets), data)
    assert all(again.sets[name].equal(Weights(one)) for name, one in sets.items())
    assert is_records(path)
    there = client.load_records(path)
    arrays = {name: {key: tensor.numpy() for key, tensor in one.items()} for name, one in sets.items()}
    assert (order_of(there.sets), plain(there.sets), there.data) == (order_of(sets), plain(arrays), data)
    client.save_records(other, there.sets, there.data)
    back = read_records(other)
    assert (order_of(back.sets), back.data) == (order_of(sets), data)
    assert all(back.sets[name].equal(one) for name, one in again.sets.items())


GOLDEN = {
    ".npz": "96721bcfbf7c12651a876e08d6c622a7a3fa98b0aaa67244453efda992440c19",
    ".safetensors": "562e90d8a04fdd573b12bd8f8a3172d83e9caccc2b58d9b6bd44bd102b686758",
}


@FORM
def test_equal_records_make_equal_bytes(tmp_path: Path, form: ModelForm) -> None:
    path = tmp_path / f"golden{form.suffix}"
    sums = Weights({"Größe/%": torch.arange(3.0), "": torch.tensor(float("nan"))})
    data = {"columns": ["a", "ü"], "nothing": None, "x": 0.1, "nan": float("nan")}
    sets = {"sums of x": sums, "": Weights({}), "counts": Weights({"n": torch.tensor(3)})}
    write_records(path, Records(sets, data), form)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == GOLDEN[form.suffix]


def test_numpy_alone_reads_and_writes_them_as_the_page_says(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(import json.*?)```", PAGE.read_text(), flags=re.DOTALL)[0]
    subprocess.run([sys.executable, "-c", f"{code}\nimport sys\n{ALONE}"], check=True, cwd=tmp_path)
    records = read_records(tmp_path / "out.npz")
    assert (list(records.sets), records.data) == (["age", "blood pressure"], {"unit": "years"})
    assert records.sets["blood pressure"]["counts"].tolist() == [0, 1, 2]


def test_numpy_alone_reads_and_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    code = (
        "import json, sys\nimport numpy as np\n"
        "data = np.frombuffer(json.dumps({'rows': 3}).encode(), np.uint8)\n"
        "np.savez(sys.argv[1], **{'%json': data, 'column/mean': np.float64(0.5), 'column/counts': np.array([1, 2])})\n"
        "with np.load(sys.argv[1]) as file:\n"
        "    assert json.loads(file['%json'].tobytes()) == {'rows': 3} and file['column/mean'] == 0.5\n"
        f"{ALONE}\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    records = read_records(path)
    assert records.data == {"rows": 3}
    assert records.sets["column"].equal(Weights({"mean": torch.tensor(0.5).double(), "counts": torch.tensor([1, 2])}))


def test_client_writes_and_reads_them_without_pytorch(tmp_path: Path) -> None:
    code = (
        "import sys\nimport numpy as np\nfrom fedpkg import client\n"
        "sets = {'a/b': {'x': [1.5, 2], 'n': 3}, 'none': {}}\n"
        "client.save_records(sys.argv[1], sets, {'k': np.float32(2)}, num_examples=4)\n"
        "found = client.load_records(sys.argv[1])\n"
        "assert found.sets['a/b']['x'].tolist() == [1.5, 2.0] and found.sets['none'] == {}\n"
        "assert found.data == {'k': 2.0}\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out.npz")], check=True)
    assert json.loads((tmp_path / "out.npz-metadata").read_text()) == {"num_examples": 4}
    assert list(read_records(tmp_path / "out.npz").sets) == ["a/b", "none"]


def test_dtype_that_numpy_lacks_stays_a_tensor(tmp_path: Path) -> None:
    path = tmp_path / "out.safetensors"
    client.save_records(path, {"s": {"half": torch.ones(2, dtype=torch.bfloat16), "whole": np.arange(3)[::-1]}})
    found = client.load_records(path).sets["s"]
    assert found["half"].dtype == torch.bfloat16 and found["whole"].tolist() == [2, 1, 0]
    with pytest.raises(client.ClientError, match="cannot hold torch"):
        client.save_records(tmp_path / "out.npz", {"s": {"half": torch.ones(2, dtype=torch.bfloat16)}})


@pytest.mark.parametrize(
    ("sets", "data", "reason"),
    [
        ({"s": {"t": np.array(["text"])}}, None, "'s/t' is not an array of numbers: NumPy gives it the dtype <U4"),
        ({"s": {"t": np.array([{}])}}, None, "'s/t' is not an array of numbers: NumPy gives it the dtype object"),
        ({}, {"a": object()}, "cannot be written as JSON"),
        ({}, {"a": np.arange(2)}, "cannot be written as JSON"),
    ],
)
def test_client_says_what_no_records_hold(tmp_path: Path, sets: Any, data: Any, reason: str) -> None:
    with pytest.raises(client.ClientError, match=reason):
        client.save_records(tmp_path / "out.npz", sets, data)


@pytest.mark.parametrize(
    ("records", "form", "reason"),
    [
        (Records(data={"a": {1, 2}}), FORMS[0], "cannot be written as JSON"),  # type: ignore[dict-item]
        (Records(data="x" * (16 << 20)), FORMS[0], "JSON may have at most 16777216 bytes and 64 levels"),
        (Records({"\ud800": Weights({})}), FORMS[0], "is not valid Unicode"),
        (Records({"s": Weights({"t": torch.ones(1, dtype=torch.bfloat16)})}), FORMS[0], "bfloat16"),
        (Records(), ModelForm(".f64", "positions"), "bare arrays"),
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path: Path, records: Records, form: ModelForm, reason: str) -> None:
    with pytest.raises(ModelFileError, match=reason):
        write_records(tmp_path / f"out{form.suffix}", records, form)
    assert list(tmp_path.iterdir()) == []


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a model": (lambda: npz(w=np.ones(2)), "its key is not that of a records file"),
    "two slashes": (lambda: npz(**{"a/b/c": np.ones(2)}), "its key is not that of a records file"),
    "half a code": (lambda: npz(**{"a%2/b": np.ones(2)}), "its key is not that of a records file"),
    "another mark": (lambda: npz(**{"%npz": np.ones(2)}), "its key is not that of a records file"),
    "no UTF-8": (lambda: npz(**{"a%FF/b": np.ones(2)}), "does not encode UTF-8 text"),
    "surrogate": (lambda: npz(**{"%ED%A0%80/b": np.ones(2)}), "does not encode UTF-8 text"),
    "twice": (lambda: npz(**{"a/b": np.ones(2), "%61/b": np.ones(2)}), "two of its keys mean the same tensor"),
    "empty twice": (lambda: npz(**{"a/%empty": np.ones(0), "%61/%empty": np.ones(0)}), "two of its keys mean the same"),
    "pickle": (lambda: npz(**{"a/b": np.array([{}], dtype=object)}), "contains a pickle"),
    "text": (lambda: npz(**{"a/b": np.array(["text"])}), "tensors cannot have"),
    "no JSON": (lambda: npz(**{"%json": raw(b"{")}), "tensor '%json': is not JSON"),
    "no text": (lambda: npz(**{"%json": raw(b'"\xff"')}), "tensor '%json': is not UTF-8 text"),
    "deep JSON": (lambda: npz(**{"%json": raw(b"[" * 100_000)}), "nested too deeply"),
    "long JSON": (lambda: npz(**{"%json": raw(b" " * (16 << 20) + b"1")}), "16777217 bytes of JSON"),
    "floats for JSON": (lambda: npz(**{"%json": np.ones(3)}), "must be one-dimensional, of dtype uint8"),
    "square JSON": (lambda: npz(**{"%json": np.zeros((2, 2), np.uint8)}), "must be one-dimensional, of dtype uint8"),
    "cut": (lambda: npz(**{"a/b": np.ones(2)})[:-30], "truncated or damaged"),
    "junk": (lambda: b"junk", "neither an .npz nor a .safetensors file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_file_that_is_none_of_records_is_refused(tmp_path: Path, name: str) -> None:
    make, reason = HOSTILE[name]
    path = tmp_path / "out.npz"
    path.write_bytes(make())
    with pytest.raises(ModelFileError, match=reason):
        read_records(path)


def test_file_of_too_many_or_too_large_tensors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.npz"
    path.write_bytes(npz(**{f"{i}/%empty": np.zeros(0, np.uint8) for i in range(20)}))
    assert len(read_records(path).sets) == 20
    monkeypatch.setattr(records_file, "MOST_TENSORS", 19)
    with pytest.raises(ModelFileError, match="more than 19 tensors"):
        read_records(path)
    file = io.BytesIO()
    np.savez_compressed(file, **{quote("zeros", safe="") + "/w": np.zeros(1 << 20)})
    path.write_bytes(file.getvalue())
    with pytest.raises(ModelFileError, match="bigger than the limit of 1048576 bytes"):
        read_records(path, max_bytes=1 << 20)
