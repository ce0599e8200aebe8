"""Server optimisers against torch.optim, step by step, and against their papers' equations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from cohorts import close, flat, replies, stacked, state_after, told, weights
from torch import Tensor

from fedpkg.config import ClientsConfig, RunConfig
from fedpkg.errors import AggregationError, ConfigError
from fedpkg.preflight import check_seed_model
from fedpkg.strategies.registry import STRATEGIES, make_strategy
from fedpkg.strategies.server_optimisers.fedopt import Adagrad, Adam, Yogi
from fedpkg.strategies.server_optimisers.lamb import Lamb
from fedpkg.strategies.server_optimisers.schedules import Cosine, Exponential, Polynomial, Steps
from fedpkg.strategies.server_optimisers.sgd import Sgd
from fedpkg.strategies.server_optimisers.torch_optimiser import TorchOptimiser, adamw
from fedpkg.weights.weights import Weights

STEPS = 6


def vector(seed: int) -> Tensor:
    return torch.randn(41, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ours(optimiser: Any) -> Iterator[Tensor]:
    """The model after each step, on aggregates that lie at w - g_t."""
    model, memory = Weights({"a": vector(0)[:1], "b": vector(0)[1:]}), {}
    for number in range(1, STEPS + 1):
        gradient = vector(number)
        aggregate = Weights({"a": model["a"] - gradient[:1], "b": model["b"] - gradient[1:]})
        model, memory = optimiser.step(model, aggregate, memory)
        yield torch.cat([model["a"], model["b"]])


def theirs(
    make: Callable[[list[Tensor]], torch.optim.Optimizer], *, started: dict[str, Tensor] | None = None
) -> Iterator[Tensor]:
    parameters = [vector(0)[:1].clone().requires_grad_(), vector(0)[1:].clone().requires_grad_()]
    optimiser = make(parameters)
    for parameter in parameters if started else ():
        optimiser.state[parameter] = {
            key: value.expand_as(parameter).clone() if key != "step" else value.clone()
            for key, value in started.items()
        }
    for number in range(1, STEPS + 1):
        gradient = vector(number)
        parameters[0].grad, parameters[1].grad = gradient[:1].clone(), gradient[1:].clone()
        optimiser.step()
        yield torch.cat([parameter.detach() for parameter in parameters])


def agree(one: Iterator[Tensor], other: Iterator[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_is_that_of_torch_step_by_step(momentum: float, nesterov: bool) -> None:
    options = {"momentum": momentum, "nesterov": nesterov}
    agree(ours(Sgd(learning_rate=0.3, **options)), theirs(lambda p: torch.optim.SGD(p, lr=0.3, **options)))


def test_fedadagrad_is_adagrad_of_torch_that_starts_from_tau_squared() -> None:
    tau = 1e-3
    agree(
        ours(Adagrad(learning_rate=0.1, tau=tau)),
        theirs(lambda p: torch.optim.Adagrad(p, lr=0.1, initial_accumulator_value=tau**2, eps=tau)),
    )


def test_fedadam_is_adam_of_torch_without_bias_correction() -> None:
    """Far on in its steps torch's Adam corrects nothing any more."""
    tau = 1e-3
    started = {
        "step": torch.tensor(1e7),
        "exp_avg": torch.zeros((), dtype=torch.float64),
        "exp_avg_sq": torch.tensor(tau**2, dtype=torch.float64),
    }
    agree(
        ours(Adam(learning_rate=0.1, beta_1=0.9, beta_2=0.99, tau=tau)),
        theirs(lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.9, 0.99), eps=tau, foreach=False), started=started),
    )


def test_fedyogi_is_the_papers_equation() -> None:
    eta, b1, b2, tau = 0.01, 0.9, 0.99, 1e-3

    def paper() -> Iterator[Tensor]:
        x, m, v = vector(0), torch.zeros(41, dtype=torch.float64), torch.full((41,), tau**2, dtype=torch.float64)
        for number in range(1, STEPS + 1):
            delta = -vector(number)
            m = b1 * m + (1 - b1) * delta
            v = v - (1 - b2) * delta**2 * torch.sign(v - delta**2)
            x = x + eta * m / (v.sqrt() + tau)
            yield x

    agree(ours(Yogi(learning_rate=eta, beta_1=b1, beta_2=b2, tau=tau)), paper())


