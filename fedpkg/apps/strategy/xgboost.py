"""Strategies for XGBoost: an array has the bytes of a booster in JSON, as ``booster.save_raw("json")`` gives them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fedpkg.apps.log import logger
from fedpkg.apps.message import Message, MessageType
from fedpkg.apps.strategy.answers import LeftOut, array_record_of, weighted
from fedpkg.apps.strategy.fedavg import FedAvg
from fedpkg.client.arrays import Plain
from fedpkg.records.array import Array, frozen
from fedpkg.records.array_record import ArrayRecord
from fedpkg.records.value_records import ConfigRecord, MetricRecord

Booster = dict[str, Any]  # in XGBoost's form of JSON
_SAME = ("num_feature", "num_class", "num_target")  # of boosters whose trees can be joined


class _OfTrees(FedAvg):
    """What both strategies share: the replies' boosters."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        answers, left_out = weighted(replies, self.weighted_by_key)
        boosters = self._sent()
        contents = []
        for answer in answers:
            try:
                booster = _booster_of(answer.message, self.arrayrecord_key)
                self._check(boosters, booster)
            except ValueError as error:
                left_out.append(LeftOut(answer.message, str(error)))
                continue
            boosters.append(booster)
            contents.append(answer.message.content)
        self._log_left_out(server_round, "training", left_out)
        if not contents:
            return None, None
        data = np.frombuffer(json.dumps(self._joined(boosters)).encode(), np.uint8)
        arrays = ArrayRecord({"0": Array.from_plain(Plain("uint8", frozen(data)))})
        return arrays, self.train_metrics_aggr_fn(contents, self.weighted_by_key)

    def _sent(self) -> list[Booster]:
        """The booster that the replies are joined to, if there is one."""
        return []

    def _check(self, boosters: Sequence[Booster], new: Booster) -> None:
        """Raises ValueError: a booster cannot be joined to those before it."""

    def _joined(self, boosters: Sequence[Booster]) -> Booster:
        """One booster of the one that was sent, if any, and those of the replies, of which there is at least one."""
        raise NotImplementedError


class FedXgbBagging(_OfTrees):
    """Nodes grow trees on the booster that they were sent, and reply with a booster of the new trees alone.

    All new trees are appended to those that were sent, in the order of the messages. A reply whose objective or number
    of features, classes or targets differs is left out.
    """

    def _sent(self) -> list[Booster]:
        arrays = self._round_arrays or ArrayRecord()
        data = _bytes_of(arrays) if len(arrays) == 1 else b""
        return [_booster("the booster that was sent", data)] if data else []

    def _check(self, boosters: Sequence[Booster], new: Booster) -> None:
        if boosters:
            check_alike(boosters[0], new)

    def _joined(self, boosters: Sequence[Booster]) -> Booster:
        return boosters[0] if len(boosters) == 1 else joined(boosters)


class FedXgbCyclic(_OfTrees):
    """In each round one node, the next in turn, goes on with the booster of the one before, and replies with all of it.

    ``fraction_train`` and ``fraction_evaluate`` are 0 or 1: whether the node trains, and whether it evaluates.
    """

    def __init__(
        self,
        fraction_train: float = 1.0,
        fraction_evaluate: float = 1.0,
        min_train_nodes: int = 1,
        min_evaluate_nodes: int = 1,
        **common: Any,
    ) -> None:
        super().__init__(fraction_train, fraction_evaluate, min_train_nodes, min_evaluate_nodes, **common)
        for name, value in (("fraction_train", fraction_train), ("fraction_evaluate", fraction_evaluate)):
            if value not in (0, 1):
                raise ValueError(f"{name} is {value}; with one node in each round it must be 0 or 1")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        self._round_arrays = arrays
        return self._to_one(server_round, arrays, config, grid, self.fraction_train, MessageType.TRAIN)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        return self._to_one(server_round, arrays, config, grid, self.fraction_evaluate, MessageType.EVALUATE)

    def _to_one(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any, share: float, message_type: str
    ) -> Sequence[Message]:
        if share == 0:
            return []
        nodes = self._sampled(grid, 1.0, 1, message_type)
        node = nodes[(server_round - 1) % len(nodes)]
        return self._construct_messages(self._content(server_round, arrays, config), [node], message_type)

    def _joined(self, boosters: Sequence[Booster]) -> Booster:
        if len(boosters) > 1:
            logger.warning("several nodes replied; the booster of the last one is kept")
        return boosters[-1]


