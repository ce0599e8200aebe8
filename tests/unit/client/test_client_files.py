"""What fedpkg.client reads and writes: every form and kind of reply, what is kept, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calls import Calls
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from fedpkg import client
from fedpkg.client import ClientError, arrays
from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import read_model, read_seed_model, write_model
from fedpkg.weights.weights import Weights


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))


def values(model: nn.Module, *, by_position: bool = False) -> dict[str, Any]:
    """A global model, other than the module is."""
    rng = np.random.default_rng(1)
    found = {}
    for position, (name, tensor) in enumerate(model.state_dict().items()):
        value = np.asarray(rng.standard_normal(tuple(tensor.shape)) * 10)
        found[str(position) if by_position else name] = value.astype(tensor.numpy().dtype)
    return found


def add_one(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)


PARAMETERS = [name for name, _ in net().named_parameters()]


@pytest.mark.parametrize("by_position", [False, True])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_weights_come_and_go_in_the_form_of_the_session(calls: Calls, suffix: str, by_position: bool) -> None:
    came = values(net(), by_position=by_position)
    model = net()

    def train(in_path: str, out_path: str) -> None:
        given = client.load(Path(in_path), model)
        assert list(given.weights) == list(model.state_dict())
        add_one(model)
        client.save(out_path, model, given, num_examples=7, loss=torch.tensor(0.5))

    files = came if suffix == ".npz" else {name: torch.from_numpy(value) for name, value in came.items()}
    went = calls(train, files, suffix=suffix)
    assert set(went) == set(came) and calls.metadata == {"num_examples": 7, "loss": 0.5}
    for key, (name, tensor) in zip(came, model.state_dict().items(), strict=True):
        np.testing.assert_array_equal(np.asarray(went[key]), tensor.numpy())
        assert went[key].shape == came[key].shape and np.asarray(went[key]).dtype == came[key].dtype
        if name in PARAMETERS:
            np.testing.assert_allclose(np.asarray(went[key]), came[key] + 1, rtol=1e-6)


@pytest.mark.parametrize("by_position", [False, True])
@pytest.mark.parametrize("said", [False, True])
def test_a_delta_and_a_gradient_have_the_parameters_alone(calls: Calls, by_position: bool, said: bool) -> None:
    model = net()
    came = values(model, by_position=by_position)
    keys = [key for key, name in zip(came, model.state_dict(), strict=True) if name in PARAMETERS]

    def train(in_path: str, out_path: str) -> None:
        given = client.load(in_path, model)
        add_one(model)
        client.save(out_path, model, given, num_examples=1)

    def gradient(in_path: str, out_path: str) -> None:
        given = client.load(in_path, model)

        def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
            return 3 * torch.stack([p.sum() for p in model.parameters()]).sum()

        client.save(out_path, given=given, sets=client.gradients(model, given, loss, [torch.ones(4)]), num_examples=4)

    facts = {"parameter_names": keys} if said else {}
    names = [str(i) for i in range(len(keys))] if by_position else keys
    delta = calls(train, came, reply="delta", **facts)
    assert list(delta) == names
    assert all(np.allclose(delta[name], 1, atol=1e-5) for name in names)
    whole = calls(train, came, reply="delta", rest=True, **facts)  # what is no parameter comes with it, as it is
    own = list(values(model, by_position=by_position).values())
    assert [np.array_equal(array, own[i]) for i, array in enumerate(whole.values())] == [
        name not in PARAMETERS for name in model.state_dict()
    ]
    found = calls(gradient, came, reply="gradient", **facts)
    assert list(found) == names and all((found[name] == 3).all() for name in names)


def test_replies_are_in_the_dtypes_of_the_global_model(calls: Calls) -> None:
    came = {name: value.astype(np.float16 if value.dtype.kind == "f" else value.dtype) for name, value in
            values(net()).items()}  # fmt: skip
    model = net()

    def train(in_path: str, out_path: str) -> None:
        client.save(out_path, model, client.load(in_path, model), num_examples=1)

    for kind in ("weights", "delta"):
        went = calls(train, came, reply=kind)
        assert {str(array.dtype) for array in went.values()} <= {"float16", "int64"}


def test_what_the_strategy_calls_a_parameter_is_one(calls: Calls) -> None:
    """A buffer whose name does not tell is one to the server, unless the seed's metadata says so: save writes it."""
    model = nn.Module()
    model.register_parameter("w", nn.Parameter(torch.zeros(2)))
    model.register_buffer("ema", torch.zeros(2))
    model.register_buffer("scratch", torch.zeros(1), persistent=False)

    def train(in_path: str, out_path: str) -> None:
        client.save(out_path, model, client.load(in_path, model), num_examples=1)

    came = {"w": np.ones(2, np.float32), "ema": np.ones(2, np.float32)}
    assert list(calls(train, came, reply="delta", parameter_names=["w", "ema"])) == ["w", "ema"]
    assert list(calls(train, came, reply="delta", parameter_names=["w"])) == ["w"]
    seed = calls.folder / "seed.npz"
    calls(lambda _in, _out: client.save(seed, model), came, entry_point="build")
    weights, _ = read_seed_model(seed)
    assert weights.buffers == {"ema"} and set(weights) == {"w", "ema"}


