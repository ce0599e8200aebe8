"""Several named weight sets in one file: what is written is read, in its order, and what is no set is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from fedpkg.errors import ModelFileError
from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import read_model, read_sets, write_model, write_sets
from fedpkg.weights.weights import Weights

SUFFIXES = (".npz", ".safetensors")
FORMS = [ModelForm(suffix, keys) for suffix in SUFFIXES for keys in ("names", "positions")]  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "Sätze mit Leerzeichen"
    folder.mkdir()
    return folder / "out"


def scaffold() -> dict[str, Weights]:
    """What such a method sends: a model, then its control variate, which has no buffers."""
    x = {"fc.weight": torch.arange(6.0).reshape(2, 3), "bn/mean": torch.ones(2), "count": torch.tensor(3)}
    return {"x": Weights(x), "control-1_b": Weights({"fc.weight": x["fc.weight"].t() * 0.5})}


@pytest.mark.parametrize("form", FORMS)
def test_sets_come_back_in_their_order(path: Path, form: ModelForm) -> None:
    sets = scaffold()
    write_sets(path, sets, form, durable=True)
    again = read_sets(path)
    assert list(again) == ["x", "control-1_b"]
    for name, weights in sets.items():
        positions = [str(i) for i in range(len(weights))]
        expected = Weights(dict(zip(weights if form.keys == "names" else positions, weights.values(), strict=True)))
        assert list(again[name]) == list(expected)
        assert again[name].equal(expected)


def test_keys_are_those_that_other_programs_see(path: Path) -> None:
    expected = ["x/fc.weight", "x/bn/mean", "x/count", "control-1_b/fc.weight"]
    write_sets(path, scaffold(), ModelForm(".npz"))
    with np.load(path) as arrays:
        assert arrays.files == expected
    write_sets(path, scaffold(), ModelForm(".safetensors"))
    assert sorted(load_file(path)) == sorted(expected)


def test_positions_of_each_set_come_in_numeric_order(path: Path) -> None:
    arrays = {f"{name}/{i}": np.full(1, i) for i in reversed(range(11)) for name in ("w", "x")}
    with open(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    sets = read_sets(path)
    assert list(sets) == ["w", "x"]
    assert list(sets["w"]) == list(sets["x"]) == [str(i) for i in range(11)]


@pytest.mark.parametrize("form", FORMS)
def test_plain_model_is_one_set_without_a_name(path: Path, form: ModelForm) -> None:
    weights = Weights({"a": torch.ones(2), "b": torch.zeros(())})
    write_model(path, weights, form)
    plain = path.read_bytes()
    sets = read_sets(path)
    assert list(sets) == [""]
    assert sets[""].equal(read_model(path))
    write_sets(path, {"": weights}, form)
    assert path.read_bytes() == plain


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_sets_survive_a_round_trip(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    set_names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,5}", fullmatch=True)
    tensor_names = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=6)
    sets = {
        name: Weights({tensor: torch.rand(data.draw(st.lists(st.integers(0, 3), max_size=3))) for tensor in tensors})
        for name, tensors in data.draw(
            st.dictionaries(set_names, st.lists(tensor_names, min_size=1, max_size=4, unique=True), min_size=1)
        ).items()
    }
    write_sets(tmp_path / "m", sets, ModelForm(suffix))  # type: ignore[arg-type]
    again = read_sets(tmp_path / "m")
    assert list(again) == list(sets)
    assert all(again[name].equal(weights) for name, weights in sets.items())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_limit_counts_all_sets_together(path: Path, suffix: str) -> None:
    write_sets(path, scaffold(), ModelForm(suffix))  # type: ignore[arg-type]
    size = sum(weights.num_bytes for weights in scaffold().values())
    assert len(read_sets(path, max_bytes=size)) == 2
    with pytest.raises(ModelFileError, match=f"bigger than the limit of {size - 1} bytes"):
        read_sets(path, max_bytes=size - 1)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("key", ["b", "/w", "0/w", "x y/w", "ü/w", "x.y/w"])
def test_key_that_names_no_set_is_refused_where_others_do(path: Path, suffix: str, key: str) -> None:
    write_model(path, Weights({"x/w": torch.ones(1), key: torch.ones(1)}), ModelForm(suffix))  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match="its key has no name of a set") as caught:
        read_sets(path)
    assert caught.value.fields["tensor"] == key
    assert "'x/w'" in str(caught.value)


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        ({}, "no sets to write"),
        ({"x": {}}, "set 'x' has no tensors"),
        ({"x/y": {"w": 1.0}}, "'x/y' cannot be the name of a set"),
        ({"1": {"w": 1.0}}, "'1' cannot be the name of a set"),
        ({"": {"w": 1.0}, "x": {"w": 1.0}}, "'' cannot be the name of a set"),
        ({"": {"a/b": 1.0}}, "tensor 'a/b': its name would be read as that of a set"),
    ],
)
def test_sets_that_could_not_be_read_back_are_not_written(
    path: Path, sets: dict[str, dict[str, float]], reason: str
) -> None:
    given = {name: Weights({key: torch.tensor(value) for key, value in part.items()}) for name, part in sets.items()}
    with pytest.raises(ModelFileError, match=reason) as caught:
        write_sets(path, given, ModelForm(".npz"))
    assert str(path) in caught.value.message
    assert not path.exists()