def test_lamb_is_the_papers_equation() -> None:
    def paper() -> Iterator[Tensor]:
        parts = []
        for piece in (slice(0, 1), slice(1, None)):
            w, m, v = vector(0)[piece], torch.zeros(()), torch.zeros(())
            series = []
            for t in range(1, STEPS + 1):
                g = vector(t)[piece]
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                r = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-6) + 0.1 * w
                w = w - 0.01 * w.norm() / r.norm() * r
                series.append(w)
            parts.append(series)
        return (torch.cat(both) for both in zip(*parts, strict=True))

    agree(ours(Lamb(learning_rate=0.01, weight_decay=0.1)), paper())


OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.5, "dampening": 0.1, "weight_decay": 0.01},
    "Adam": {"amsgrad": True},
    "AdamW": {"weight_decay": 0.1},
    "RMSprop": {"centered": True},
    "Adagrad": {"lr_decay": 0.1},
    "NAdam": {},
    "RAdam": {},
    "Adadelta": {},
    "Adamax": {},
    "Rprop": {},
    "ASGD": {},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_any_optimiser_of_torch_goes_on_from_its_saved_state(name: str) -> None:
    options = OPTIONS[name]
    agree(
        ours(TorchOptimiser(name, 0.05, options)), theirs(lambda p: getattr(torch.optim, name)(p, lr=0.05, **options))
    )


def test_adamw_is_that_of_torch() -> None:
    agree(
        ours(adamw(learning_rate=0.02, weight_decay=0.3)),
        theirs(lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.3)),
    )


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"optimiser": "AdamV"}, "torch.optim has no optimiser 'AdamV'; did you mean 'Adam'?"),
        ({"optimiser": "LBFGS"}, "needs more than a gradient"),
        ({"optimiser": "SGD", "options": {"momentun": 0.9}}, "unexpected keyword argument 'momentun'"),
        ({"optimiser": "Adam", "options": {"betas": [2, 0.9]}}, "Invalid beta"),
        ({"optimiser": "Adam", "options": {"differentiable": True}}, "torch.optim.Adam: a leaf Variable"),
    ],
)
def test_what_torch_has_not_is_a_clear_error(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_strategy({"name": "fedopt", **section})
    assert words in caught.value.message


def test_an_optimiser_of_matrices_is_refused_where_the_model_has_others() -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no optimiser of matrices alone")
    muon, matrix = {"name": "torch", "optimiser": "Muon"}, Weights({"w": torch.zeros(2, 3)})
    told({**muon, "name": "fedopt"}, matrix, [matrix])
    for section in ({**muon, "name": "fedopt"}, {"name": "fltrust", "server_optimiser": muon, "transforms": ["zstd"]}):
        strategy, config = (
            make_strategy(section),
            RunConfig(package="p", rounds=1, clients=ClientsConfig(count=1), strategy=section),
        )
        check_seed_model(config, matrix, strategy, told=True)
        with pytest.raises(ConfigError, match=r"torch\.optim\.Muon does not suit this model: Muon only supports 2D"):
            check_seed_model(config, Weights({**matrix, "b": torch.zeros(3)}), strategy, told=True)


def test_optimisers_of_any_shape_are_not_refused_before_the_first_round() -> None:
    shapes: list[tuple[int, ...]] = [(3, 4), (3,), ()]
    model = Weights({str(len(shape)): torch.ones(shape) for shape in shapes})
    for name in ("SGD", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop"):
        optimiser: Any = make_strategy({"name": "fedopt", "optimiser": name})
        optimiser.server_optimiser.check(model)


# ---- schedules


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (Steps(every=3, gamma=0.5), lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5)),
        (Exponential(gamma=0.9), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)),
        (Polynomial(rounds=8, power=2.0), lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 8, 2.0)),
        (Cosine(rounds=12, final=0.1), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 12, 0.1)),
    ],
    ids=["steps", "exponential", "polynomial", "cosine"],
)
def test_schedules_are_those_of_torch(schedule: Any, make: Callable[..., Any]) -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimiser)
    for step in range(1, 13):
        assert schedule.factor(step) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        scheduler.step()
    assert schedule.factor(10**9) >= 0