def test_sets_that_are_asked_for_go_under_their_names(calls: Calls) -> None:
    model = net()
    came = values(model, by_position=True)
    keys = [str(i) for i, name in enumerate(model.state_dict()) if name in PARAMETERS]
    c = {f"c/{i}": came[key] for i, key in enumerate(keys)}  # a set of parameters counts on its own
    sets: dict[str, dict[str, Any]] = {}

    def train(in_path: str, out_path: str) -> None:
        given = client.load(in_path, model)
        assert given.point == "x" and list(given.sets["c"]) == PARAMETERS
        for position, name in enumerate(PARAMETERS):
            assert torch.equal(given.sets["c"][name], torch.from_numpy(c[f"c/{position}"]))
        sets["dc"] = dict(reversed(list(given.sets["c"].items())))
        client.save(out_path, model, given, sets=sets, num_examples=1)

    facts = {"reply_sets": ["x", "dc"], "parameter_names": keys}
    went = calls(train, {**{f"x/{key}": value for key, value in came.items()}, **c}, **facts)
    assert sorted(went) == sorted([*(f"x/{key}" for key in came), *(f"dc/{i}" for i in range(len(keys)))])
    for i in range(len(keys)):
        np.testing.assert_array_equal(went[f"dc/{i}"], c[f"c/{i}"])


def test_what_is_missing_is_said(calls: Calls, tmp_path: Path) -> None:
    came, model = values(net()), net()

    def train(sets: Any = None, **more: Any) -> Any:
        def run(in_path: str, out_path: str) -> None:
            client.save(out_path, given=client.load(in_path, model), sets=sets, num_examples=1, **more)

        return run

    for function, facts, message in (
        (train(), {"reply": "gradient"}, "expects a gradient\n  hint  save"),
        (train(), {}, "save needs the model"),
        (train({"dc": {}}), {}, "the set 'dc' was not requested"),
        (train(model=model), {"reply_sets": ["", "dc"]}, "expects the set 'dc'"),
        (train({"": {}}), {"reply_sets": ["", "y"]}, "expects the set 'y'"),
        (lambda _in, out: client.save(out, model), {}, "save needs the return value of load"),
        (lambda path, _out: client.load(path, nn.Linear(3, 2)), {}, "the file has no tensor 'weight'"),
        (lambda path, _out: client.load(path, nn.Sequential(nn.Linear(3, 2))), {}, "the module has no tensor '1"),
        (lambda path, _out: client.load(path, nn.Sequential(nn.Linear(3, 1), *net()[1:])), {}, "shape \\(2, 3\\), the"),
        (lambda path, _out: client.prox(model, client.load(path, model)), {}, "not a request for a proximal step"),
        (lambda _in, _out: client.matching(model, "2.wieght"), {}, "matches no tensor of the model\n  hint .*2.weight"),
        (lambda _in, _out: client.keep("a/b", {}), {}, "cannot be a name for kept tensors"),
        (lambda _in, _out: client.gradient(model, lambda m, b: m(b).sum(), []), {}, "no batch"),
    ):
        with pytest.raises(client.ClientError, match=message):
            calls(function, came, **facts)
    with pytest.raises(client.ClientError, match="16 tensors under positions, but the module has 9"):
        calls(lambda path, _out: client.load(path, model), {str(i): np.zeros(1) for i in range(16)})


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no zip", b"\xff" * 40, b"\2\0\0\0\0\0\0\0[]", b"\x80\4K\1."])
def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "schlecht.npz"
    path.write_bytes(content)
    with pytest.raises(client.ClientError, match=r"schlecht.npz: cannot be read as .npz or .safetensors"):
        client.load(path, net())
    np.savez(path, w=np.array([{}], dtype=object))
    with pytest.raises(client.ClientError, match="it has the dtype object, and is no array of numbers"):
        client.load(path, net())


