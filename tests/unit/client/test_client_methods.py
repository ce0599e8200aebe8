"""The client's part of each method, against its equations in NumPy on quadratics, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from calls import SIZE, Calls, Point, Quadratic, Vector, descend, losses, whole
from torch import nn
from torch.nn.functional import cross_entropy

from fedpkg import client

RATE, STEPS = 0.04, 6
START = np.linspace(-1, 1, SIZE)


def training(
    loss: Quadratic, part: Callable[[nn.Module, client.Given], Any], finish: Callable[[Any], Any] = lambda part: None
) -> Callable[[str, str], None]:
    """An entry point with the lines of one method in it."""

    def train(in_path: str, out_path: str) -> None:
        model = Point()
        given = client.load(in_path, model)
        method = part(model, given)
        descend(model, loss, STEPS, RATE, method.correct_gradients)
        client.save(out_path, model, given, sets=finish(method), num_examples=1)

    return train


def fedavg(of: list[Quadratic], rounds: int) -> Vector:
    x = np.zeros(SIZE)
    for _ in range(rounds):
        ends = []
        for loss in of:
            y = x
            for _ in range(STEPS):
                y = y - RATE * loss.gradient(y)
            ends.append(y)
        x = np.mean(ends, axis=0)
    return x


def test_the_proximal_term_has_the_gradient_mu_times_the_way_from_the_anchor(calls: Calls) -> None:
    model = Point()
    anchor = {"x": torch.from_numpy(START)}
    with torch.no_grad():
        model.x.copy_(torch.from_numpy(START**2 + 2))
    client.proximal_term(model, anchor, 0.3).backward()
    assert model.x.grad is not None
    np.testing.assert_allclose(model.x.grad.numpy(), 0.3 * (START**2 + 2 - START), rtol=1e-14)
    value = client.proximal_term(model, anchor, 0.3).item()
    assert value == pytest.approx(0.15 * np.sum((START**2 + 2 - START) ** 2), rel=1e-14)
    assert client.proximal_term(model, {}, 0.3).item() == 0

    loss, x = losses()[0], START
    for _ in range(STEPS):
        x = x - RATE * (loss.gradient(x) + 0.7 * (x - START))
    train = training(loss, client.fedprox)
    went = calls(train, {"x": START}, parameters={"proximal_mu": 0.7})
    np.testing.assert_allclose(went["x"], x, rtol=1e-13)
    plain = calls(train, {"x": START})["x"]
    np.testing.assert_array_equal(
        plain, calls(training(loss, lambda *_: client.Correction(Point())), {"x": START})["x"]
    )


@pytest.mark.parametrize("option", ["I", "II"])
def test_scaffold_is_the_papers_recursion_and_arrives_where_fedavg_does_not(calls: Calls, option: str) -> None:
    of = losses()

    def finish(loss: Quadratic) -> Callable[[client.Scaffold], Any]:
        def finish(scaffold: client.Scaffold) -> Any:
            if option == "II":
                return scaffold.finish(learning_rate=RATE)
            at_x = Point()
            at_x.load_state_dict({"x": scaffold._x["x"]})
            return scaffold.finish(gradient=client.gradient(at_x, loss, [torch.zeros(3)]))

        return finish

    x, c = np.zeros(SIZE), np.zeros(SIZE)
    expected_x, expected_c, own = x, c, [np.zeros(SIZE) for _ in of]
    for _ in range(40):
        ys, dcs, expected_ys, expected_dcs = [], [], [], []
        for k, loss in enumerate(of):
            train = training(loss, client.Scaffold, finish(loss))
            went = calls(train, {"x/x": x, "c/x": c}, client=f"client-{k}", reply_sets=["x", "dc"])
            ys.append(went["x/x"])
            dcs.append(went["dc/x"])
            y = expected_x
            for _ in range(STEPS):
                y = y - RATE * (loss.gradient(y) - own[k] + expected_c)
            after = loss.gradient(expected_x)
            if option == "II":
                after = own[k] - expected_c + (expected_x - y) / (STEPS * RATE)
            expected_ys.append(y)
            expected_dcs.append(after - own[k])
            own[k] = after
        x, c = np.mean(ys, axis=0), c + np.mean(dcs, axis=0)
        expected_x, expected_c = np.mean(expected_ys, axis=0), expected_c + np.mean(expected_dcs, axis=0)
        np.testing.assert_allclose(x, expected_x, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(c, expected_c, rtol=1e-9, atol=1e-12)
    solution = whole(of).solution
    assert np.linalg.norm(x - solution) < 1e-3
    assert np.linalg.norm(fedavg(of, 40) - solution) > 0.01


def test_feddyn_is_the_papers_recursion_and_arrives_where_fedavg_does_not(calls: Calls) -> None:
    of, alpha = losses(), 0.8
    x, h = np.zeros(SIZE), np.zeros(SIZE)
    expected, expected_h, own = x, h, [np.zeros(SIZE) for _ in of]
    for _ in range(40):
        ys, expected_ys = [], []
        for k, loss in enumerate(of):
            train = training(loss, client.FedDyn, client.FedDyn.finish)
            ys.append(calls(train, {"x": x}, client=f"client-{k}", parameters={"alpha": alpha})["x"])
            y = expected
            for _ in range(STEPS):
                y = y - RATE * (loss.gradient(y) - own[k] + alpha * (y - expected))
            own[k] = own[k] - alpha * (y - expected)
            expected_ys.append(y)
        h, expected_h = (
            before - alpha * (np.mean(ends, axis=0) - start)
            for before, ends, start in ((h, ys, x), (expected_h, expected_ys, expected))
        )
        x, expected = np.mean(ys, axis=0) - h / alpha, np.mean(expected_ys, axis=0) - expected_h / alpha
        np.testing.assert_allclose(x, expected, rtol=1e-9, atol=1e-12)
    solution = whole(of).solution
    assert np.linalg.norm(x - solution) < 1e-3
    assert np.linalg.norm(fedavg(of, 40) - solution) > 0.01


def test_mime_takes_the_servers_momentum_and_its_correction(calls: Calls) -> None:
    loss, m, c, beta = losses()[0], START + 1, START - 2, 0.7

    class Mime(client.Mime):
        def correct_gradients(self, batch: Any = None) -> None:
            super().correct_gradients(torch.zeros(1))

    train = training(loss, lambda model, given: Mime(model, given, loss))
    for with_c in (True, False):
        y = START
        for _ in range(STEPS):
            g = loss.gradient(y) + (c - loss.gradient(START) if with_c else 0)
            y = y - RATE * ((1 - beta) * g + beta * m)
        sets = {"x/x": START, "m/x": m, **({"c/x": c} if with_c else {})}
        np.testing.assert_allclose(calls(train, sets, parameters={"momentum": beta})["x"], y, rtol=1e-13)


def test_the_proximal_step_finds_the_least_of_all_three_terms(calls: Calls) -> None:
    loss, linear, theta = losses()[0], START - 0.5, 0.3

    def prox(in_path: str, out_path: str) -> None:
        model = Point()
        given = client.load(in_path, model)
        descend(model, loss, 800, RATE, client.prox(model, given).correct_gradients)
        client.save(out_path, model, given, num_examples=1)

    went = calls(prox, {"center/x": START, "linear/x": linear}, parameters={"theta": theta})
    expected = np.linalg.solve(loss.a + np.eye(SIZE) / theta, loss.b + START / theta - linear)
    np.testing.assert_allclose(went["x"], expected, rtol=1e-10)


# ---- models of a client's own


def test_ditto_keeps_a_model_near_the_global_one_which_is_trained_as_ever(calls: Calls) -> None:
    loss, lam, x, v, before = losses()[0], 0.9, START, START, []

    def train(in_path: str, out_path: str) -> None:
        model = Point()
        given = client.load(in_path, model)
        descend(model, loss, STEPS, RATE)
        ditto = client.Ditto(model, given)
        assert ditto.active == bool(given.parameters)
        before.append(ditto.model.x.detach().numpy().copy())
        descend(ditto.model, loss, 500, RATE, ditto.correct_gradients)
        ditto.finish()
        client.save(out_path, model, given, num_examples=1)

    for x in (START, START + 1):
        y = x
        for _ in range(STEPS):
            y = y - RATE * loss.gradient(y)
        went = calls(train, {"x": x}, parameters={"ditto_lambda": lam})["x"]
        np.testing.assert_allclose(went, y, rtol=1e-13)
        np.testing.assert_allclose(before[-1], v, rtol=1e-10, err_msg="goes on from what it kept")
        v = np.linalg.solve(loss.a + lam * np.eye(SIZE), loss.b + lam * x)

    def validate(in_path: str, _out: str) -> None:
        model = Point()
        client.load(in_path, model)
        np.testing.assert_allclose(client.personal_model(model).x.detach().numpy(), v, rtol=1e-10)
        np.testing.assert_array_equal(model.x.detach().numpy(), x)

    calls(validate, {"x": x})
    calls(train, {"x": START})
    calls(validate, {"x": x})  # what another strategy asks for leaves it as it was


def test_pfedme_moves_w_by_its_moreau_envelope(calls: Calls) -> None:
    """With theta solved exactly, w descends F(w) = min f(theta) + lambda/2 |theta - w|^2."""
    loss, lam, eta = losses()[0], 2.0, 0.05
    parameters = {"pfedme_lambda": lam, "pfedme_eta": eta}

    def train(in_path: str, out_path: str) -> None:
        model = Point()
        given = client.load(in_path, model)
        pfedme = client.PFedMe(model, given)
        for _ in range(3):
            descend(model, loss, 600, RATE, pfedme.correct_gradients)
            pfedme.step()
        pfedme.finish()
        client.save(out_path, model, given, num_examples=1)

    w = START
    for _ in range(3):
        theta = np.linalg.solve(loss.a + lam * np.eye(SIZE), loss.b + lam * w)
        w = w - eta * lam * (w - theta)
    np.testing.assert_allclose(calls(train, {"x": START}, parameters=parameters)["x"], w, rtol=1e-9)

    def kept(_in: str, _out: str) -> None:
        own = client.kept("personal")
        assert own is not None
        np.testing.assert_allclose(own["x"].numpy(), theta, rtol=1e-9)

    calls(kept, {"x": START})
    plain = calls(train, {"x": START}, client="client-1")["x"]
    np.testing.assert_allclose(plain, loss.solution, rtol=1e-6, err_msg="without lambda it is plain training")


def test_fine_tuning_leaves_the_model_as_it_is() -> None:
    loss, model = losses()[0], Point().eval()
    model.x.grad = torch.ones(SIZE, dtype=torch.float64)

    def tune(own: nn.Module) -> None:
        assert own.training
        descend(own, loss, 2, RATE)

    own = client.fine_tuned(model, tune)
    expected = RATE * loss.b
    expected = expected - RATE * loss.gradient(expected)
    np.testing.assert_allclose(own.x.detach().numpy(), expected, rtol=1e-13)
    assert not model.x.detach().any() and not model.training and not own.training


# ---- losses


def test_logits_are_calibrated_by_how_often_a_class_is_seen() -> None:
    labels, tau = torch.tensor([0, 0, 0, 2, 2, 0, 3]), 0.7
    counts = client.class_counts(labels, 4)
    assert counts.tolist() == [4, 0, 2, 1]
    logits = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    cross_entropy(client.calibrated_logits(logits, counts, tau), labels).backward()
    f = logits.detach().numpy()
    e = np.exp(f) * np.array([np.exp(-tau * n**-0.25) if n else 0.0 for n in (4, 0, 2, 1)])
    p = e / e.sum(axis=1, keepdims=True)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), (p - np.eye(4)[labels.numpy()]) / 7, rtol=1e-12, atol=1e-15)
    assert (logits.grad[:, 1] == 0).all(), "a class that the client never sees is not pushed away"
    assert client.calibrated_logits(logits, counts, 0.0) is logits


def test_moon_is_the_published_loss() -> None:
    z, z_global, z_previous = torch.randn(3, 6, 2, 4, dtype=torch.float64)
    z.requires_grad_()
    loss = client.moon_loss(z, z_global, z_previous, 0.3)
    loss.backward()

    def cosine(a: Vector, b: Vector) -> Any:
        a, b = a.reshape(6, -1), b.reshape(6, -1)
        return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    def formula(z: Vector) -> float:
        g, p = (np.exp(cosine(z, other.numpy()) / 0.3) for other in (z_global, z_previous))
        return float(np.mean(-np.log(g / (g + p))))

    start = z.detach().numpy()
    assert float(loss.detach()) == pytest.approx(formula(start), rel=1e-12)
    step = 1e-6 * np.random.default_rng(0).standard_normal(start.shape)
    assert z.grad is not None
    slope = (formula(start + step) - formula(start - step)) / 2
    assert float((z.grad.numpy() * step).sum()) == pytest.approx(slope, rel=1e-6)


def test_moon_keeps_the_previous_model_for_the_next_round(calls: Calls) -> None:
    seen = []

    def train(in_path: str, out_path: str) -> None:
        model = Point()
        given = client.load(in_path, model)
        moon = client.Moon(model, given)
        assert not any(p.requires_grad for p in moon.previous.parameters()) and not moon.previous.training
        seen.append([each.x.tolist() for each in (moon.global_model, moon.previous)])
        z = model.x[None] + 1
        loss = moon.loss(z, lambda other: other.x[None] + 1)
        own, theirs, before = (each.x[None].detach() + 1 for each in (model, moon.global_model, moon.previous))
        assert loss.item() == pytest.approx(0.5 * client.moon_loss(own, theirs, before, 0.2).item())
        descend(model, lambda m: m.x.sum(), 1, 1.0)
        moon.finish()
        client.save(out_path, model, given, num_examples=1)

    parameters = {"moon_mu": 0.5, "moon_temperature": 0.2}
    calls(train, {"x": START}, parameters=parameters)
    calls(train, {"x": START + 3}, parameters=parameters)
    assert seen == [[START.tolist()] * 2, [(START + 3).tolist(), (START - 1).tolist()]]

    def other_strategy(in_path: str, _out: str) -> None:
        model = Point()
        moon = client.Moon(model, client.load(in_path, model))
        assert moon.loss(model.x[None], lambda other: 1 / 0).item() == 0

    calls(other_strategy, {"x": START})


# ---- what is shared


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.LayerNorm(3))
        self.head = nn.Linear(3, 2)


NORMS = [f"body.1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
NORMS += ["body.2.weight", "body.2.bias"]


def test_names_are_chosen_by_pattern_and_by_kind_of_layer() -> None:
    model = Net()
    assert client.matching(model, "head.*", "body.0.bias") == ["body.0.bias", "head.weight", "head.bias"]
    assert client.others(model, "body.*") == ["head.weight", "head.bias"]
    assert client.norm_layers(model) == NORMS
    assert client.norm_layers(nn.LayerNorm(2)) == ["weight", "bias"]


@pytest.mark.parametrize("by", ["the script", "the strategy"])
@pytest.mark.parametrize("what", ["head", "norms"])
def test_what_is_local_stays_and_the_rest_is_shared(calls: Calls, what: str, by: str) -> None:
    local = ["head.weight", "head.bias"] if what == "head" else NORMS
    parameters = {"local_names": ["head.*"]} if what == "head" else {"local_norms": True}
    state = {name: tensor.numpy() + 5 for name, tensor in Net().state_dict().items()}
    after: list[dict[str, Any]] = []
    loaded: list[dict[str, Any]] = []

    def train(in_path: str, out_path: str) -> None:
        model = Net()
        given = client.load(in_path, model, local=local if by == "the script" else ())
        loaded.append({name: tensor.numpy().copy() for name, tensor in model.state_dict().items()})
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.add_(1)
        after.append({name: tensor.numpy() for name, tensor in model.state_dict().items()})
        client.save(out_path, model, given, num_examples=1)

    facts = {"parameters": parameters} if by == "the strategy" else {}
    went = calls(train, state, **facts)
    for name in state:
        np.testing.assert_array_equal(went[name], state[name] if name in local else after[0][name], err_msg=name)
    later = {name: value + 10 for name, value in state.items()}
    calls(train, later, client="client-1", **facts)
    calls(train, later, **facts)
    for name in state:
        np.testing.assert_array_equal(loaded[1][name], later[name], err_msg="another client has none of its own yet")
        np.testing.assert_array_equal(loaded[2][name], after[0][name] if name in local else later[name], err_msg=name)

    def validate(in_path: str, _out: str) -> None:
        model = Net()
        client.load(in_path, model)  # no parameters of the strategy here
        for name, tensor in model.state_dict().items():
            np.testing.assert_array_equal(tensor.numpy(), after[2][name] if name in local else later[name])

    calls(validate, later)


class Two(nn.Module):
    """A body that is shared and a head that stays."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = (nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2))


