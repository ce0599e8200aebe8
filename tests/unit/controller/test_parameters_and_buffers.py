"""Which tensors of a seed model are parameters, and what sessions do with the rest. The clients run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from at_once import InProcess
from federation import Federation
from torch import nn

from fedpkg.dispatch.site import Job
from fedpkg.errors import ConfigError, Interrupted
from fedpkg.formats.base import ModelForm, keys_of
from fedpkg.formats.model_file import read_model, write_model
from fedpkg.session import beginning, executors
from fedpkg.stores.base import SessionRow
from fedpkg.types import ReplyKind
from fedpkg.waist.order import Order
from fedpkg.weights.weights import Weights

Train = Callable[[Order, Weights], "Weights | dict[str, torch.Tensor]"]


class Here(InProcess):
    """``train`` makes a client's reply of what it was sent."""

    def __init__(self, train: Train, validate: Callable[[Weights], dict[str, float]] = lambda model: {}) -> None:
        self.train, self.validate = train, validate

    def write(self, job: Job) -> None:
        assert job.model is not None
        model, out = read_model(job.model), job.place.out
        if job.spec.kind is ReplyKind.METRICS:
            out.write_text(json.dumps(self.validate(model)))
        else:
            reply = Weights(dict(self.train(job.order, model)))
            write_model(out, reply, ModelForm(job.spec.suffix, keys_of(reply)))  # type: ignore[arg-type]
            Path(f"{out}-metadata").write_text(json.dumps({"num_examples": 10}))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, federation: Federation, tmp_path: Path) -> Callable[..., SessionRow]:
    """Run a session whose clients are a function; ``seed``: its tensors."""

    def run(
        train: Train, seed: Weights | dict[str, Any], *, validate: Any = lambda model: {}, **changes: Any
    ) -> SessionRow:
        executor = Here(train, validate)
        monkeypatch.setattr(executors, "make_executor", executor.make)
        weights = Weights(dict(seed))
        path = tmp_path / "Saat.safetensors"
        write_model(path, weights, ModelForm(".safetensors", keys_of(weights)))
        metadata = Path(f"{path}-metadata")
        metadata.unlink(missing_ok=True)
        if (listed := changes.pop("listed", None)) is not None:
            metadata.write_text(json.dumps({"buffers": listed}))
        return federation.run(federation.config(seed_model=str(path), **changes))

    return run


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For what is trained in this process: small steps wait longer for threads than they take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


# ---- BatchNorm in a model by positions


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))


class Digits:
    """Clients that train a network with BatchNorm on handwritten digits, as FEDn's packages do: by positions."""

    def __init__(self) -> None:
        datasets = pytest.importorskip("sklearn.datasets")
        x, y = datasets.load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(x))
        self.x, self.y = torch.tensor(x[order], dtype=torch.float32) / 16, torch.tensor(y[order])
        self.seed = {str(i): tensor.clone() for i, tensor in enumerate(net().state_dict().values())}

    def _model(self, weights: Weights) -> nn.Sequential:
        model = net()
        model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
        return model

    def train(self, task: Order, weights: Weights) -> dict[str, torch.Tensor]:
        torch.manual_seed(task.seed % 1000)
        model = self._model(weights)
        mine = torch.arange(task.partition_id, 1500, 3)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(2):
            for batch in mine[torch.randperm(len(mine))].split(32):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(self.x[batch]), self.y[batch]).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        return {str(i): tensor for i, tensor in enumerate(model.state_dict().values())}

    def accuracy(self, weights: Weights) -> dict[str, float]:
        with torch.no_grad():
            right = self._model(weights).eval()(self.x[1500:]).argmax(1) == self.y[1500:]
        return {"accuracy": right.float().mean().item(), "num_examples": 1.0}


MOMENTUM = {"name": "fedavgm", "momentum": 0.9}


LINE = 'buffers: ["4", "5"]'


@pytest.mark.parametrize(
    "strategy",
    [
        MOMENTUM,
        {"name": "dp_fedavg", "noise_multiplier": 0},
        {"name": "median"},
        {"name": "fedexp"},
        {"name": "fedavg", "reply": "delta"},
        {"name": "fedavg", "transforms": ["sign"]},
        {"name": "fedavg", "server_transforms": [{"name": "clip", "norm": 1.0}]},
    ],
    ids=lambda strategy: "-".join(map(str, strategy.values())),
)
def test_batch_norm_by_positions_is_refused_with_the_line_that_mends_it(
    here: Callable[..., SessionRow], federation: Federation, strategy: dict[str, Any]
) -> None:
    seed = {str(i): tensor for i, tensor in enumerate(net().state_dict().values())}
    with pytest.raises(ConfigError, match="4, 5 look like running means and variances of BatchNorm") as caught:
        here(moving, seed, strategy=strategy, listed=[])  # as an exported model has it of which nothing was known
    assert f"run.yaml: {LINE} (" in (caught.value.hint or "")
    assert federation.store.list_sessions() == []


