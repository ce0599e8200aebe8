"""The algebra of Weights is that of one flat vector of parameters: values, gradients, and what is no parameter."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import plain_algebra as reference
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedpkg.errors import ModelMismatch
from fedpkg.weights.weights import Weights

SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=5)


def weights_of(shapes: list[tuple[int, ...]], seed: int, *, requires_grad: bool = False) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {
        f"p{k}": torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(requires_grad)
        for k, shape in enumerate(shapes)
    }
    tensors["running_mean"] = torch.full((2,), float(seed))
    tensors["num_batches_tracked"] = torch.tensor(seed)
    return Weights(tensors, buffers=["running_mean", "num_batches_tracked"])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.relu(self.norm(self.first(x))))
        return out


def trained_net() -> Net:
    model = Net()
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().sum().backward()
    return model


Operation = Callable[[Weights, Weights], Weights]
# Each beside what it must agree with.
OPERATIONS: dict[str, tuple[Operation, Operation]] = {
    "add": (lambda x, y: x + y, reference.add),
    "subtract": (lambda x, y: x - y, reference.subtract),
    "scale": (lambda x, y: 2.5 * x, lambda x, y: reference.scale(x, 2.5)),
    "scale from the right": (lambda x, y: x * 3, lambda x, y: reference.scale(x, 3)),
    "scale by a NumPy number": (lambda x, y: np.float64(1.5) * x, lambda x, y: reference.scale(x, 1.5)),
    "divide": (lambda x, y: x / 4, lambda x, y: reference.divide(x, 4)),
    "negate": (lambda x, y: -x, lambda x, y: reference.negate(x)),
    "axpby": (lambda x, y: Weights.axpby(2.0, x, -0.5, y), lambda x, y: reference.axpby(2.0, x, -0.5, y)),
    "mean": (lambda x, y: Weights.mean([x, y], [1, 3]), lambda x, y: reference.mean([x, y], [1, 3])),
    "scale by a product": (lambda x, y: Weights.dot(x, y) * x, lambda x, y: reference.scale(x, reference.dot(x, y))),
    "divide by a norm": (lambda x, y: x / (1 + y.norm()), lambda x, y: reference.divide(x, 1 + reference.norm(y))),
}
IN_PLACE: dict[str, tuple[Operation, Operation]] = {
    "add_": (lambda x, y: x.add_(y, alpha=-2.0), lambda x, y: reference.add_(x, y, alpha=-2.0)),
    "lerp_": (lambda x, y: x.lerp_(y, 0.25), lambda x, y: reference.lerp_(x, y, 0.25)),
    "axpby_": (lambda x, y: x.axpby_(3.0, y, 0.5), lambda x, y: reference.axpby_(x, 3.0, y, 0.5)),
}


def reordered(x: Weights) -> Weights:
    """The same vector with its names the other way round: operands pair up by name."""
    return Weights({name: x[name] for name in reversed(list(x))}, buffers=x.buffers)


def gradients(x: Weights) -> Tensor:
    """Of all parameters, zeros where nothing flowed back."""
    tensors = [x[name] for name in x.parameters]
    return torch.cat([torch.zeros_like(t).reshape(-1) if t.grad is None else t.grad.reshape(-1) for t in tensors])


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=25)
@given(shapes=SHAPES)
def test_operation_agrees_with_the_reference_in_values_and_gradients(name: str, shapes: list[tuple[int, ...]]) -> None:
    results, slopes, rests = [], [], []
    for operation in OPERATIONS[name]:
        x, y = weights_of(shapes, 1, requires_grad=True), weights_of(shapes, 2, requires_grad=True)
        result = operation(x, reordered(y))
        if result.to_flat().numel():
            result.to_flat().square().sum().backward()
        assert list(result) == list(x) and result.buffers == x.buffers
        rests.append({name: result[name] for name in result.buffers})
        results.append(result.to_flat())
        slopes.append(torch.cat([gradients(x), gradients(y)]))
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*slopes)
    torch.testing.assert_close(*rests)


@pytest.mark.parametrize("name", IN_PLACE)
@settings(max_examples=25)
@given(shapes=SHAPES)
def test_in_place_operation_agrees_with_the_reference(name: str, shapes: list[tuple[int, ...]]) -> None:
    results = []
    for operation in IN_PLACE[name]:
        x, y = weights_of(shapes, 1), weights_of(shapes, 2)
        memory = [x[name].data_ptr() for name in x.parameters]
        assert operation(x, reordered(y)) is x
        assert [x[name].data_ptr() for name in x.parameters] == memory
        assert x["num_batches_tracked"] == 1
        results.append(x.to_flat())
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_operation_on_itself(name: str) -> None:
    in_place, plain = IN_PLACE[name]
    x, same = weights_of([(2, 3), (4,)], 1), weights_of([(2, 3), (4,)], 1)
    torch.testing.assert_close(in_place(x, Weights(x, buffers=x.buffers)).to_flat(), plain(same, same).to_flat())


@settings(max_examples=40)
@given(shapes=SHAPES, p=st.sampled_from([1, 1.5, 2, 3, math.inf]))
def test_dot_and_norm_agree_with_the_reference(shapes: list[tuple[int, ...]], p: float) -> None:
    x, y = weights_of(shapes, 1), weights_of(shapes, 2)
    torch.testing.assert_close(Weights.dot(x, reordered(y)).double(), reference.dot(x, y))
    if x.to_flat().numel():
        torch.testing.assert_close(x.norm(p), reference.norm(x, p))


def test_parameters_are_not_gone_through_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the fast form is for: a list of tensors costs one call."""
    x = weights_of([(2,)] * 20, 1)
    for operation, _ in (OPERATIONS["add"], OPERATIONS["scale"], IN_PLACE["add_"], IN_PLACE["lerp_"]):
        with torch.profiler.profile() as profile:
            operation(x, x.clone())
        calls = [event.name for event in profile.events() if event.name.startswith("aten::_foreach")]
        assert len(calls) == 1, calls


