"""The weighted mean: its equation, its exactness, its memory."""

from __future__ import annotations

import gc
import itertools
import json
import math
import random
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from golden_means import COHORTS, GOLDEN, contributors, digest
from golden_means import folded as golden_fold
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_mean import weighted_mean

from fedpkg.errors import AggregationError, ModelFileError
from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import write_sets
from fedpkg.formats.partial_file import read_partial, write_partial
from fedpkg.weights.fold import BLOCK, MeanFold, Partial
from fedpkg.weights.weighted_sum import _PIECE
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
def cohorts(draw: st.DrawFn, most: int = 2 * BLOCK * BLOCK) -> Updates:
    positions = draw(st.lists(st.integers(0, draw(st.sampled_from([BLOCK, 5 * BLOCK, most]))), min_size=1, max_size=40))
    weight = st.one_of(st.integers(1, 60_000).map(float), st.floats(1e-3, 1e6))
    return [(position, weights(draw(st.integers(0, 2**31))), draw(weight)) for position in sorted({*positions})]


def parts(updates: Updates, starts: Sequence[int], stop: int) -> list[Partial]:
    """Partial sums of ranges of positions, each folded by itself; a range without an update has its part too."""
    found: list[Partial] = []
    for start, end in itertools.pairwise([*starts, stop]):
        fold = MeanFold(TEMPLATE, start=start)
        for position, update, weight in updates:
            if start <= position < end:
                fold.add(position, update, weight, {"weight": weight})
        found += fold.partials(end)
    return found


@pytest.mark.parametrize("name", COHORTS)
def test_means_have_the_bits_of_the_golden_file(name: str) -> None:
    expected = json.loads(GOLDEN.read_text())[name]
    assert digest(golden_fold(name)) == expected
    if COHORTS[name][0] <= 600:
        assert digest(weighted_mean(list(contributors(name)), next(contributors(name))[1])) == expected


@settings(max_examples=40)
@given(cohorts())
def test_fold_agrees_with_the_reference_bit_for_bit(updates: Updates) -> None:
    assert folded(updates).equal(weighted_mean(updates, TEMPLATE))


@settings(max_examples=60)
@given(cohorts(), st.sets(st.integers(1, 2 * BLOCK * BLOCK)), st.randoms(use_true_random=False), st.booleans())
def test_parts_of_a_cohort_merge_to_the_bits_of_a_flat_fold_in_any_order(
    updates: Updates, cuts: set[int], rng: random.Random, again: bool
) -> None:
    size = 2 * BLOCK * BLOCK + 1
    found = parts(updates, [0, *sorted(cuts)], size)
    if again:  # one level of combiners more, each of which merges what it gets of its own range
        halves = [MeanFold(TEMPLATE), MeanFold(TEMPLATE, start=BLOCK * BLOCK)]
        found = parts(updates, sorted({0, BLOCK * BLOCK, *cuts}), size)
        rng.shuffle(found)
        for partial in found:
            halves[partial.start >= BLOCK * BLOCK].merge(partial)
        found = [*halves[0].partials(BLOCK * BLOCK), *halves[1].partials(size)]
        assert (found[0].start, found[0].stop) == (0, BLOCK * BLOCK), "an aligned range is one part"
    rng.shuffle(found)
    total = MeanFold(TEMPLATE)
    for partial in found:
        total.merge(partial)
    assert total.num_contributors == len(updates)
    assert total.numbers == {"weight": [weight for _, _, weight in updates]}
    assert total.result(size).equal(folded(updates))


def test_parts_from_files_merge_to_the_same_bits(tmp_path: Path) -> None:
    updates = [(position, weights(position), 0.1 + position) for position in range(600) if position % 5 != 2]
    found = parts(updates, [0, 7, 16, 32, 256, 300, 512], 600)
    assert sorted({partial.count for partial in found})[0] == 0, "a part without contributors"
    total = MeanFold(TEMPLATE)
    for number, partial in enumerate(reversed(found)):
        write_partial(tmp_path / str(number), partial)
        total.merge(read_partial(tmp_path / str(number), max_bytes=100_000))
    assert total.numbers == {"weight": [weight for _, _, weight in updates]}
    assert total.result().equal(folded(updates))


def test_aligned_range_is_one_part_and_other_ranges_are_a_few() -> None:
    def ranges(start: int, stop: int) -> list[tuple[int, int]]:
        fold = MeanFold(TEMPLATE, start=start)
        fold.add(stop - 1, weights(1), 1.0)
        return [(partial.start, partial.stop) for partial in fold.partials()]

    for size in (1, BLOCK, BLOCK**2, BLOCK**3):
        assert ranges(3 * size, 4 * size) == [(3 * size, 4 * size)]
    assert ranges(0, 600) == [(0, 512), (512, 592), (592, 600)], "one for each level"
    assert ranges(14, 40) == [(14, 15), (15, 16), (16, 32), (32, 40)]


