"""The weighted mean: its equation, its exactness, its memory."""

from __future__ import annotations

import gc
import itertools
import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpkg.errors import AggregationError
from fedpkg.weights.fold import _PIECE, BLOCK, MeanFold, weighted_mean_reference
from fedpkg.weights.weights import Weights

Updates = list[tuple[int, Weights, float]]


def weights(seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Weights(
        {
            "fc.weight": normal(3, 37),
            "fc.bias": normal(3),
            "scale": normal(1)[0],
            "half": normal(33).half(),
            "brain": normal(5, 2).bfloat16(),
            "double": normal(7).double(),
            "wave": torch.complex(normal(4), normal(4)),
            "none": normal(0, 3),
            "count": torch.tensor(seed),
            "mask": torch.tensor([seed % 2 == 0, True]),
        },
        buffers=["count", "mask"],
    )


TEMPLATE = weights(0)


def folded(updates: Updates, template: Weights = TEMPLATE) -> Weights:
    fold = MeanFold(template)
    for position, update, weight in updates:
        fold.add(position, update, weight)
    return fold.result()


@st.composite
def cohorts(draw: st.DrawFn) -> Updates:
    positions = sorted(draw(st.sets(st.integers(0, 5 * BLOCK), min_size=1, max_size=40)))
    weight = st.one_of(st.integers(1, 60_000).map(float), st.floats(1e-3, 1e6))
    return [(position, weights(draw(st.integers(0, 2**31))), draw(weight)) for position in positions]


@settings(max_examples=40)
@given(cohorts())
def test_fold_agrees_with_the_reference_bit_for_bit(updates: Updates) -> None:
    assert folded(updates).equal(weighted_mean_reference(updates, TEMPLATE))


@settings(max_examples=40)
@given(cohorts())
def test_merged_block_folds_agree_with_a_flat_fold_bit_for_bit(updates: Updates) -> None:
    total = MeanFold(TEMPLATE)
    for _, block in itertools.groupby(updates, key=lambda entry: entry[0] // BLOCK):
        part = MeanFold(TEMPLATE)
        for position, update, weight in block:
            part.add(position, update, weight)
        total.merge(part)
    assert total.num_contributors == len(updates)
    assert total.weight == pytest.approx(sum(weight for _, _, weight in updates))
    assert total.result().equal(folded(updates))


def test_fold_goes_on_after_a_merge() -> None:
    updates = [(position, weights(position), position + 1.0) for position in range(3 * BLOCK)]
    fold, later = MeanFold(TEMPLATE), MeanFold(TEMPLATE)
    for entry in updates[:BLOCK]:
        fold.add(*entry)
    for entry in updates[BLOCK : 2 * BLOCK]:
        later.add(*entry)
    fold.merge(later)
    assert later.num_contributors == 0
    for entry in updates[2 * BLOCK :]:
        fold.add(*entry)
    assert fold.result().equal(folded(updates))


def test_mean_is_the_weighted_mean() -> None:
    updates = [(position, weights(position), 100.0 + 7 * position) for position in range(100)]
    mean = folded(updates)
    total = sum(weight for _, _, weight in updates)
    for name in ("fc.weight", "fc.bias", "scale", "double", "wave"):
        wide = torch.complex128 if mean[name].is_complex() else torch.float64
        expected = sum(update[name].to(wide) * weight for _, update, weight in updates) / total
        assert torch.allclose(mean[name].to(wide), expected, rtol=0, atol=1e-6)
    assert {name: tensor.dtype for name, tensor in mean.items()} == {n: t.dtype for n, t in TEMPLATE.items()}
    assert list(mean) == list(TEMPLATE)
    assert mean.buffers == TEMPLATE.buffers


def test_number_of_threads_does_not_change_a_bit() -> None:
    template = Weights({"w": torch.zeros(100_003)})
    updates: Updates = []
    for position in range(20):
        generator = torch.Generator().manual_seed(position)
        updates.append((position, Weights({"w": torch.randn(100_003, generator=generator)}), 3.7 + position))
    before = torch.get_num_threads()
    means = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            means.append(folded(updates, template))
    finally:
        torch.set_num_threads(before)
    assert means[0].equal(means[1])
    assert means[0].equal(means[2])


@pytest.mark.parametrize("weight", [1.0, 3.0, 0.1, 60_000.0])
def test_single_contributor_is_returned_as_it_is(weight: float) -> None:
    update = Weights({**weights(5), "fc.bias": torch.tensor([-0.0, 1e-42, 3e38])})
    mean = folded([(7, update, weight)])
    assert mean.equal(update)
    mean["fc.bias"].zero_()
    assert update["fc.bias"][2] > 0


def test_names_in_another_order_fold_the_same() -> None:
    updates = [(position, weights(position), 2.0 + position) for position in range(3)]
    shuffled = [(p, Weights(dict(reversed(list(update.items())))), w) for p, update, w in updates]
    assert folded(shuffled).equal(folded(updates))


def test_integers_come_from_the_largest_contributor_the_first_of_equals() -> None:
    weight_of = {0: 5.0, 3: 9.0, 4: 9.0, 17: 8.0, 40: 9.0}
    mean = folded([(position, weights(position), weight) for position, weight in weight_of.items()])
    assert mean["count"] == 3
    assert mean["mask"].tolist() == [False, True]
    later = folded([(position, weights(position), float(position + 1)) for position in (0, 20, 40)])
    assert later["count"] == 40


def test_float16_does_not_overflow_under_large_weights() -> None:
    template = Weights({"w": torch.zeros(70_001).half()})
    update = Weights({"w": torch.full((70_001,), 2.0).half()})
    mean = folded([(position, update, 60_000.0) for position in range(20)], template)
    assert mean["w"].dtype == torch.float16
    assert torch.all(mean["w"] == 2.0)


def test_overflow_names_the_tensor() -> None:
    huge = Weights({"fine": torch.ones(2), "w": torch.full((2,), 3e38)})
    with pytest.raises(AggregationError, match="tensor 'w' is not finite in float32"):
        folded([(0, huge, 1.0), (1, huge, 1.0)], huge)


def test_no_updates_is_an_error() -> None:
    with pytest.raises(AggregationError, match="no updates to average"):
        MeanFold(TEMPLATE).result()
    with pytest.raises(AggregationError, match="no updates to average"):
        weighted_mean_reference([], TEMPLATE)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf, -math.inf, 1e-300, 1e300])