@pytest.mark.parametrize("away", [0.0, 0.1])
def test_gradients_of_a_method_equal_those_on_one_flat_vector(away: float) -> None:
    model = trained_net()
    grad_x = Weights.from_grads(model)
    model.zero_grad()
    x_t = Weights.from_model(model).clone()
    if away:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(away)
    x = Weights.from_model(model)
    flat = x.to_flat().detach().requires_grad_()
    loss = Weights.dot(0.3 * grad_x, x) + (x - x_t).norm(p=2)
    loss.backward()
    (torch.dot(0.3 * grad_x.to_flat(), flat) + torch.linalg.vector_norm(flat - x_t.to_flat())).backward()
    got = Weights.from_grads(model).to_flat()
    assert flat.grad is not None
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got, flat.grad)
    if not away:
        torch.testing.assert_close(got, 0.3 * grad_x.to_flat())


@pytest.mark.parametrize("p", [1, 2, 3, math.inf])
def test_norm_at_zero_has_the_gradient_zero(p: float) -> None:
    tensor = torch.zeros(5, requires_grad=True)
    Weights({"w": tensor, "empty": torch.zeros(0, requires_grad=True)}).norm(p).backward()
    assert tensor.grad is not None and torch.equal(tensor.grad, torch.zeros(5))


@pytest.mark.parametrize("p", [2, 3])
def test_second_derivative_of_the_norm_is_right_where_one_tensor_is_zero(p: float) -> None:
    def second(norm: Callable[[Weights, float], Tensor]) -> list[Tensor]:
        x = Weights({"zero": torch.zeros(3).double(), "w": torch.tensor([3.0, -4.0]).double()})
        tensors = [tensor.requires_grad_() for tensor in x.values()]
        first = torch.autograd.grad(norm(x, p), tensors, create_graph=True)
        return list(torch.autograd.grad(first[0].sum() + first[1][0], tensors))

    for found, expected in zip(second(Weights.norm), second(reference.norm), strict=True):
        torch.testing.assert_close(found, expected)