def check_alike(booster: Booster, new: Booster) -> None:
    """Check that the trees of two boosters can be joined.

    Raises:
        ValueError: They have different objectives, or numbers of features, classes or targets.
    """
    for what, mine, its in [
        ("objective", _objective(booster), _objective(new)),
        *((name, *(_number(one["learner"]["learner_model_param"], name) for one in (booster, new))) for name in _SAME),
    ]:
        if mine != its:
            raise ValueError(f"its booster has {what} {its}, and that of the others has {mine}")


def joined(boosters: Sequence[Booster]) -> Booster:
    """The first booster with the trees of all others after its own; see `check_alike`."""
    first, *others = boosters
    learner = first["learner"]
    model = dict(learner["gradient_booster"]["model"])
    trees, classes, ends = list(model["trees"]), list(model["tree_info"]), list(model.get("iteration_indptr", ()))
    for other in others:
        new, before = other["learner"]["gradient_booster"]["model"], len(trees)
        trees += [{**tree, "id": before + place} for place, tree in enumerate(new["trees"])]
        classes += new["tree_info"]
        ends += [before + end for end in new.get("iteration_indptr", ())[1:]]
    model |= {"trees": trees, "tree_info": classes}
    model["gbtree_model_param"] = {**model["gbtree_model_param"], "num_trees": str(len(trees))}
    if "iteration_indptr" in model:
        model["iteration_indptr"] = ends
    gradient_booster = {**learner["gradient_booster"], "model": model}
    return {**first, "learner": {**learner, "gradient_booster": gradient_booster}}


def _booster_of(message: Message, key: str) -> Booster:
    arrays = array_record_of(message, key)
    if isinstance(arrays, str):
        raise ValueError(arrays)
    if len(arrays) != 1:
        raise ValueError(f"its record has {len(arrays)} arrays, and a booster is one array of bytes")
    return _booster("its booster", _bytes_of(arrays))


def _bytes_of(arrays: ArrayRecord) -> bytes:
    [array] = arrays.values()
    if array.dtype != "uint8":
        raise ValueError(f"its array has the dtype {array.dtype}; a booster is bytes: np.frombuffer(raw, np.uint8)")
    return array.numpy().tobytes()


def _booster(what: str, data: bytes) -> Booster:
    """A booster of trees, checked.

    Raises:
        ValueError: It is not one.
    """
    try:
        booster = json.loads(data)
        gradient_booster = booster["learner"]["gradient_booster"]
        model = gradient_booster["model"]
        trees, ends = model["trees"], model.get("iteration_indptr", [0, len(model["trees"])])
        is_whole = (
            all(isinstance(tree, dict) for tree in trees)
            and len(model["tree_info"]) == len(trees) == int(model["gbtree_model_param"]["num_trees"])
            and list(ends) == sorted(ends)
            and (ends[0], ends[-1]) == (0, len(trees))
        )
        _objective(booster)
        for name in _SAME:
            _number(booster["learner"]["learner_model_param"], name)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f'{what} is not one in JSON, as booster.save_raw("json") gives it ({reason:.200})') from error
    if gradient_booster.get("name") != "gbtree":
        raise ValueError(
            f"{what} is of the kind {gradient_booster.get('name')!r:.40}; only trees can be joined (gbtree)"
        )
    if not is_whole:
        raise ValueError(f"{what} is damaged: its lists of trees have different lengths")
    found: Booster = booster
    return found


def _objective(booster: Booster) -> Any:
    return booster["learner"]["objective"]["name"]


def _number(parameters: dict[str, Any], name: str) -> int:
    return int(parameters.get(name, 0))