METHODS: dict[str, tuple[Callable[..., Any], dict[str, float]]] = {
    "fedprox": (client.fedprox, {"proximal_mu": 0.5}),
    "prox": (client.prox, {"theta": 2.0}),
    "scaffold": (client.Scaffold, {}),
    "feddyn": (client.FedDyn, {"alpha": 0.5}),
    "mime": (lambda model, given: client.Mime(model, given, lambda m, _: (m.body * m.head).sum()), {"momentum": 0.5}),
    "ditto": (client.Ditto, {"ditto_lambda": 0.5}),
    "pfedme": (client.PFedMe, {"pfedme_lambda": 0.5, "pfedme_eta": 0.5}),
    "moon": (client.Moon, {"moon_mu": 0.5}),
}


def keep_a_head_of_sevens(in_path: str, out_path: str) -> None:
    model = Two()
    given = client.load(in_path, model)
    with torch.no_grad():
        model.head.fill_(7)
    client.save(out_path, model, given)


@pytest.mark.parametrize("method", METHODS)
def test_no_method_draws_what_stays_with_the_client_towards_the_global_model(calls: Calls, method: str) -> None:
    make, own_parameters = METHODS[method]
    parameters = {**own_parameters, "local_names": ["head"]}
    names = {"scaffold": "xc", "mime": "xcm"}.get(method, ("center", "linear") if method == "prox" else "")
    plain = {"body": np.ones(2), "head": np.ones(2)}
    arrays = {f"{name}/{key}": value for name in names for key, value in plain.items()} if names else plain

    def second(in_path: str, out_path: str) -> None:
        model = Two()
        given = client.load(in_path, model)
        part = make(model, given)
        trained = part.model if method == "ditto" else model
        assert trained.head.tolist() == [7, 7]
        if method == "moon":
            assert [m.head.tolist() for m in (part.global_model, part.previous)] == [[7, 7]] * 2
            return
        with torch.no_grad():
            trained.body.add_(1)
            trained.head.add_(1)
        trained.body.grad, trained.head.grad = (torch.ones(2, dtype=torch.float64) for _ in range(2))
        part.correct_gradients(*([torch.ones(1)] if method == "mime" else []))
        assert trained.head.grad.tolist() == [1, 1]
        if method == "mime":  # (1 - 0.5) (1 - 7 + 1) + 0.5: the gradient at x is with this client's own head
            assert trained.body.grad.tolist() == [-2, -2]
        else:
            assert trained.body.grad.tolist() != [1, 1]
        if method == "pfedme":
            part.step()
        sets = part.finish(learning_rate=0.1) if method == "scaffold" else None
        if method in ("feddyn", "pfedme"):
            part.finish()
        assert trained.head.tolist() == [8, 8]
        client.save(out_path, model, given, sets=sets)

    reply_sets = {"scaffold": ["x", "dc"]}.get(method, [])
    calls(keep_a_head_of_sevens, plain, parameters=parameters)
    went = calls(second, arrays, parameters=parameters, reply_sets=reply_sets)
    if method == "scaffold":
        assert went["dc/head"].tolist() == [0, 0] and went["dc/body"].tolist() != [0, 0]