def test_task_says_what_its_file_does_and_what_is_usual_without(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(_in: str, _out: str) -> None:
        now = client.task()
        assert (now.client_id, now.round_number, now.seed, now.by_hand) == ("client-2", 4, 9, False)
        assert now.parameters == {"proximal_mu": 0.5} and now.reply_sets == ("x", "dc")
        assert now.state_folder == str(tmp_path / "state" / "client-2")

    calls(train, {"w": np.zeros(1)}, client="client-2", round_number=4, seed=9, parameters={"proximal_mu": 0.5},
          reply_sets=["x", "dc"], unheard_of=1)  # fmt: skip
    monkeypatch.setenv("FEDPKG_TASK", str(tmp_path / "nichts.json"))
    with pytest.raises(client.ClientError, match=r"\(from FEDPKG_TASK\).*\n.*unset"):
        client.task()
    monkeypatch.delenv("FEDPKG_TASK")
    monkeypatch.delenv("FEDPKG_STATE_DIR")
    assert client.task() == client.Task()
    client.keep("own", {"w": torch.ones(1)})
    assert client.kept("own") is None


def test_a_script_runs_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FEDPKG_TASK", "FEDPKG_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    model, seed, out = net(), tmp_path / "seed ü.npz", tmp_path / "out.npz"
    client.save(seed, model)
    given = client.load(seed, model)
    scaffold = client.Scaffold(model, given)
    scaffold.correct_gradients()
    client.save(out, model, given, num_examples=3, sets=scaffold.finish(learning_rate=1))
    assert sorted(read_model(out)) == sorted(model.state_dict())
    sets = {f"{name}/{key}": value for name in ("x", "c") for key, value in values(model).items()}
    np.savez(seed, **sets)
    given = client.load(seed, model)
    scaffold = client.Scaffold(model, given)
    scaffold.correct_gradients()
    client.save(out, model, given, num_examples=3, sets=scaffold.finish(learning_rate=1))
    assert {name.partition("/")[0] for name in read_model(out)} == {"x", "dc"}
    assert json.loads(Path(f"{out}-metadata").read_text()) == {"num_examples": 3}


# ---- what is kept


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8),
            st.sampled_from(
                [getattr(torch, name) for name in arrays.CODES if name not in ("uint16", "uint32", "uint64")]
            ),
            st.lists(st.integers(0, 3), max_size=3),
        ),
        unique_by=lambda entry: entry[0],
    )
)
def test_what_is_kept_comes_back_bit_by_bit_and_is_what_others_read(tmp_path: Path, drawn: list[Any]) -> None:
    path = tmp_path / "fedpkg own.safetensors"
    tensors = {name: (torch.rand(shape) * 100).to(dtype) for name, dtype, shape in drawn if name != "__metadata__"}
    arrays.write(str(path), tensors)
    again = arrays.read(str(path))
    assert list(again) == list(tensors)
    assert Weights(again).equal(Weights(tensors))
    if tensors:
        assert read_model(path).equal(Weights(tensors))
        write_model(theirs := tmp_path / "theirs.safetensors", Weights(tensors), ModelForm(".safetensors"))
        assert theirs.read_bytes() == path.read_bytes()


def test_an_interrupted_write_leaves_what_was_kept(calls: Calls) -> None:
    def train(_in: str, _out: str) -> None:
        client.keep("own", {"w": torch.ones(2)})
        with pytest.raises(client.ClientError, match=r"cannot hold torch\.complex128"):
            client.keep("own", {"v": torch.zeros(1), "w": torch.zeros(1, dtype=torch.complex128)})
        kept = client.kept("own")
        assert kept is not None and list(kept) == ["w"] and torch.equal(kept["w"], torch.ones(2))

    calls(train, {"w": np.zeros(1)})
    assert [path.name for path in (calls.folder / "state").rglob("*.*")] == ["fedpkg-own.safetensors"]


