"""Replies read and checked without running a task: what they must fit, and how big they may be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from fedpkg.formats.base import ModelForm
from fedpkg.formats.metadata import write_metadata
from fedpkg.formats.model_file import write_model, write_sets
from fedpkg.formats.records_file import write_records
from fedpkg.replies.reading import DEFAULT_REPLY_BYTES, RECORDS_BYTES, Checked, Opened, Reading, tensors_of
from fedpkg.types import ReplyKind
from fedpkg.waist.answer import Refused
from fedpkg.waist.order import ReplySpec
from fedpkg.weights.records import Records
from fedpkg.weights.weights import Weights

MODEL = Weights(
    {
        "fc.weight": torch.ones(2, 3),
        "bn.running_mean": torch.zeros(2),
        "count": torch.tensor(1),
        "fc.bias": torch.ones(2),
    },
    buffers=["bn.running_mean"],
)
POSITIONS = Weights({str(i): tensor for i, tensor in enumerate(MODEL.values())}, buffers=["1"])


def reading(
    kind: ReplyKind, model: Weights | None = MODEL, sets: Mapping[str, Weights | None] | None = None, **fields: Any
) -> Reading:
    """How replies are read to a request for updates of ``model``, or for sets, which by default fit its parameters."""
    parameters = None if model is None else tensors_of(model.filter(frozenset(model.parameters).__contains__))
    asked = {name: parameters if one is None else tensors_of(one) for name, one in (sets or {}).items()}
    return Reading(ReplySpec(kind=kind, tensors=None if model is None else tensors_of(model), sets=asked, **fields))


def sent(folder: Path, sets: dict[str, Weights], form: ModelForm) -> Path:
    path = folder / f"out ü{form.suffix}"
    write_sets(path, sets, form)
    write_metadata(path, {"num_examples": 5})
    return path


def read(asked: Reading, path: Path) -> tuple[Opened, Checked]:
    checked = asked.check(path, lambda name: MODEL)
    return asked.open(path, lambda name: MODEL), checked


def test_update_has_the_order_and_the_buffers_of_the_global_model(tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    write_model(path, Weights({name: MODEL[name] for name in reversed(list(MODEL))}), ModelForm(".npz"))
    write_metadata(path, {"num_examples": 5})
    opened, _ = read(reading(ReplyKind.UPDATE), path)
    assert list(opened.sets[""]) == list(MODEL)
    assert opened.sets[""].buffers == MODEL.buffers


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_sets_fit_the_parameters_unless_they_have_a_template(tmp_path: Path, suffix: Any) -> None:
    control = MODEL.filter("fc.*")
    path = sent(tmp_path, {"control": control, "x": MODEL}, ModelForm(suffix))
    reply, checked = read(reading(ReplyKind.SETS, sets={"x": MODEL, "control": None}), path)
    assert list(reply.sets) == ["x", "control"]
    assert reply.sets["x"].equal(MODEL)
    assert reply.sets["x"].buffers == MODEL.buffers
    assert reply.sets["control"].equal(control)
    assert checked.num_examples == 5.0
    with pytest.raises(Refused, match=r"set 'x': extra tensor 'bn\.running_mean'"):
        read(reading(ReplyKind.SETS, sets={"x": None, "control": None}), path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_positions_of_a_set_are_those_of_its_template(tmp_path: Path, suffix: Any) -> None:
    control = Weights({"0": torch.full((2, 3), 2.0), "1": torch.full((2,), 3.0)})  # weight and bias
    path = sent(tmp_path, {"control": control, "x": POSITIONS}, ModelForm(suffix, "positions"))
    reply, _ = read(reading(ReplyKind.SETS, POSITIONS, sets={"control": None, "x": POSITIONS}), path)
    assert list(reply.sets["control"]) == ["0", "3"]
    assert reply.sets["control"]["3"].tolist() == [3.0, 3.0]
    assert (POSITIONS + reply.sets["control"])["3"].tolist() == [4.0, 4.0]
    assert list(reply.sets["x"]) == ["0", "1", "2", "3"]
    with pytest.raises(Refused, match="set 'control': missing tensor"):  # the model itself has names
        read(reading(ReplyKind.SETS, sets={"control": None, "x": POSITIONS}), path)


def test_update_of_another_helper_is_told(tmp_path: Path) -> None:
    path = sent(tmp_path, {"": MODEL}, ModelForm(".npz", "positions"))
    with pytest.raises(Refused) as caught:
        read(reading(ReplyKind.UPDATE), path)
    assert str(caught.value.failure.message).endswith(
        "missing tensor 'fc.weight'; its keys are positions (numpyhelper or kerashelper), but the global model's "
        "are names (pytorchhelper)"
    )


def test_misspelt_set_is_told(tmp_path: Path) -> None:
    path = sent(tmp_path, {"contrl": MODEL}, ModelForm(".npz"))
    with pytest.raises(Refused, match="missing set 'control'; did you mean 'contrl'") as caught:
        read(reading(ReplyKind.SETS, sets={"control": MODEL}), path)
    assert caught.value.failure.kind == "mismatch"


def test_room_for_sets_is_that_of_all_their_templates(tmp_path: Path) -> None:
    parameters = MODEL.filter("fc.*").num_bytes
    sets = {"x": MODEL, "a": None, "b": None}
    expected = 2 * (MODEL.num_bytes + 2 * parameters) + DEFAULT_REPLY_BYTES
    assert reading(ReplyKind.SETS, sets=sets).max_bytes == expected
    assert reading(ReplyKind.SETS, None, sets=sets).max_bytes is None
    assert reading(ReplyKind.SETS, sets=sets, max_bytes=7).max_bytes == 7
    assert reading(ReplyKind.UPDATE).max_bytes == 2 * MODEL.num_bytes + DEFAULT_REPLY_BYTES


@pytest.mark.parametrize(
    ("dtype", "name", "value", "use", "message"),
    [
        ("float64", "w", 1.7e308, "averaged", r"'w' has values up to 1\.7e\+308, too large to average over 5 examples"),
        ("float64", "w", 1e300, "averaged", None),
        (
            "float64",
            "w",
            1e16,
            "stepped",
            r"'w' has values up to 1e\+16; this strategy allows parameters up to 1\.13e\+15",
        ),
        ("float64", "w", 1.7e308, "former", None),
        ("complex64", "w", 1e38, "averaged", "too large to average"),
        ("float32", "w", 1e30, "averaged", None),
        ("float32", "w", 1e20, "stepped", "this strategy allows parameters up to"),
        ("float32", "w", 1e20, "former", None),
        ("float32", "w", 1e38, "former", "too large to average"),
        ("float32", "bn.var", 1e20, "stepped", None),
        ("float16", "w", 60_000.0, "averaged", None),
        ("float16", "w", 60_000.0, "stepped", r"parameters up to 2\.05e\+03"),
        ("float16", "bn.var", 60_000.0, "stepped", None),
    ],
)
def test_number_that_would_make_the_round_infinite_is_its_clients_failure(
    tmp_path: Path, dtype: str, name: str, value: float, use: str, message: str | None
) -> None:
    kind = getattr(torch, dtype)
    model = Weights({"w": torch.ones(3, dtype=kind), "bn.var": torch.ones(3, dtype=kind)}, buffers=["bn.var"])
    large = Weights({**model, name: torch.tensor([0.0, -value, 1.0], dtype=kind)}, buffers=model.buffers)
    path = sent(tmp_path, {"x": large}, ModelForm(".safetensors"))
    asked = reading(ReplyKind.SETS, model, sets={"x": model}, use=use)
    if message is None:
        assert read(asked, path)[0].sets["x"].equal(large)
    else:
        with pytest.raises(Refused, match=message) as caught:
            read(asked, path)
        assert caught.value.failure.kind == "too_large"


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_records_hold_any_numbers_and_need_not_say_what_they_weigh(tmp_path: Path, suffix: Any) -> None:
    path = tmp_path / f"out{suffix}"
    records = Records({"x": Weights({"w": torch.tensor([float("nan"), float("inf")])})}, {"n": 3})
    write_records(path, records, ModelForm(suffix))
    opened, checked = read(reading(ReplyKind.RECORDS, suffix=suffix), path)
    assert opened.sets == {} and opened.records is not None and opened.records.data == {"n": 3}
    assert (checked.num_examples, checked.metadata, checked.metrics) == (1.0, {}, None)
    write_metadata(path, {"num_examples": 5, "took": 2})
    assert read(reading(ReplyKind.RECORDS, suffix=suffix), path)[1].num_examples == 5.0
    assert read(reading(ReplyKind.RECORDS, suffix=suffix, weighted=False), path)[1].num_examples == 1.0


def test_bytes_of_records_are_limited_also_where_there_is_no_model() -> None:
    assert reading(ReplyKind.RECORDS, None).max_bytes == RECORDS_BYTES
    assert (reading(ReplyKind.RECORDS).max_bytes or 0) > RECORDS_BYTES
    assert reading(ReplyKind.RECORDS, None, max_bytes=7).max_bytes == 7