def test_unusable_weight_is_an_error_and_changes_nothing(weight: float) -> None:
    fold = MeanFold(TEMPLATE)
    fold.add(0, weights(1), 2.0)
    with pytest.raises(AggregationError, match=r"cohort position 1: weight .* (above zero|out of range)"):
        fold.add(1, weights(2), weight)
    assert fold.num_contributors == 1
    assert fold.result().equal(weights(1))


def test_update_that_would_broadcast_is_an_error() -> None:
    fold = MeanFold(TEMPLATE)
    with pytest.raises(AggregationError, match=r"tensor 'fc.bias' has shape \(1,\)"):
        fold.add(0, Weights({**weights(1), "fc.bias": torch.ones(1)}), 1.0)


def test_positions_must_increase() -> None:
    fold = MeanFold(TEMPLATE)
    fold.add(5, weights(1), 1.0)
    for position in (5, 4):
        with pytest.raises(AggregationError, match="after a later one"):
            fold.add(position, weights(1), 1.0)


def test_merge_refuses_what_would_round_differently() -> None:
    def fold_of(*positions: int) -> MeanFold:
        fold = MeanFold(TEMPLATE)
        for position in positions:
            fold.add(position, weights(position), 1.0)
        return fold

    with pytest.raises(AggregationError, match="block 0 was already folded"):
        fold_of(0, 1).merge(fold_of(2))
    with pytest.raises(AggregationError, match="covers blocks 1 to 2; it must cover one"):
        fold_of(0).merge(fold_of(BLOCK, 2 * BLOCK))
    with pytest.raises(AggregationError, match="does not fit"):
        MeanFold(Weights({})).merge(fold_of(0))
    several = MeanFold(TEMPLATE)
    several.merge(fold_of(0, BLOCK))  # into an empty fold, nothing is added up
    with pytest.raises(AggregationError, match="after a later one"):
        several.add(2 * BLOCK - 1, weights(0), 1.0)
    assert several.num_contributors == 2


def test_at_most_one_update_is_kept() -> None:
    fold = MeanFold(TEMPLATE)
    seen = []
    for position in (0, 1, 2, 3, 4, BLOCK, BLOCK + 1, 2 * BLOCK):
        update = weights(position)
        seen.append(weakref.ref(next(iter(update.values()))))
        fold.add(position, update, 1.0)
        del update
        gc.collect()
        assert sum(ref() is not None for ref in seen) <= 1
    fold.result()
    gc.collect()
    assert not any(ref() for ref in seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("count", [1, 2, 5, 8, 17])
def test_big_tensors_are_added_piece_by_piece_to_the_same_bits(dtype: torch.dtype, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    updates = [
        (position, Weights({"w": torch.randn(2 * _PIECE + 7, generator=generator).to(dtype)}), 1.0 + position)
        for position in range(count)
    ]
    fold = MeanFold(updates[0][1])
    for position, update, weight in updates:
        fold.add(position, update, weight)
    assert fold.result().equal(weighted_mean_reference(updates, updates[0][1]))