@pytest.mark.parametrize(
    "changes", [{}, {"strategy": {"name": "fedprox"}}, {"buffers": ["4", "5"], "strategy": MOMENTUM}]
)
def test_plain_means_and_told_buffers_go_on_without_a_word(
    here: Callable[..., SessionRow], caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    seed = {str(i): tensor for i, tensor in enumerate(net().state_dict().values())}
    assert here(moving, seed, **changes).status == "finished"
    assert not said(caplog, "buffers")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_with_the_line_batch_norm_trains_and_without_it_negative_variances_are_told(
    here: Callable[..., SessionRow], federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    digits = Digits()

    def run(**changes: Any) -> SessionRow:
        return here(digits.train, digits.seed, validate=digits.accuracy, strategy=MOMENTUM, **changes)

    session = run(rounds=12, buffers=json.loads(LINE.partition(": ")[2]), validation={"every": 12})
    metrics = federation.store.list_rounds(session.session_id)[-1].metrics
    assert metrics["accuracy"] >= 0.95 and not said(caplog, "negative values")
    run(rounds=2, buffers=[])
    assert len(said(caplog, "variances of the next global model have negative values (5)")) == 1


# ---- methods that move parameters alone


NORM = {"fc": torch.ones(2, 3), "bn.running_mean": torch.zeros(2), "bn.num_batches_tracked": torch.tensor(0)}


def moving(task: Order, model: Weights) -> dict[str, torch.Tensor]:
    """Each tensor one more, also those that are no parameters."""
    return {name: tensor + 1 for name, tensor in model.items()}


def delta(*names: str) -> Train:
    def train(task: Order, model: Weights) -> dict[str, torch.Tensor]:
        return {name: torch.ones_like(model[name]) if name == "fc" else model[name] + 1 for name in names}

    return train


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"strategy": {"name": "dp_fedavg", "noise_multiplier": 0}}, True),
        ({"strategy": MOMENTUM}, False),
        ({"strategy": {"name": "dp_fedavg", "noise_multiplier": 0}, "buffers": []}, False),
    ],
)
def test_buffers_that_stay_at_the_seeds_are_told_at_the_start(
    here: Callable[..., SessionRow], caplog: pytest.LogCaptureFixture, changes: dict[str, Any], warned: bool
) -> None:
    here(moving, NORM, **changes)
    told = said(caplog, "1 buffers (bn.running_mean) keep the seed model's values")
    assert len(told) == warned
    assert len(said(caplog, "are treated as parameters, although")) == (changes.get("buffers") == [])


@pytest.mark.parametrize("transforms", [(), ("sign",)])
def test_buffers_travel_with_a_delta_as_they_are(
    here: Callable[..., SessionRow], federation: Federation, transforms: tuple[str, ...]
) -> None:
    strategy = {"name": "fedavg", "reply": "delta", "transforms": list(transforms)}
    session = here(delta(*NORM), NORM, rounds=2, strategy=strategy)
    model = federation.model(f"{session.session_id}.2")
    assert model["bn.running_mean"].tolist() == [2.0, 2.0] and int(model["bn.num_batches_tracked"]) == 2
    assert model["fc"].tolist() == [[3.0] * 3] * 2


def test_buffers_stay_where_a_delta_has_parameters_alone(
    here: Callable[..., SessionRow], federation: Federation
) -> None:
    by_position = {str(i): tensor for i, tensor in enumerate(NORM.values())}

    def train(task: Order, model: Weights) -> dict[str, torch.Tensor]:
        return {"0": torch.ones(2, 3)}

    for seed, clients in ((NORM, delta("fc")), (by_position, train)):
        names = list(seed)
        session = here(clients, seed, strategy={"name": "fedavg", "reply": "delta"}, buffers=[names[1]])
        model = federation.model(f"{session.session_id}.1")
        assert model[names[0]].tolist() == [[2.0] * 3] * 2 and model[names[1]].tolist() == [0.0, 0.0]


