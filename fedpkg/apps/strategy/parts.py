"""Parts of FedAvg as functions, for apps that write their own strategy, or the whole loop of their rounds."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedpkg.apps.errors import AggregationError, InconsistentMessageReplies, TooFewNodes
from fedpkg.apps.log import logger
from fedpkg.apps.message import Message, Metadata
from fedpkg.apps.strategy.answers import opened, to_record
from fedpkg.apps.strategy.metrics import metrics_of, weight_in
from fedpkg.records.array_record import ArrayRecord
from fedpkg.records.record_dict import RecordDict

_LONGEST = 40  # characters of a value in `config_to_str`


def sampled(nodes: Sequence[int], size: int) -> list[int]:
    """That number of the nodes, drawn by the generator of `random`, in their order."""
    if size >= len(nodes):
        return list(nodes)
    chosen = set(random.sample(range(len(nodes)), size))
    return [node for place, node in enumerate(nodes) if place in chosen]


def sample_nodes(grid: Any, min_available_nodes: int, sample_size: int) -> tuple[list[int], list[int]]:
    """Nodes of a grid, drawn by the generator of `random`, and all of its nodes; both in the order of the grid.

    Raises:
        TooFewNodes: There are fewer nodes than either number.
    """
    nodes = list(grid.get_node_ids())
    needed = max(min_available_nodes, sample_size)
    if len(nodes) < needed:
        raise TooFewNodes(f"there are {len(nodes)} nodes, and {needed} are needed: run with --nodes {needed}")
    return sampled(nodes, sample_size), nodes


def aggregate_arrayrecords(records: Iterable[RecordDict], weighting_metric_name: str) -> ArrayRecord:
    """The mean of the arrays in contents of replies, weighted by one of their metrics, by the rules of `FedAvg`.

    A content that cannot be used is left out, and the log says why.

    Raises:
        AggregationError: None can be used, or their mean is not finite.
    """
    from fedpkg.errors import AggregationError as NotAggregated
    from fedpkg.strategies.aggregators.mean import WeightedMean

    messages = [
        Message(content, metadata=Metadata(0, "", place, 0, "", "", 0.0, 0.0, "train"))
        for place, content in enumerate(records)
    ]
    answers, left_out, template = opened(
        messages, arrays_key="arrays", weight_key=weighting_metric_name, model=None, needs_model=False, use="averaged"
    )
    for one in left_out:
        logger.warning("records[%d] is left out: %s", one.message.metadata.src_node_id, one.reason)
    if template is None or not answers:
        reasons = f"; records[0]: {left_out[0].reason}" if left_out else ""
        raise AggregationError(f"none of {len(messages)} records can be averaged{reasons}")
    fold = WeightedMean().fold(template)
    try:
        for answer in answers:
            assert answer.reply is not None
            fold.add(answer.reply)
        return to_record(fold.result())
    except NotAggregated as error:
        raise AggregationError(error.message) from error


def validate_message_reply_consistency(
    replies: Iterable[RecordDict], weighted_by_key: str, check_arrayrecord: bool
) -> None:
    """Check that contents of replies have the same records and keys. Strategies do not need it: they leave out replies.

    Raises:
        InconsistentMessageReplies: Not all have one metric record with these keys and a weight; or, if
            ``check_arrayrecord``, one array record with these keys.
    """
    kinds = ["array_records", "metric_records"] if check_arrayrecord else ["metric_records"]
    first: dict[str, set[str]] = {}
    for place, content in enumerate(replies):
        for kind in kinds:
            found = list(getattr(content, kind).values())
            what = kind.removesuffix("s").replace("_", " ")
            if len(found) != 1:
                raise InconsistentMessageReplies(f"replies[{place}] has {len(found)} {what}s; it must have one")
            keys = set(found[0])
            if differing := keys ^ first.setdefault(kind, keys):
                raise InconsistentMessageReplies(
                    f"the {what}s of replies[0] and replies[{place}] differ in the keys {sorted(differing)}"
                )
        if isinstance(weight := weight_in(metrics_of(content), weighted_by_key), str):
            raise InconsistentMessageReplies(f"replies[{place}]: {weight}")


def config_to_str(config: Mapping[str, Any]) -> str:
    """A configuration as text: ``lr=0.1, name='a'``."""
    values = {name: repr(value) for name, value in config.items()}
    return ", ".join(
        f"{name}={text if len(text) <= _LONGEST else text[: _LONGEST - 1] + '…'}" for name, text in values.items()
    )


def log_strategy_start_info(
    num_rounds: int,
    arrays: ArrayRecord,
    train_config: Mapping[str, Any] | None,
    evaluate_config: Mapping[str, Any] | None,
) -> None:
    """Log what a strategy starts with."""
    logger.info("%d rounds, %d arrays, %.2f MB", num_rounds, len(arrays), arrays.count_bytes() / 1e6)
    for name, config in (("train_config", train_config), ("evaluate_config", evaluate_config)):
        logger.info("%s: %s", name, config_to_str(config or {}) or "empty")
