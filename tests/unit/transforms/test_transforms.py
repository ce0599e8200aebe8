"""Transforms: what each does to an update, and that both ends agree; by formulas, by statistics, with hostile bytes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedpkg.config_shape import Places
from fedpkg.errors import ConfigError, FedpkgError, ModelFileError
from fedpkg.strategies.registry import resolve_strategy
from fedpkg.transforms.chain import Chain, Sent
from fedpkg.transforms.noise import gaussian_std
from fedpkg.transforms.registry import TRANSFORMS
from fedpkg.weights.weights import Weights

PLACES = Places("run.yaml")
ALL: dict[str, Any] = {
    "delta": {"name": "delta"},
    "clip": {"name": "clip", "norm": 0.5},
    "gaussian_noise": {"name": "gaussian_noise", "std": 0.1},
    "local_dp": {"name": "local_dp", "norm": 1.0, "epsilon": 2.0},
    "top_k": {"name": "top_k", "share": 0.1},
    "random_k": {"name": "random_k", "share": 0.1},
    "quantise": {"name": "quantise", "bucket": 64},
    "quantise to 4 bits": {"name": "quantise", "bits": 4, "bucket": 7},
    "sign": {"name": "sign", "bucket": 32},
    "bfloat16": {"name": "bfloat16"},
    "zstd": {"name": "zstd"},
}
CHAINS = {name: [section] for name, section in ALL.items()} | {
    "all stages": [ALL[name] for name in ("delta", "clip", "gaussian_noise", "top_k", "quantise to 4 bits", "zstd")],
    "sparse signs": [ALL["random_k"], ALL["sign"], ALL["zstd"]],
    "quantised models": [ALL["quantise"], ALL["zstd"]],
}


def chain(*sections: Any) -> Chain:
    resolved = [TRANSFORMS.resolve("transform", section, PLACES, ()) for section in sections]
    return Chain(tuple(TRANSFORMS.make("transform", one, PLACES, ()) for one in resolved))


def model(seed: int = 0, *, double: bool = False) -> Weights:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    tensors = {
        "fc.weight": normal(13, 37),
        "scale": normal(1)[0],
        "half": normal(33).half(),
        "wave": torch.complex(normal(4), normal(4)),
        "none": normal(0, 3),
        "bn.running_var": normal(6).abs(),
        "bn.num_batches_tracked": torch.tensor(seed),
        "mask": torch.tensor([seed % 2 == 0, True]),
    }
    if double:
        tensors["double"] = normal(9).double()
    return Weights(tensors, buffers=["bn.running_var", "bn.num_batches_tracked", "mask"])


def vector(values: Tensor) -> Weights:
    return Weights({"w": values})


def received(one: Chain, sent: Sent, start: Weights, folder: Path, **more: Any) -> Weights:
    (folder / "sent").write_bytes(sent.content)
    return one.decode(folder / "sent", start, **more)[0]


def sent_over(one: Chain, update: Tensor, *, seed: int = 0, start: Tensor | None = None) -> Tensor:
    """What arrives of an update, as a difference to the model that was sent."""
    start = torch.zeros_like(update) if start is None else start
    return one.there_and_back(vector(start + update), vector(start), seed=seed)["w"] - start


# ---- both ends


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("double", [False, True])
def test_what_is_decoded_fits_and_keeps_what_is_no_parameter(name: str, double: bool, tmp_path: Path) -> None:
    start, update, one = model(0, double=double), model(1, double=double), chain(*CHAINS[name])
    first = one.encode(update, start, seed=7)
    found = received(one, first, start, tmp_path)
    assert found.mismatch(start) is None
    assert list(found) == list(start)
    assert found.buffers == start.buffers
    for buffer in start.buffers:
        assert torch.equal(found[buffer], update[buffer])
    assert found.first_non_finite() is None
    assert one.encode(update, start, seed=7).content == first.content
    assert found.equal(one.there_and_back(update, start, seed=7))


@pytest.mark.parametrize("name", ["clip", "gaussian_noise", "local_dp", "top_k", "random_k", "sign"])
def test_transforms_of_updates_work_on_the_difference(name: str, tmp_path: Path) -> None:
    start, update = model(0), model(1)
    of_models = chain(ALL[name])
    gradient = Weights({name: update[name] - start[name] for name in start.parameters})
    as_model = received(of_models, of_models.encode(update, start, seed=3), start, tmp_path)
    shapes = start.filter(frozenset(start.parameters).__contains__)
    sent = of_models.encode(gradient, shapes, seed=3, is_difference=True)
    as_gradient = received(of_models, sent, shapes, tmp_path, is_difference=True)
    for parameter in ("fc.weight", "scale", "wave"):
        torch.testing.assert_close(as_model[parameter] - start[parameter], as_gradient[parameter], atol=1e-4, rtol=1e-4)


def test_without_loss_a_model_arrives_as_it_was(tmp_path: Path) -> None:
    update = model(1)
    one = chain("zstd")
    assert received(one, one.encode(update, model(0), seed=0), model(0), tmp_path).equal(update)


@pytest.mark.parametrize(
    ("sections", "most"),
    [
        ([ALL["bfloat16"]], 2.01),
        (["quantise"], 1.02),
        ([{"name": "quantise", "bits": 4}], 0.52),
        (["sign"], 0.15),
        ([{"name": "top_k", "share": 0.01}], 0.09),
        ([{"name": "random_k", "share": 0.01}], 0.05),
        ([{"name": "top_k", "share": 0.01}, {"name": "quantise", "bits": 4}, "zstd"], 0.05),
    ],
)
def test_bytes_for_a_number(sections: list[Any], most: float) -> None:
    start = vector(torch.zeros(200_000))
    update = vector(torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    assert len(chain(*sections).encode(update, start, seed=0).content) / 200_000 <= most


# ---- what each does


def test_clipping_keeps_the_direction_and_bounds_the_length() -> None:
    update = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    for norm in (1e-3, 1.0, 31.0, 1e6):
        found = sent_over(chain({"name": "clip", "norm": norm}), update)
        expected = update.double() * min(1.0, norm / float(update.double().norm()))
        torch.testing.assert_close(found.double(), expected, atol=1e-6 * norm, rtol=1e-5)


def test_clipping_leaves_an_update_that_changes_nothing() -> None:
    start = torch.randn(9)
    found = sent_over(chain({"name": "clip", "norm": 0.5}), torch.zeros(9), start=start)
    assert torch.equal(found, torch.zeros(9))


@pytest.mark.parametrize(("norm", "clipped"), [(0.1, 1), (100.0, 0)])
def test_clipping_is_told(norm: float, clipped: int, tmp_path: Path) -> None:
    one, start = chain({"name": "clip", "norm": norm}), vector(torch.zeros(4))
    (tmp_path / "sent").write_bytes(one.encode(vector(torch.ones(4)), start, seed=0).content)
    assert one.decode(tmp_path / "sent", start)[1] == {"clipped": clipped}


def test_noise_is_gaussian_and_of_its_seed_alone() -> None:
    one, size = chain({"name": "gaussian_noise", "std": 0.3}), 40_000
    noise = sent_over(one, torch.zeros(size), seed=5).double()
    assert abs(float(noise.mean())) < 4 * 0.3 / math.sqrt(size)
    assert abs(float(noise.std()) / 0.3 - 1) < 4 / math.sqrt(2 * size)
    shares = [float((noise.abs() < times * 0.3).double().mean()) for times in (1, 2, 3)]
    assert shares == pytest.approx([0.6827, 0.9545, 0.9973], abs=0.01)
    assert torch.equal(noise, sent_over(one, torch.zeros(size), seed=5).double())
    other = sent_over(one, torch.zeros(size), seed=6).double()
    assert abs(float(torch.corrcoef(torch.stack((noise, other)))[0, 1])) < 4 / math.sqrt(size)


def test_two_steps_of_noise_draw_each_their_own() -> None:
    one = chain({"name": "gaussian_noise", "std": 1.0}, {"name": "gaussian_noise", "std": 1.0})
    assert float(sent_over(one, torch.zeros(40_000)).double().std()) == pytest.approx(math.sqrt(2), rel=0.02)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0, 50.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-8])
def test_least_noise_for_a_promise_is_least(epsilon: float, delta: float) -> None:
    """Against the delta of Gaussian noise, integrated numerically: E[(1 - exp(epsilon - loss))+]."""
    std = gaussian_std(epsilon, delta, sensitivity=2.0)

    def exact(std: float) -> float:
        mean = (2.0 / std) ** 2 / 2  # the privacy loss is normal, its variance twice its mean
        loss = np.linspace(mean - 12 * math.sqrt(2 * mean), mean + 12 * math.sqrt(2 * mean), 200_001)
        density = np.exp(-((loss - mean) ** 2) / (4 * mean)) / math.sqrt(4 * math.pi * mean)
        height = density * np.clip(-np.expm1(epsilon - loss), 0, None)  # 0 at both ends
        return float(height.sum() * (loss[1] - loss[0]))

    assert exact(std) == pytest.approx(delta, rel=1e-3)
    assert exact(0.99 * std) > delta


def test_local_dp_clips_then_adds_noise_of_its_promise() -> None:
    found = sent_over(chain({"name": "local_dp", "norm": 2.0, "epsilon": 3.0}), torch.full((50_000,), 1.0), seed=1)
    centre = 2.0 / math.sqrt(50_000)
    std = gaussian_std(3.0, 1e-5, sensitivity=4.0)
    assert float(found.double().mean()) == pytest.approx(centre, abs=4 * std / math.sqrt(50_000))
    assert float(found.double().std()) == pytest.approx(std, rel=0.02)


def test_top_k_are_the_largest() -> None:
    update = torch.randn(1000, generator=torch.Generator().manual_seed(2))
    found = sent_over(chain({"name": "top_k", "share": 0.05}), update)
    largest = update.abs().sort(descending=True).values[49]
    assert torch.equal(found, torch.where(update.abs() >= largest, update, 0.0))


@pytest.mark.parametrize("size", [1, 2, 3, 9])
@pytest.mark.parametrize("name", CHAINS)
def test_small_models(name: str, size: int) -> None:
    update = torch.arange(1.0, size + 1)
    found = sent_over(chain(*CHAINS[name]), update)
    assert found.shape == (size,) and bool(found.isfinite().all())


@pytest.mark.parametrize("name", CHAINS)
def test_a_model_without_parameters(name: str, tmp_path: Path) -> None:
    start, one = Weights({"steps": torch.tensor(3)}), chain(*CHAINS[name])
    assert received(one, one.encode(start, start, seed=0), start, tmp_path).equal(start)


@pytest.mark.parametrize(
    "section",
    [{"name": "random_k", "share": 0.2}, {"name": "quantise", "bucket": 16}, {"name": "quantise", "bits": 4}],
    ids=lambda section: "-".join(map(str, section.values())),
)
def test_the_mean_over_draws_is_the_update(section: Any) -> None:
    update = torch.randn(60, generator=torch.Generator().manual_seed(4)) * torch.logspace(-1, 0, 60)
    one, count = chain("delta", section), 3000
    found = torch.stack([sent_over(one, update, seed=seed) for seed in range(count)]).double()
    spread = found.std(dim=0) / math.sqrt(count)
    assert bool(((found.mean(dim=0) - update).abs() <= 5 * spread + 1e-6 * update.abs()).all())
    assert bool((spread > 0).sum() > 50)


@pytest.mark.parametrize(("bits", "levels"), [(8, 127), (4, 7)])
def test_quantised_numbers_are_wrong_by_less_than_a_level(bits: int, levels: int) -> None:
    update = torch.randn(1000, generator=torch.Generator().manual_seed(5))
    found = sent_over(chain("delta", {"name": "quantise", "bits": bits, "bucket": 100}), update)
    scales = update.reshape(10, 100).abs().amax(dim=1, keepdim=True)
    assert bool(((found - update).reshape(10, 100).abs() < scales / levels * 1.00001).all())
    steps = found.reshape(10, 100) / scales * levels
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [0.0, 1e-42, 1e-30, 3e38])
def test_quantised_extremes_stay_finite(value: float) -> None:
    found = sent_over(chain("quantise"), torch.tensor([value, -value, 0.0, value / 3]))
    assert bool(found.isfinite().all()) and float(found.abs().max()) <= value * 1.1


def test_signs_with_the_mean_of_magnitudes() -> None:
    update = torch.tensor([1.0, -3.0, 2.0, -2.0, 5.0, -7.0])
    found = sent_over(chain({"name": "sign", "bucket": 4}), update)
    assert found.tolist() == [2.0, -2.0, 2.0, -2.0, 6.0, -6.0]


@pytest.mark.parametrize("name", ["top_k", "sign", "random_k with feedback", "top_k, quantised"])
def test_error_feedback_owes_exactly_what_did_not_arrive(name: str, tmp_path: Path) -> None:
    sections: dict[str, list[Any]] = {
        "top_k": [{"name": "top_k", "share": 0.1}],
        "sign": [{"name": "sign", "bucket": 16}],
        "random_k with feedback": [{"name": "random_k", "share": 0.1, "error_feedback": True}],
        "top_k, quantised": [{"name": "top_k", "share": 0.1}, {"name": "quantise", "bits": 4}],
    }
    one, start = chain(*sections[name]), vector(torch.zeros(64))
    assert one.feeds_back
    generator = torch.Generator().manual_seed(6)
    lost, arrived, made = None, torch.zeros(64), torch.zeros(64)
    for seed in range(40):
        update = torch.randn(64, generator=generator)
        sent = one.encode(vector(update), start, seed=seed, lost=lost)
        arrived, made, lost = arrived + received(one, sent, start, tmp_path)["w"], made + update, sent.lost
        assert lost is not None
        torch.testing.assert_close(arrived + lost, made, atol=1e-4, rtol=1e-4)
    assert float(lost.norm()) < 0.5 * float(made.norm()) * math.sqrt(40)


# ---- what does not go together


@pytest.mark.parametrize(
    "names", ["top_k clip", "zstd quantise", "quantise bfloat16", "sign top_k", "clip delta", "zstd zstd"]
)
def test_wrong_order_is_refused_with_the_right_one(names: str) -> None:
    with pytest.raises(ValueError, match="the order is: delta; clip"):
        chain(*(ALL[name] for name in names.split()))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"transforms": "zstd"}, "'strategy.transforms' must be a list of transforms"),
        ({"transforms": ["zst"]}, "there is no transform 'zst'; did you mean 'zstd'?"),
        ({"transforms": [{"name": "top_k"}]}, "share"),
        ({"transforms": [{"name": "top_k", "share": 2}]}, "share"),
        ({"transforms": [{"name": "quantise", "bits": 3}]}, "bits"),
    ],
)
def test_wrong_sections_are_refused(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        resolve_strategy({"name": "fedavg", **section}, PLACES)


# ---- bytes that nobody sent


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(CHAINS)), data=st.data())
def test_damaged_bytes_are_refused_or_fit(name: str, data: st.DataObject, tmp_path: Path) -> None:
    start, one = model(0), chain(*CHAINS[name])
    content = bytearray(one.encode(model(1), start, seed=1).content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] = data.draw(st.integers(0, 255))
        else:
            del content[place : place + data.draw(st.integers(1, 40))]
            content = content or bytearray(b"x")
    try:
        found = received(one, Sent(bytes(content)), start, tmp_path)
    except FedpkgError:
        return
    assert found.mismatch(start) is None


def test_another_chain_s_bytes_are_refused(tmp_path: Path) -> None:
    start = model(0)
    for name in ("top_k", "random_k", "quantise", "sign", "bfloat16", "zstd"):
        content = chain(ALL[name]).encode(model(1), start, seed=1)
        for other in ("delta", "top_k", "quantise", "sign", "bfloat16", "zstd"):
            if other != name:
                with pytest.raises(ModelFileError):
                    received(chain(ALL[other]), content, start, tmp_path)


def test_packed_bombs_are_refused(tmp_path: Path) -> None:
    import zstandard

    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    assert len(bomb) < 1 << 16
    with pytest.raises(ModelFileError, match="unpacks to more than"):
        received(chain("zstd"), Sent(bomb), model(0), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sent"]


@pytest.mark.parametrize("places", [[0, 0], [3, 1], [-1, 2], [0, 10]])
def test_places_out_of_order_or_reach_are_refused(places: list[int], tmp_path: Path) -> None:
    import io

    from fedpkg.transforms.message import Message, write_message

    file = io.BytesIO()
    write_message(file, Message(torch.ones(2), {"places": torch.tensor(places, dtype=torch.int32)}))
    with pytest.raises(ModelFileError, match="places of numbers"):
        received(chain({"name": "top_k", "share": 0.2}), Sent(file.getvalue()), vector(torch.zeros(10)), tmp_path)
