"""Parts of FedAvg as functions, and a strategy that an app writes with them, as public apps do."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from fedpkg.apps import Message
from fedpkg.apps.errors import AggregationError, InconsistentMessageReplies, TooFewNodes
from fedpkg.apps.strategy import FedAvg, Result
from fedpkg.apps.strategy.older import FitRes, aggregate, aggregate_inplace, weighted_loss_avg
from fedpkg.apps.strategy.parts import (
    aggregate_arrayrecords,
    config_to_str,
    log_strategy_start_info,
    sample_nodes,
    validate_message_reply_consistency,
)
from fedpkg.apps.typing import Code, Status, ndarrays_to_parameters
from fedpkg.records import ArrayRecord, ConfigRecord, RecordDict
from tests.unit.apps.grids import MemoryGrid, content, floats, plain
from tests.unit.apps.test_strategy_rounds import trained


class OwnLoop(FedAvg):
    """Replaces `start` and all that it calls, but for the checks of replies."""

    def start(self, grid: Any, initial_arrays: ArrayRecord, num_rounds: int = 3, **more: Any) -> Result:
        result, arrays = Result(), initial_arrays
        log_strategy_start_info(num_rounds, arrays, ConfigRecord({"lr": 0.1}), None)
        self.summary()
        for number in range(1, num_rounds + 1):
            replies = grid.send_and_receive(self.configure_train(number, arrays, ConfigRecord(), grid))
            found, metrics = self.aggregate_train(number, replies)
            if found is not None:
                result.arrays = arrays = found
            if metrics is not None:
                result.train_metrics_clientapp[number] = metrics
        return result

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any) -> list[Message]:
        nodes, _ = sample_nodes(grid, self.min_available_nodes, 4)
        return list(self._construct_messages(RecordDict({"arrays": arrays, "config": config}), nodes, "train"))

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        usable, _ = self._check_and_log_replies(replies, is_train=True)
        contents = [one.content for one in usable]
        validate_message_reply_consistency(contents, self.weighted_by_key, check_arrayrecord=True)
        arrays = aggregate_arrayrecords(contents, self.weighted_by_key)
        return arrays, self.train_metrics_aggr_fn(contents, self.weighted_by_key)


def test_a_strategy_of_these_parts_gives_the_bits_of_fedavg(caplog: pytest.LogCaptureFixture) -> None:
    results = []
    with caplog.at_level("INFO", logger="flwr"):
        for strategy in (OwnLoop(), FedAvg(fraction_evaluate=0)):
            result = strategy.start(MemoryGrid(4, trained), ArrayRecord({"w": floats(0.1, 0.7)}), num_rounds=3)
            results.append((plain(result.arrays)["w"].tobytes(), dict(result.train_metrics_clientapp)))
    assert results[0] == results[1]
    assert "3 rounds, 1 arrays, 0.00 MB" in caplog.text and "train_config: lr=0.1" in caplog.text
    assert "evaluate_config: empty" in caplog.text


def test_nodes_are_drawn_from_all_of_them() -> None:
    grid = MemoryGrid(50, trained)
    random.seed(1)
    drawn, every = sample_nodes(grid, 2, 10)
    assert len(set(drawn)) == 10 and drawn == sorted(drawn) and set(drawn) < set(every)
    assert every == grid.nodes and sample_nodes(grid, 50, 0)[0] == []
    assert sample_nodes(grid, 2, 10)[0] != drawn
    with pytest.raises(TooFewNodes, match=r"there are 50 nodes, and 51 are needed: run with --nodes 51"):
        sample_nodes(grid, 51, 2)


def test_a_mean_leaves_out_what_it_cannot_use(caplog: pytest.LogCaptureFixture) -> None:
    fine = [content({"w": floats(1, 2), "n": np.array(3)}, n=1), content({"w": floats(4, 5), "n": np.array(7)}, n=2)]
    nan = content({"w": floats(float("nan"), 0), "n": np.array(1)}, n=9)
    assert plain(aggregate_arrayrecords([fine[0], nan, fine[1]], "num-examples"))["w"].tolist() == [3, 4]
    assert "records[1] is left out: " in caplog.text
    mean = plain(aggregate_arrayrecords(fine, "num-examples"))
    assert (mean["n"].dtype, int(mean["n"]), mean["w"].dtype) == (np.int64, 7, np.float32)
    with pytest.raises(AggregationError, match=r"none of 1 records can be averaged; records\[0\]: .*no 'loss'"):
        aggregate_arrayrecords(fine[:1], "loss")
    with pytest.raises(AggregationError, match="none of 0 records"):
        aggregate_arrayrecords([], "loss")


def test_replies_that_differ_are_named() -> None:
    def check(*replies: RecordDict, arrays: bool = True) -> None:
        validate_message_reply_consistency(replies, "num-examples", check_arrayrecord=arrays)

    fine = content({"w": floats(1)}, n=1, loss=0.5)
    check(fine, fine)
    check(content(None, n=1, loss=0.1), fine, arrays=False)
    two = RecordDict({**fine, "more": ArrayRecord()})
    for wrong, said in (
        (content({"v": floats(1)}, n=1, loss=0.5), r"array records of replies\[0\] and replies\[1\] differ .*'v', 'w'"),
        (content({"w": floats(1)}, n=1), r"metric records of .* differ in the keys \['loss'\]"),
        (two, r"replies\[1\] has 2 array records; it must have one"),
        (content({"w": floats(1)}, n=0, loss=1.0), r"replies\[1\]: 'num-examples'.* is 0"),
    ):
        with pytest.raises(InconsistentMessageReplies, match=said):
            check(fine, wrong)


def test_a_configuration_as_text() -> None:
    text = config_to_str(ConfigRecord({"lr": 0.1, "name": "a", "blob": b"x" * 99}))
    assert text.startswith("lr=0.1, name='a', blob=b'xxx") and len(text) < 80


def test_means_of_the_older_form() -> None:
    results = [([floats(1, 2), np.array(3)], 1), ([floats(4, 5), np.array(7)], 2)]
    whole = aggregate(results)
    assert [one.tolist() for one in whole] == [[3, 4], 7]
    came = [(None, FitRes(Status(Code.OK, ""), ndarrays_to_parameters(arrays), n)) for arrays, n in results]
    assert [one.tolist() for one in aggregate_inplace(came)] == [[3, 4], 7]
    assert weighted_loss_avg([(1, 0.5), (3, 1.5)]) == 1.25