def test_weights_point_at_the_model_and_gradients_do_not() -> None:
    model = trained_net()
    x, grads = Weights.from_model(model), Weights.from_grads(model)
    kept = grads.to_flat().clone()
    model.zero_grad()
    model(torch.randn(8, 4)).sum().backward()
    assert torch.equal(grads.to_flat(), kept)
    assert x["first.weight"] is model.first.weight
    assert x.buffers == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert "norm.running_mean" not in grads
    assert list(x) == list(model.state_dict())


def test_gradient_that_is_none_counts_as_zero() -> None:
    model = Net()
    assert not Weights.from_grads(model).to_flat().any()
    assert len(Weights.from_grads(model).parameters) == len(list(model.parameters()))


def test_to_model_copies_data_only() -> None:
    source, target = trained_net(), Net()
    x = 2 * Weights.from_model(source)
    x.to_model(target)
    assert torch.equal(target.first.weight, 2 * source.first.weight)
    assert target.first.weight.is_leaf and target.first.weight.requires_grad and target.first.weight.grad is None
    with torch.no_grad():
        source.first.weight.zero_()
    assert target.first.weight.any()
    Weights.from_grads(source).to_model(target)
    assert torch.equal(target.last.bias, source.last.bias.grad)  # type: ignore[arg-type]


def test_to_model_takes_weights_of_every_kind() -> None:
    model, other = trained_net(), Net()
    x = Weights.from_model(model)
    kinds = {
        "a result with a graph": x + x,
        "gradients": Weights.from_grads(model),
        "a clone": x.clone(),
        "frozen": Weights.from_model(model).freeze(),
        "another dtype": x.to(dtype=torch.float64),
        "views of a flat vector": x.from_flat(torch.arange(x.to_flat().numel(), dtype=torch.float32)),
        "not contiguous": Weights({name: x[name].t().clone().t() if x[name].dim() == 2 else x[name] for name in x}),
        "the model itself": Weights.from_model(other),
    }
    for kind, weights in kinds.items():
        expected = {name: weights[name].detach().float().clone() for name in weights.parameters}
        weights.to_model(other)
        for name, parameter in other.named_parameters():
            assert torch.equal(parameter.detach(), expected[name]), kind
            assert parameter.is_leaf and parameter.requires_grad and parameter.grad is None, kind


def test_to_model_that_does_not_fit_changes_nothing() -> None:
    model = Net()
    before = Weights.from_model(model).clone()
    for change, message in (
        ({"first.weight": torch.zeros(1, 4)}, r"has shape \(1, 4\), the model's has \(3, 4\)"),
        ({"evil": torch.zeros(1)}, "extra tensor 'evil'"),
    ):
        with pytest.raises(ModelMismatch, match=message):
            Weights({**before, **change}).to_model(model)
    with pytest.raises(ModelMismatch, match=r"missing tensor 'first\.weight'"):
        before.filter("last.*").to_model(model)
    assert Weights.from_model(model).equal(before)


def test_clone_and_freeze_leave_the_model_alone() -> None:
    model = Net()
    clone = Weights.from_model(model).clone()
    clone.add_(clone)
    assert torch.equal(clone["first.bias"], 2 * model.first.bias)
    frozen, detached = Weights.from_model(model).freeze(), Weights.from_model(model).detach()
    from_dict = Weights(model.state_dict()).freeze()
    assert not frozen["first.bias"].requires_grad and model.first.bias.requires_grad
    assert not detached["first.bias"].requires_grad
    before = frozen.clone()
    with torch.no_grad():
        model.first.bias += 1
        assert model.norm.running_mean is not None
        model.norm.running_mean += 1
    assert frozen.equal(before), "they keep their values while the model is trained"
    assert torch.equal(from_dict["first.bias"], before["first.bias"])
    assert torch.equal(detached["first.bias"], model.first.bias)
    own = Weights({"w": torch.ones(2, requires_grad=True)})
    assert own.freeze() is own and not own["w"].requires_grad