def test_sessions_of_before_send_deltas_of_parameters_alone(
    here: Callable[..., SessionRow], federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = beginning.SessionRow
    with monkeypatch.context() as patched:
        patched.setattr(beginning, "SessionRow", lambda **fields: row(**fields, rules=1))
        session = here(delta("fc"), NORM, strategy={"name": "fedavg", "reply": "delta"})
    executor = Here(delta(*NORM))
    monkeypatch.setattr(executors, "make_executor", executor.make)
    with pytest.raises(Exception, match=r"extra tensor 'bn\.running_mean'"):
        federation.resume(session.session_id, rounds=2)


# ---- models of integers alone


@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "fedadam"},
        {"name": "dp_fedavg", "noise_multiplier": 0},
        {"name": "fedavg", "reply": "delta"},
        {"name": "median", "transforms": ["bfloat16"]},
        {"name": "fedexp"},
    ],
)
def test_integers_alone_are_refused_by_methods_that_move_parameters(
    here: Callable[..., SessionRow], strategy: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"updates parameters .* but the seed model has none"):
        here(moving, {"counts": torch.zeros(4, dtype=torch.int64)}, strategy=strategy)


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"strategy": {"name": "fedavg"}}, "come from the client with the most examples"),
        ({"strategy": {"name": "median"}}, "are lower medians"),
        ({"strategy": {"name": "fedavg"}, "sampler": {"name": "uniform", "count": 1}}, None),
    ],
)
def test_integers_alone_are_told_where_clients_would_be_averaged(
    here: Callable[..., SessionRow], caplog: pytest.LogCaptureFixture, changes: dict[str, Any], warned: str | None
) -> None:
    here(moving, {"counts": torch.zeros(4, dtype=torch.int64)}, **changes)
    told = said(caplog, "does not average integers")
    assert len(told) == (warned is not None) and all(str(warned) in line for line in told)


# ---- dtypes and values of replies


FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def test_floating_replies_are_taken_into_the_dtype_of_the_global_model_and_that_is_said_once(
    here: Callable[..., SessionRow], federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    def train(task: Order, model: Weights) -> dict[str, torch.Tensor]:
        dtype = FLOATS[(task.round_number + task.partition_id) % 4]
        return {name: (tensor + 1).to(dtype) for name, tensor in model.items()}

    for count, dtype in enumerate(FLOATS, 1):
        session = here(train, {"w": torch.zeros(3, dtype=dtype)}, clients=4, rounds=2)
        row = federation.store.list_rounds(session.session_id)[-1]
        model = federation.model(f"{session.session_id}.2")
        assert (row.num_ok, model["w"].dtype, model["w"].tolist()) == (4, dtype, [2.0] * 3)
        assert len(said(caplog, "replies in another precision")) == count


def test_values_that_a_conversion_makes_infinite_and_integers_are_the_clients_failure(
    here: Callable[..., SessionRow], federation: Federation
) -> None:
    def train(task: Order, model: Weights) -> dict[str, torch.Tensor]:
        sent = [torch.full((3,), 1e300, dtype=torch.float64), torch.ones(3, dtype=torch.int32), model["w"] + 1]
        return {"w": sent[task.partition_id]}

    session = here(train, {"w": torch.zeros(3)})
    tasks = [federation.task(session, f"client-{k}") for k in range(3)]
    assert [task.failure for task in tasks] == ["not_finite", "mismatch", None]
    assert "'w' is float64, but float32 in the global model" in str(tasks[0].message)


MASK = torch.tensor([[0.1, -torch.inf], [torch.nan, 0.1]])
MASKED = {"w": torch.zeros(3), "mask": MASK, "running_mean": torch.zeros(2)}


@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "fedavg"},
        {"name": "fedadam"},
        {"name": "median"},
        {"name": "krum", "attackers": 0},
        {"name": "fedexp"},
        {"name": "fedavg", "transforms": ["sign", "zstd"], "download_transforms": ["bfloat16"]},
        {"name": "fedavg", "server_transforms": [{"name": "clip", "norm": 1.0}]},
        {"name": "fedavg", "reply": "delta"},
        {"name": "dp_fedavg", "noise_multiplier": 0},
    ],
    ids=lambda strategy: "-".join(map(str, strategy)) + strategy["name"],
)
def test_constant_buffers_that_are_not_finite_come_through_bit_by_bit(
    here: Callable[..., SessionRow], federation: Federation, strategy: dict[str, Any]
) -> None:
    if "transforms" in strategy:
        pytest.importorskip("zstandard")

    def train(task: Order, model: Weights) -> dict[str, torch.Tensor]:
        changed = {name: tensor + task.partition_id + 1.0 for name, tensor in model.items() if name != "mask"}
        if task.partition_id == 3:  # it has been trained
            return {**model, "mask": model["mask"] + 1}
        return {**changed, "mask": model["mask"]}

    listed = ["mask", "running_mean"]
    session = here(train, MASKED, clients=4, rounds=2, strategy=strategy, listed=listed, round={"required": 3})
    model = federation.model(f"{session.session_id}.2")
    assert torch.equal(model["mask"].view(torch.int32), MASK.view(torch.int32))
    assert federation.task(session, "client-3").failure == "not_finite"
    assert float(model["w"].sum()) > 0