def test_gradients_are_with_the_clients_own_layers_and_of_what_is_shared(calls: Calls) -> None:
    def gradient(in_path: str, out_path: str) -> None:
        model = Two()
        given = client.load(in_path, model)
        found = client.gradients(model, given, lambda m, _: (m.body * m.head).sum(), [torch.ones(1)])
        client.save(out_path, given=given, sets=found)

    x = {"body": np.ones(2), "head": np.ones(2)}
    calls(keep_a_head_of_sevens, x, parameters={"local_names": ["head"]})
    went = calls(gradient, x, parameters={"local_names": ["head"]}, reply="gradient")
    assert {name: array.tolist() for name, array in went.items()} == {"body": [7, 7], "head": [0, 0]}


@pytest.mark.parametrize(
    ("local", "parameters", "says"),
    [
        ((), {"local_names": ["nonsense.*"]}, "'nonsense.*' matches no tensor of the model"),
        (("nonsense",), {}, "local: the model has no tensor 'nonsense'"),
        (("head.*",), {}, "matching(model"),
        ((), {"local_norms": True}, "no normalisation layer"),
    ],
)
def test_what_shall_stay_and_is_not_there_is_an_error(
    calls: Calls, local: tuple[str, ...], parameters: dict[str, Any], says: str
) -> None:
    def train(in_path: str, _out: str) -> None:
        with pytest.raises(client.ClientError) as caught:
            client.load(in_path, Two(), local=local)
        assert says in str(caught.value)

    calls(train, {"body": np.ones(2), "head": np.ones(2)}, parameters=parameters)