def test_fold_of_a_part_goes_on_after_it() -> None:
    updates = [(position, weights(position), position + 1.0) for position in range(3 * BLOCK)]
    root, node = MeanFold(TEMPLATE), MeanFold(TEMPLATE)
    for position, update, weight in updates:
        node.add(position, update, weight)
        if position in (BLOCK - 1, 3 * BLOCK - 1):
            for partial in node.partials():
                root.merge(partial)
    assert node.num_contributors == 0
    assert root.result().equal(folded(updates))


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        ({"": Weights({"w": torch.ones(2)})}, "it has no valid of/start"),
        ({"of": Weights({"start": torch.tensor(0.0)})}, "it has no valid of/start"),
        ({"count": torch.tensor(3)}, "inconsistent"),
        ({"weight": torch.tensor(math.nan).double()}, "inconsistent"),
        ({"largest": torch.tensor(0.0).double()}, "inconsistent"),
        ({"numbers.x": torch.ones(3).double()}, "inconsistent"),
        ({"numbers.x": torch.ones(1)}, "it has no valid of/numbers.x"),
    ],
)
def test_file_that_is_no_partial_sum_is_an_error(
    tmp_path: Path, sets: dict[str, Weights] | dict[str, torch.Tensor], reason: str
) -> None:
    if not any(isinstance(each, Weights) for each in sets.values()):
        counts = {"start": torch.tensor(0), "stop": torch.tensor(2), "count": torch.tensor(1)}
        measures = {"weight": torch.tensor(1.0).double(), "largest": torch.tensor(1.0).double()}
        sets = {"of": Weights({**counts, **measures, **sets})}  # type: ignore[dict-item]
    write_sets(tmp_path / "partial", sets, ModelForm(".npz"))  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match=f"partial: is not a partial sum: .*{reason}"):
        read_partial(tmp_path / "partial")


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
        weighted_mean([], TEMPLATE)


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
        with pytest.raises(AggregationError, match="is not after those already folded"):
            fold.add(position, weights(1), 1.0)


def part(start: int, stop: int, *positions: int) -> Partial:
    fold = MeanFold(TEMPLATE, start=start)
    for position in positions:
        fold.add(position, weights(position), 1.0)
    (found,) = fold.partials(stop)
    return found


def test_parts_that_overlap_are_an_error() -> None:
    fold = MeanFold(TEMPLATE)
    fold.merge(part(0, 4, 0, 2))
    fold.merge(part(16, 32, 20))
    for other, overlap in [
        (part(3, 4), "of position 3 overlaps positions already folded: position 3"),
        (part(0, 16, 7), "overlaps positions already folded: positions 0 to 3"),
        (part(20, 21), "overlaps positions already folded: position 20"),
        (part(0, 512, 300), "overlaps positions already folded: positions 0 to 3"),
    ]:
        with pytest.raises(AggregationError, match=overlap):
            fold.merge(other)
    assert fold.num_contributors == 2, "the one that waits is not counted"


def test_gaps_between_parts_and_before_the_end_are_an_error() -> None:
    fold = MeanFold(TEMPLATE)
    fold.merge(part(0, 4, 0))
    fold.merge(part(16, 32, 20))
    for use in (fold.result, fold.partials, lambda: fold.add(40, weights(1), 1.0)):
        with pytest.raises(AggregationError, match="the mean has a gap: positions 4 to 15"):
            use()
    for position in range(4, 16):
        fold.merge(part(position, position + 1))
    with pytest.raises(AggregationError, match="the mean has a gap: positions 32 to 99"):
        fold.result(100)
    with pytest.raises(AggregationError, match="the mean has a gap: positions 0 to 15"):
        MeanFold(TEMPLATE, start=16).result()
    with pytest.raises(AggregationError, match="cannot end at position 7: position 31 is already folded"):
        fold.partials(8)
    assert fold.result(32).equal(folded([(0, weights(0), 1.0), (20, weights(20), 1.0)]))


def test_parts_that_are_none_of_this_sum_are_an_error() -> None:
    with pytest.raises(AggregationError, match="does not fit: extra tensor"):
        MeanFold(Weights({})).merge(part(0, 16, 0))
    half = MeanFold(Weights({"w": torch.ones(3).half()}))
    with pytest.raises(AggregationError, match="does not fit: tensor 'w' has dtype float16"):
        half.merge(Partial(0, 1, 1, 1.0, 1.0, Weights({"w": torch.ones(3).half()})))
    for start, stop in [(0, 17), (0, 0), (-16, 0), (8, 24), (4, 12), (16, 48)]:
        with pytest.raises(AggregationError, match="is not a part of a 16-ary sum"):
            half.merge(Partial(start, stop))
    with pytest.raises(AggregationError, match="which starts at position 16"):
        MeanFold(TEMPLATE, start=16).merge(part(0, 16, 3))


def test_memory_is_one_sum_a_level() -> None:
    fold = MeanFold(TEMPLATE)
    for position in range(2 * BLOCK**2):
        fold.add(position, weights(position), 1.0)
        assert len(fold._pieces) <= 3
    kept = {id(tensor) for piece in fold._pieces if piece.sum for tensor in piece.sum.tensors.values()}
    assert len(kept) <= 3 * len(TEMPLATE)


def test_at_most_one_update_is_kept() -> None:
    gc.freeze()  # the other objects of the tests, of which there are many
    try:
        check_that_at_most_one_update_is_kept()
    finally:
        gc.unfreeze()


def check_that_at_most_one_update_is_kept() -> None:
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
    assert fold.result().equal(weighted_mean(updates, updates[0][1]))