def test_frozen_weights_of_a_model_give_the_gradients_of_their_first_listing() -> None:
    """``x_t.clone()``, whose result is not kept, then ``x_t.freeze()``: x_t is the point that the step began at."""
    model = trained_net()
    x_t = Weights.from_model(model)
    x_t.clone()
    x_t.freeze()
    start = Weights.from_model(model).clone()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.zero_grad()
    x = Weights.from_model(model)
    loss = (x - x_t).norm() ** 2 / 2
    loss.backward()
    difference = (x - start).to_flat()
    assert difference.any()
    torch.testing.assert_close(Weights.from_grads(model).to_flat(), difference.detach())


BUFFERS = st.lists(st.integers(-(10**6), 10**6).map(lambda n: n / 7), min_size=2, max_size=2)


@settings(max_examples=60)
@given(one=BUFFERS, other=BUFFERS, counts=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_sums_agree_in_all_bits_whichever_operand_comes_first(
    one: list[float], other: list[float], counts: tuple[int, int]
) -> None:
    def made(values: list[float], count: int) -> Weights:
        tensors = {"w": torch.tensor(values), "var": torch.tensor(values), "seen": torch.tensor(count)}
        return Weights(tensors, buffers=["var", "seen"])

    a, b = made(one, counts[0]), made(other, counts[1])
    gradient = Weights({"w": torch.ones(2)})
    for x, y in ((a, b), (a, gradient), (a, made(one, counts[0]))):
        assert (x + y).equal(y + x)
        assert torch.equal((x - y).to_flat(), -(y - x).to_flat()) and torch.equal((x - y)["var"], (y - x)["var"])
        assert Weights.axpby(0.5, x, 2.0, y).equal(Weights.axpby(2.0, y, 0.5, x))
        assert Weights.mean([x, y], [1, 3]).equal(Weights.mean([y, x], [3, 1]))
    for x in (a + b, a - b, Weights.axpby(3.0, a, -0.5, b), Weights.mean([a, b], [-1, 2])):
        low, high = torch.minimum(a["var"], b["var"]), torch.maximum(a["var"], b["var"])
        room = 1e-6 * high.abs().maximum(low.abs())
        assert torch.all((x["var"] >= low - room) & (x["var"] <= high + room)), "within the operands' range"
        assert int(x["seen"]) == max(counts)
    assert (gradient + a)["var"] is a["var"] and (a - gradient)["var"] is a["var"]


def test_weights_are_summed_multiplied_mapped_and_compared() -> None:
    x, y = weights_of([(2, 3), ()], 1), weights_of([(2, 3), ()], 2)
    assert sum([x, y]).equal(x + y) and sum([x]) is x  # type: ignore[union-attr]
    assert x.dot(y) == Weights.dot(x, y) == x @ y
    torch.testing.assert_close(x.map(torch.abs).to_flat(), x.to_flat().abs())
    torch.testing.assert_close(x.map(torch.maximum, reordered(y)).to_flat(), x.to_flat().maximum(y.to_flat()))
    assert x.map(torch.abs)["running_mean"] is x["running_mean"]
    with pytest.raises(ModelMismatch, match=r"map: the function returned shape \(\) for 'p0' of shape \(2, 3\)"):
        x.map(torch.sum)
    assert (x + y - y).allclose(x) and not x.allclose(y) and x.to(torch.float32).allclose(x, rtol=1e-6)
    with pytest.raises(ModelMismatch, match="only one of them has"):
        x.allclose(x.filter("p0"))
    assert x.to(torch.float32)["p0"].dtype == torch.float32 == x.to("cpu", torch.float32)["p0"].dtype
    with pytest.raises(TypeError):
        1 + x  # type: ignore[operator]
    with pytest.raises(TypeError):
        x @ 2  # type: ignore[operator]
    with pytest.raises(TypeError, match="must be Weights, not int"):
        x.allclose(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="map: the function returned float for parameter 'p0', not a tensor"):
        x.map(lambda tensor: float(tensor.sum()))  # type: ignore[arg-type,return-value]


def test_complex_products_are_conjugated_in_the_left() -> None:
    x = Weights({"w": torch.tensor([1j, 2.0])})
    y = Weights({"w": torch.tensor([1j, 1j])})
    assert (x @ y, x @ x) == (torch.vdot(x["w"], y["w"]), 5)
    assert float(x.norm()) == pytest.approx(5**0.5) and not x.norm().is_complex()


@pytest.mark.parametrize(
    "weights", [[1, -1], [0.0, 0.0], [torch.tensor(2.0), torch.tensor(-2.0)], [1, math.nan], [math.inf, 1]]
)
def test_mean_with_weights_of_sum_0_or_without_a_finite_sum_is_an_error(weights: list[float]) -> None:
    x = weights_of([(2,)], 1)
    with pytest.raises(ValueError, match="sum is finite and not 0"):
        Weights.mean([x, x], weights)


def test_long_sums_are_right_to_six_digits() -> None:
    """10^7 equal numbers: a plain sum in float32 is wrong in the third digit."""
    x = Weights({"w": torch.full((10_000_000,), 0.1)})
    exact = float(torch.tensor(0.1).double()) ** 2 * 1e7
    for found, expected in ((x.norm(), exact**0.5), (x @ x, exact), (x.norm(1), (exact * 1e7) ** 0.5)):
        assert found.dtype == torch.float32 and float(found) == pytest.approx(expected, rel=1e-6)
    x["w"].requires_grad_()
    assert float(x.norm().detach()) == pytest.approx(exact**0.5, rel=1e-6)


def test_transforms_of_functions_take_and_return_weights() -> None:
    x, y = weights_of([(2, 3), (4,)], 1), weights_of([(2, 3), (4,)], 2)

    def loss(x: Weights) -> Tensor:
        return (2 * x - y).norm() ** 2 / 2 + x.dot(y) + Weights.axpby(1.0, x, -1.0, y).dot(Weights.mean([x, y]))

    slope = torch.func.grad(loss)(x)
    own = Weights({name: tensor.clone().requires_grad_(name in x.parameters) for name, tensor in x.items()})
    loss(Weights(own, buffers=x.buffers)).backward()
    assert isinstance(slope, Weights) and slope.buffers == x.buffers
    torch.testing.assert_close(slope.to_flat(), torch.cat([own[name].grad.reshape(-1) for name in x.parameters]))  # type: ignore[union-attr]

    both = _stacked(x, 2 * x)
    norms = torch.func.vmap(lambda x: (x + y).norm())(both)
    torch.testing.assert_close(norms, torch.stack([(x + y).norm(), (2 * x + y).norm()]))
    slopes = torch.func.vmap(torch.func.grad(loss))(both)
    torch.testing.assert_close(slopes["p0"][0], slope["p0"])
    layer = nn.Linear(2, 1)
    second = torch.func.jacrev(lambda x: 2 * x)(x)
    assert torch.equal(second["p1"]["p1"], 2 * torch.eye(4)) and repr(second).startswith("Weights({'p0': Weights(")
    found = torch.func.functional_call(layer, dict(Weights.from_model(layer) * 0), torch.ones(1, 2))
    assert torch.equal(found, torch.zeros(1, 1))


def _stacked(*rows: Weights) -> Weights:
    return Weights({name: torch.stack([row[name] for row in rows]) for name in rows[0].parameters})


def test_only_what_is_trained_leaves_and_enters_a_model() -> None:
    model, other = Net(), trained_net()
    model.first.weight.requires_grad_(False)
    x = Weights.from_model(model, trainable=True)
    assert "first.weight" not in x and not x.buffers and "first.bias" in x
    before = other.first.weight.detach().clone()
    (2 * x).to_model(other, strict=False)
    assert torch.equal(other.first.bias, 2 * model.first.bias) and torch.equal(other.first.weight, before)
    Weights({"of another model": torch.ones(1), "last.bias": torch.ones(2)}).to_model(other, strict=False)
    assert other.last.bias.sum() == 2
    with pytest.raises(ModelMismatch, match="shape"):
        Weights({"last.bias": torch.ones(3)}).to_model(other, strict=False)
    with pytest.raises(ModelMismatch, match="extra tensor 'another', and no tensor is in both"):
        Weights({"another": torch.ones(3)}).to_model(other, strict=False)


def test_wrapped_models_have_the_names_of_what_is_in_the_wrapper() -> None:
    model = trained_net()
    x = Weights.from_model(model)
    for wrapped in (nn.DataParallel(model), GradSampleModule(model), GradSampleModule(nn.DataParallel(model))):
        assert not any(name in x for name in wrapped.state_dict())
        assert list(Weights.from_model(wrapped)) == list(x)
        assert Weights.from_grads(wrapped).equal(Weights.from_grads(model))
        (x + x).to_model(wrapped)
        assert Weights.from_model(wrapped)["first.bias"] is model.first.bias


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.compile imports
def test_compiled_model_has_the_names_of_the_model() -> None:
    model = Net()
    compiled = torch.compile(model)
    assert "_orig_mod.first.weight" in compiled.state_dict()
    assert list(Weights.from_model(compiled)) == list(Weights.from_model(model))


class GradSampleModule(nn.Module):
    """As Opacus has it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module


def test_models_without_data_or_shapes_are_refused() -> None:
    with torch.device("meta"):
        empty = Net()
    x = Weights.from_model(Net())
    with pytest.raises(
        ModelMismatch, match=r"(?s)'first.weight' is on the device 'meta', which holds no data.*to_empty"
    ):
        x.to_model(empty)
    model = Net()
    before = Weights.from_model(model).clone()
    with pytest.raises(ModelMismatch, match=r"tensor 'first\.weight' is on the device 'meta'"):
        Weights.from_model(empty).to_model(model)
    assert Weights.from_model(model).equal(before)
    with pytest.raises(
        ModelMismatch, match=r"(?s)'weight' of a lazy layer has no shape yet.*call the model on an input"
    ):
        Weights.from_model(nn.LazyLinear(3))
    with pytest.raises(ValueError, match="a norm needs a number p >= 1, not 'fro'"):
        x.norm("fro")  # type: ignore[arg-type]


def test_tied_parameter_counts_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    assert Weights.from_model(model).parameters == ("0.weight",)
    both = Weights({name: tensor + 1 for name, tensor in model.state_dict().items()})  # as a model file has them
    assert list(both) == ["0.weight", "1.weight"]
    both.to_model(model)
    assert torch.equal(model[1].weight, both["0.weight"])


@pytest.mark.parametrize("name", ["add_", "lerp_", "axpby_"])
def test_tied_parameters_under_two_names_are_changed_once(name: str) -> None:
    tied = torch.tensor([1.0, 2.0])
    x = Weights({"a": tied, "b": tied.view(2), "c": torch.ones(1)})
    y = Weights({name: torch.full_like(tensor, 4.0) for name, tensor in x.items()})
    change = {
        "add_": lambda x: x.add_(y, 0.5),
        "lerp_": lambda x: x.lerp_(y, 0.5),
        "axpby_": lambda x: x.axpby_(1.0, y, 0.5),
    }[name]
    expected = change(x.clone())
    assert change(x).equal(expected)


@pytest.mark.parametrize("name", ["add_", "lerp_", "axpby_"])
def test_operands_that_share_memory_crosswise_count_as_they_were_before(name: str) -> None:
    a, b, c = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0]), torch.arange(3.0)
    x = Weights({"a": a, "b": b, "c": c[:2]})
    y = Weights({"a": b, "b": a, "c": c[1:]})
    change = {
        "add_": lambda x, y: x.add_(y, 0.5),
        "lerp_": lambda x, y: x.lerp_(y, 0.25),
        "axpby_": lambda x, y: x.axpby_(3.0, y, 0.5),
    }[name]
    expected = change(x.clone(), y.clone())
    assert change(x, y).equal(expected)


def test_sparse_gradient_is_made_dense() -> None:
    model = nn.Embedding(4, 2, sparse=True)
    model(torch.tensor([1, 1])).sum().backward()
    gradient = Weights.from_grads(model)
    assert gradient["weight"].tolist() == [[0, 0], [2, 2], [0, 0], [0, 0]]
    assert (gradient + Weights.from_model(model)).norm() > 0


def test_operands_of_two_dtypes_meet_in_the_wider() -> None:
    x = Weights({"a": torch.ones(2), "b": torch.ones(3).half()})
    y = x.to(dtype=torch.float64)
    assert (Weights.dot(x, y), Weights.dot(y, x)) == (5, 5)
    assert (x + y)["a"].dtype == torch.float64


def test_tensor_without_dimensions_keeps_its_dtype_as_others_do() -> None:
    x = Weights({"scalar": torch.tensor(3.0).half(), "vector": torch.ones(2).half()})
    for made in (Weights.dot(x, x) * x, x / x.norm(), Weights.mean([x, x], [torch.tensor(0.5).double()] * 2)):
        assert {tensor.dtype for tensor in made.values()} == {torch.float16}


def test_lerp_of_two_dtypes_stays_in_the_left_one() -> None:
    x = Weights({"w": torch.zeros(2).half()}).lerp_(Weights({"w": torch.ones(2)}), 0.5)
    assert x.equal(Weights({"w": torch.full((2,), 0.5).half()}))


def test_flat_view_shares_memory() -> None:
    x = weights_of([(2, 3), (4,)], 1)
    vector = torch.arange(10, dtype=torch.float64)
    view = x.from_flat(vector)
    vector += 1
    assert torch.equal(view["p0"], torch.arange(1, 7, dtype=torch.float64).reshape(2, 3))
    assert torch.equal(view.to_flat(), vector)
    with pytest.raises(ModelMismatch, match=r"shape \(9,\), these weights need \(10,\)"):
        x.from_flat(torch.zeros(9))


def test_filter_and_conversion_by_name_and_dtype() -> None:
    x = weights_of([(2,), (3,)], 1)
    assert list(x.filter("p*")) == ["p0", "p1"]
    assert list(x.filter(lambda name: name.startswith("run"))) == ["running_mean"]
    half = x.to("cpu", torch.bfloat16)
    assert half["p0"].dtype == torch.bfloat16 and half["num_batches_tracked"].dtype == torch.int64
    assert half["running_mean"].dtype == torch.float32
    with pytest.raises(ValueError, match="floating"):
        x.to(dtype=torch.int8)
    assert not x.zeros_like().to_flat().any() and x.zeros_like()["running_mean"].all()


def test_operands_that_do_not_fit_are_refused() -> None:
    x = weights_of([(2,), (3,)], 1)
    with pytest.raises(ModelMismatch, match="only one of them has the parameter 'p1'"):
        x + x.filter("p0")
    with pytest.raises(ModelMismatch, match=r"'p0' has shapes \(2,\) and \(1,\)"):
        x - Weights({"p0": torch.zeros(1), "p1": torch.zeros(3)})
    with pytest.raises(TypeError):
        x + 1  # type: ignore[operator]
    with pytest.raises(TypeError):
        x * x  # type: ignore[operator]
    with pytest.raises(ValueError, match="p >= 1"):
        x.norm(0)


def test_order_of_names_does_not_matter() -> None:
    x = Weights({"a": torch.tensor([1.0]), "b": torch.tensor([2.0])})
    y = Weights({"b": torch.tensor([20.0]), "a": torch.tensor([10.0])})
    assert (x + y).to_flat().tolist() == [11.0, 22.0]
    assert Weights.dot(x, y) == 50


def test_long_sums_of_narrow_numbers_are_wide() -> None:
    x = Weights({"w": torch.ones(5000, dtype=torch.float16)})
    assert Weights.dot(x, x) == 5000
    big = Weights({"w": torch.full((5000,), 60000.0, dtype=torch.float16)})
    assert math.isfinite(float(big.norm()))


def test_weights_without_parameters_are_a_zero_vector() -> None:
    x = Weights({"steps": torch.tensor(3)})
    assert (x + x)["steps"] == 3 and (2 * x)["steps"] == 3
    assert Weights.dot(x, x) == 0 and x.norm() == 0