def test_only_some_parameters_are_trained() -> None:
    model = Net()
    model.head.bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack([p.sum() for p in model.parameters()]).sum().backward()
        client.Correction(model, linear={"body.0.bias": torch.ones(3)}).correct_gradients()
        optimizer.step()

    model.body[0].bias.grad = torch.ones(3)
    with client.only(model, "head.*"):
        optimizer.step()  # no stale gradient is stepped with
        step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.weight"}
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["head.bias"]
    step()
    assert not torch.equal(model.body[0].bias, before["body.0.bias"])


# ---- gradients


class Dropping(nn.Module):
    """Its gradient depends on the mask of dropout and on statistics of the batch; two of its parameters are one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.tied, self.unused = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(2, 2)
        self.tied.weight = self.first.weight
        self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.norm(self.tied(torch.tanh(self.first(x)))))


def test_gradients_at_two_points_are_of_the_same_minibatch_and_draws(calls: Calls) -> None:
    torch.manual_seed(3)
    model = Dropping().double()
    state = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    points = {
        "w": state,
        "x": {name: np.asarray(value + (value.dtype.kind == "f") * 0.3, value.dtype) for name, value in state.items()},
    }
    batches = [(torch.randn(size, 4).double(), torch.randn(size, 4).double()) for size in (5, 3)]

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return ((model(batch[0]) - batch[1]) ** 2).mean()

    def gradient(in_path: str, out_path: str) -> None:
        given = client.load(in_path, model)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        torch.manual_seed(11)
        found = client.gradients(model, given, loss, iter(batches))  # an iterator, which can be read only once
        client.save(out_path, given=given, sets=found, num_examples=8)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())

    client.gradient(model, loss, batches)
    assert model.norm.running_mean.tolist() == [0.0] * 4, "it leaves no statistics"
    flat = {f"{name}/{key}": value for name, sets in points.items() for key, value in sets.items()}
    went = calls(gradient, flat, reply_sets=["w", "x"])
    for name, point in points.items():
        other = Dropping().double()
        other.load_state_dict({key: torch.from_numpy(value) for key, value in point.items()})
        torch.manual_seed(11)
        total = torch.stack([len(batch[0]) / 8 * loss(other, batch) for batch in batches]).sum()
        total.backward()
        for key, parameter in other.named_parameters(remove_duplicate=False):
            expected = np.zeros((2, 2)) if key == "unused.weight" else parameter.grad
            if key != "unused.bias":
                np.testing.assert_allclose(went[f"{name}/{key}"], expected, rtol=1e-10, atol=1e-14, err_msg=key)
        np.testing.assert_array_equal(went[f"{name}/tied.weight"], went[f"{name}/first.weight"])
    same = calls(gradient, {f"{name}/{key}": value for name in points for key, value in state.items()},
                 reply_sets=["w", "x"])  # fmt: skip
    for key in dict(model.named_parameters()):
        np.testing.assert_array_equal(same[f"w/{key}"], same[f"x/{key}"], err_msg="no variance between equal points")