def test_warmup_comes_up_linearly_and_cosine_stays_down() -> None:
    schedule = Cosine(rounds=4, warmup=3)
    assert schedule.factor(1) == pytest.approx(0.25)
    assert Exponential(gamma=1.0, warmup=3).factor(3) == pytest.approx(0.75)
    assert [schedule.factor(step) for step in (5, 6, 100)] == pytest.approx([0, 0, 0])


def test_schedule_changes_the_servers_rate() -> None:
    section = {"name": "fedavgm", "momentum": 0.0, "schedule": {"name": "steps", "every": 1, "gamma": 0.5}}
    zero, one = (Weights({"w": torch.full((2,), value)}) for value in (0.0, 1.0))
    strategy = make_strategy(section)
    state = strategy.init(zero)
    seen = []
    for number in range(3):
        state = {**state, "model": zero}
        state = strategy.tell(strategy.ask(state, torch.Generator())[0], replies([one]))  # type: ignore[arg-type]
        seen.append(float(state["model"]["w"][0]))
        assert state["server_optimiser"]["step"] == number + 1
    assert seen == [1.0, 0.5, 0.25]


# ---- what holds of all


@pytest.mark.parametrize("name", ["fedavgm", "fedadam", "fedyogi", "fedadagrad", "fedlamb", "fedadamw"])
def test_only_parameters_are_optimised(name: str) -> None:
    """Momentum must not make a running variance negative, nor a counter anything but a counter."""
    rounds = [[weights(10 * number), weights(10 * number + 1)] for number in range(1, 6)]
    state = state_after({"name": name}, weights(0), rounds)
    model, mean = state["model"], told({"name": "fedavg"}, weights(0), rounds[-1])
    for buffer in model.buffers:
        assert torch.equal(model[buffer], mean[buffer])
    assert torch.all(model["bn.running_var"] >= 0)
    assert {n: t.dtype for n, t in model.items()} == {n: t.dtype for n, t in mean.items()}
    assert model.first_non_finite() is None
    for key, kept in state["server_optimiser"].items():
        if isinstance(kept, Weights):
            assert not kept.buffers and set(kept) == set(model.parameters), key
            assert all(tensor.element_size() >= 4 for tensor in kept.values()), "moments of halves are kept in float32"


def test_fedavgm_at_rest_is_fedavg() -> None:
    updates = [weights(n) for n in range(4)]
    made = told({"name": "fedavgm", "momentum": 0.0}, weights(9), updates)
    close(made, flat(told({"name": "fedavg"}, weights(9), updates)))


def test_composition_of_an_aggregator_and_an_optimiser() -> None:
    section = {"aggregator": "median", "server_optimiser": {"name": "sgd", "learning_rate": 0.5, "momentum": 0.0}}
    updates = [weights(n) for n in range(5)]
    expected = (flat(weights(9)) + stacked(updates).quantile(0.5, dim=0)) / 2
    close(told(section, weights(9), updates), expected)


def test_steps_that_leave_the_range_are_an_error() -> None:
    half = [Weights({"w": torch.full((3,), value).half()}) for value in (0.0, 60000.0)]
    with pytest.raises(AggregationError, match="tensor 'w' of the next global model is not finite in float16"):
        told({"name": "fedavgm", "learning_rate": 2.0}, half[0], [half[1], half[1]])


# ---- FedNova and q-FedAvg