def test_parameters_and_statistics_that_are_not_finite_are_refused_with_what_to_do(
    here: Callable[..., SessionRow],
) -> None:
    with pytest.raises(ConfigError, match="'mask' has NaN or infinite values") as caught:
        here(moving, MASKED)
    assert 'persistent=False), or declare it as a buffer: buffers: ["mask"]' in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="'running_mean' has NaN or infinite values"):
        here(moving, {"w": torch.zeros(1), "running_mean": torch.tensor([torch.nan])})


# ---- half precision


@pytest.mark.parametrize(
    ("strategy", "dtype"),
    [
        ({"name": "fedavgm", "learning_rate": 0.125, "momentum": 0.0}, torch.float16),
        ({"name": "fedadam", "learning_rate": 0.0008, "tau": 1e-6}, torch.bfloat16),
        ({"name": "fedbuff", "learning_rate": 0.125, "buffer": 2, "concurrency": 2}, torch.bfloat16),
        ({"name": "dp_fedavg", "noise_multiplier": 0, "clip_norm": 0.002}, torch.bfloat16),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else str(value),
)
def test_small_steps_of_the_server_add_up_in_half_precision(
    here: Callable[..., SessionRow], federation: Federation, strategy: dict[str, Any], dtype: torch.dtype
) -> None:
    step = float(torch.finfo(dtype).eps)  # the least that a client can move 1.0 up by

    def train(task: Order, model: Weights) -> dict[str, torch.Tensor]:
        return {"w": model["w"] + step, "statistic": model["statistic"] + step}

    def moved(dtype: torch.dtype) -> torch.Tensor:
        seed = {"w": torch.ones(4, dtype=dtype), "statistic": torch.ones(1, dtype=dtype)}
        session = here(train, seed, clients=2, rounds=8, strategy=strategy, listed=["statistic"])
        model = federation.model(f"{session.session_id}.8")
        assert {tensor.dtype for tensor in model.values()} == {dtype}
        return model["w"].float() - 1

    exact, rounded = moved(torch.float32), moved(dtype)
    assert torch.all(exact > step / 2) and torch.all((exact - rounded).abs() <= 0.51 * step)


def test_a_killed_session_in_half_precision_resumes_to_the_same_bits(
    here: Callable[..., SessionRow], federation: Federation
) -> None:
    def train(task: Order, model: Weights) -> dict[str, torch.Tensor]:
        rng = torch.Generator().manual_seed(task.seed)
        return {"w": model["w"] + 0.01 * torch.randn(5, generator=rng).to(torch.bfloat16)}

    def dies(task: Order, model: Weights) -> dict[str, torch.Tensor]:
        if task.round_number == 3 and task.partition_id == 1:
            raise KeyboardInterrupt
        return train(task, model)

    seed = {"w": torch.ones(5, dtype=torch.bfloat16)}
    changes = {"rounds": 5, "strategy": {"name": "fedadam", "learning_rate": 0.001}}
    expected = federation.digests(here(train, seed, **changes).session_id)
    with pytest.raises(Interrupted):
        here(dies, seed, **changes)
    session_id = federation.store.list_sessions()[-1].session_id
    executors.make_executor(None, None, None, slots=[]).train = train  # type: ignore[arg-type,attr-defined]
    federation.resume(session_id)
    assert federation.digests(session_id) == expected


def test_numbers_of_arrays_are_positions_too(here: Callable[..., SessionRow], caplog: pytest.LogCaptureFixture) -> None:
    seed = {f"arr_{i}": torch.ones(2) for i in range(2)}
    for changes, times in (({"strategy": MOMENTUM}, 1), ({"strategy": MOMENTUM, "buffers": []}, 1), ({}, 1)):
        here(moving, seed, **changes)
        assert len(said(caplog, "buffers (running statistics) cannot be recognised")) == times