def test_a_narrow_tensor_that_npz_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(client.ClientError, match=r"an .npz file cannot hold torch.bfloat16"):
        arrays.write(str(tmp_path / "m.npz"), {"w": torch.zeros(1, dtype=torch.bfloat16)})
    assert not list(tmp_path.iterdir())


def test_files_of_numpy_in_any_order_of_bytes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez_compressed(path, big=np.arange(3, dtype=">f4"), fortran=np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    found = arrays.read(str(path))
    assert found["big"].tolist() == [0, 1, 2] and found["fortran"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_importing_it_loads_neither_numpy_nor_torch_nor_the_rest_of_fedpkg() -> None:
    code = """
import sys, fedpkg.client
heavy = {"numpy", "torch"} & sys.modules.keys()
rest = [name for name in sys.modules if name.startswith("fedpkg.") and not name.startswith("fedpkg.client")]
print(sorted(heavy), rest)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] []\n"


@pytest.mark.parametrize("value", [{1, 2}, torch.ones(3), {"deep": [object()]}, 1j, {(1, 2): 3}])
def test_a_metric_that_json_does_not_have_is_named(tmp_path: Path, value: Any) -> None:
    with pytest.raises(client.ClientError, match="'wrong' cannot be written as JSON"):
        client.save_metrics(tmp_path / "ü.json", {"right": torch.tensor(2), "wrong": value})
    assert not list(tmp_path.iterdir())
    client.save_metrics(tmp_path / "ü.json", {"right": torch.tensor(2), "rest": np.float32(0.5), "none": {}})
    assert json.loads((tmp_path / "ü.json").read_text()) == {"right": 2, "rest": 0.5, "none": {}}


class GradSampleModule(nn.Module):
    """As Opacus has it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self._module(x)
        return out


@pytest.mark.parametrize("wrapper", [nn.DataParallel, GradSampleModule, lambda m: GradSampleModule(nn.DataParallel(m))])
@pytest.mark.parametrize("by_position", [False, True])
def test_wrapped_models_are_seen_through(calls: Calls, wrapper: Any, by_position: bool) -> None:
    model = net()
    wrapped, came = wrapper(model), values(model, by_position=by_position)
    for tensor in model.state_dict().values():
        tensor.zero_()
    assert not set(model.state_dict()) & set(wrapped.state_dict())

    def train(in_path: str, out_path: str) -> None:
        given = client.load(in_path, wrapped)
        correction = client.fedprox(wrapped, given, mu=1.0)
        add_one(model)
        correction.correct_gradients()
        first = model.state_dict()
        assert all(torch.equal(p.grad, p - given.weights[name]) for name, p in model.named_parameters())  # type: ignore[arg-type]
        assert client.matching(wrapped, "*") == list(first)
        client.save(out_path, wrapped, given, num_examples=1)

    went = calls(train, came)
    assert list(went) == list(came)
    for key, tensor in zip(came, model.state_dict().values(), strict=True):
        np.testing.assert_array_equal(went[key], tensor.numpy())


def test_save_of_another_module_than_load_filled_is_refused_with_both_names(calls: Calls) -> None:
    model = net()
    came = values(model)
    name = next(iter(came))

    def train(in_path: str, out_path: str) -> None:
        given = client.load(in_path, model)
        client.save(out_path, nn.Sequential(model), given, num_examples=1)

    words = f"save: the module has no tensor '{name}'; its first is '0.{name}'"
    with pytest.raises(ClientError, match=re.escape(words)):
        calls(train, came)


def test_module_that_cannot_be_filled_is_refused_with_both_names(calls: Calls) -> None:
    model = net()
    came = values(model)
    inner = nn.Sequential(*[GradSampleModule(layer) for layer in model]) if isinstance(model, nn.Sequential) else None
    assert inner is not None
    with torch.device("meta"):
        empty = net()
    name = next(iter(came))
    layer, _, rest = name.partition(".")
    for module, words in (
        (inner, f"the tensor '{name}' in the file is '{layer}._module.{rest}' in the module"),
        (empty, f"the module's tensor '{name}' is on the device 'meta'"),
    ):
        with pytest.raises(ClientError, match=re.escape(words)):
            calls(lambda in_path, _, module=module: client.load(in_path, module), came)  # type: ignore[misc]