def test_fednova_with_equal_steps_is_fedavg_to_the_bit() -> None:
    updates = [weights(n) for n in range(5)]
    said = [{"num_steps": 7}] * 5
    made = told({"name": "fednova"}, weights(9), updates, metadata=said)
    close(made, flat(told({"name": "fedavg"}, weights(9), updates)))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fednova_is_its_equation(momentum: float) -> None:
    updates, model = [weights(n) for n in range(5)], weights(9)
    steps = [3, 1, 10, 4, 7]
    examples = [10.0, 30.0, 20.0, 5.0, 1.0]
    lengths = torch.tensor(
        [sum((1 - momentum ** (s - i)) / (1 - momentum) for i in range(s)) for s in steps], dtype=torch.float64
    )
    shares = torch.tensor(examples, dtype=torch.float64) / sum(examples)
    gradients = (flat(model) - stacked(updates)) / lengths[:, None]
    expected = flat(model) - (shares @ lengths) * (shares[:, None] * gradients).sum(dim=0)
    section = {"name": "fednova", "momentum": momentum}
    made = told(section, model, updates, examples=examples, metadata=[{"num_steps": s} for s in steps])
    close(made, expected, tolerance=1e-5)


def test_fednova_on_quadratics_ends_at_the_right_point_where_fedavg_does_not() -> None:
    """f_k(x) = |x - c_k|^2 / 2, local gradient descent with another number of steps each [Wang et al. 2020, sec. 3]."""
    centres, steps, rate = [0.0, 10.0], [1, 20], 0.01

    def local(x: float, centre: float, count: int) -> float:
        return centre + (x - centre) * (1 - rate) ** count

    def end(name: str) -> float:
        strategy = make_strategy({"name": name})
        state = strategy.init(Weights({"x": torch.zeros(1, dtype=torch.float64)}))
        for _ in range(3000):
            x = float(state["model"]["x"])
            sent = [
                Weights({"x": torch.tensor([local(x, c, s)], dtype=torch.float64)})
                for c, s in zip(centres, steps, strict=True)
            ]
            state, _asked = strategy.ask(state, None)  # type: ignore[arg-type]
            state = strategy.tell(state, replies(sent, examples=[1, 1], metadata=[{"num_steps": s} for s in steps]))
        return float(state["model"]["x"])

    assert end("fedavg") > 9
    assert end("fednova") == pytest.approx(5, abs=0.5)


def test_clients_that_do_not_say_what_fednova_needs_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    updates = [weights(n) for n in range(6)]
    said = [
        {"num_steps": 3},
        {},
        {"num_steps": "many"},
        {"num_steps": math.nan},
        {"num_steps": 10**400},
        {"num_steps": 0},
    ]
    made = told({"name": "fednova"}, weights(9), updates, metadata=said)
    assert made.equal(updates[0])
    assert caplog.text.count("update.left_out") == 5
    with pytest.raises(AggregationError, match="client-0: 'num_steps' in its metadata is None") as caught:
        told({"name": "fednova"}, weights(9), updates, metadata=[{}] * 6)
    assert "num_examples" in (caught.value.hint or "")


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0, 5.0])
def test_qfedavg_is_its_equation(q: float) -> None:
    updates, model, rate = [weights(n) for n in range(5)], weights(9), 0.2
    losses = torch.tensor([0.3, 2.0, 0.7, 0.0, 1.1], dtype=torch.float64) + 1e-10
    deltas = (flat(model) - stacked(updates)) / rate
    steps = q * losses ** (q - 1) * deltas.square().sum(dim=1) + losses**q / rate
    expected = flat(model) - ((losses**q)[:, None] * deltas).sum(dim=0) / steps.sum()
    said = [{"train_loss": float(loss - 1e-10)} for loss in losses]
    made = told({"name": "qfedavg", "q": q, "learning_rate": rate}, model, updates, metadata=said)
    close(made, expected, tolerance=1e-5)


def test_qfedavg_without_q_is_the_uniform_mean() -> None:
    updates = [weights(n) for n in range(5)]
    said = [{"train_loss": 1.0 + n} for n in range(5)]
    made = told({"name": "qfedavg", "q": 0}, weights(9), updates, metadata=said)
    assert made.equal(told({"name": "uniform_mean"}, weights(9), updates))


def test_every_named_optimiser_can_be_made() -> None:
    for spec in STRATEGIES.specs("server_optimiser"):
        section = {"name": spec.name} | ({"optimiser": "SGD"} if spec.name == "torch" else {})
        assert make_strategy({"server_optimiser": section})
