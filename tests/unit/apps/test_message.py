"""Messages: how they are made, what they refuse, and what a reply takes from its message."""

from __future__ import annotations

import copy
import logging
import pickle
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fedpkg.apps import (
    ConfigRecord,
    Context,
    Error,
    ErrorCode,
    Message,
    MessageInitializationError,
    Metadata,
    MetricRecord,
    RecordDict,
    identity,
)
from fedpkg.apps.identity import Identity

CONTENT = RecordDict({"config": ConfigRecord({"lr": 0.1})})


@pytest.fixture
def clock() -> Iterator[list[float]]:
    """The time of node 7 in run 3, as a list of one number."""
    now = [100.0]
    former = identity.use(Identity(run_id=3, node_id=7, prefix="r1-", now=lambda: now[0]))
    yield now
    identity.use(former)


def test_instruction_can_be_made_without_a_run() -> None:
    before = time.time()
    message = Message(CONTENT, 5, "train")
    about = message.metadata
    assert message.content is CONTENT and message.has_content() and not message.has_error()
    assert (about.run_id, about.src_node_id, about.dst_node_id, about.message_type) == (0, 0, 5, "train")
    assert (about.reply_to_message_id, about.group_id, about.ttl, about.delivered_at) == ("", "", 43200.0, "")
    assert before <= about.created_at <= time.time()
    other = Message(CONTENT, dst_node_id=5, message_type="train", ttl=10, group_id="4")
    assert (other.metadata.ttl, other.metadata.group_id) == (10.0, "4")
    assert other.metadata.message_id != about.message_id


def test_a_program_says_who_builds_messages(clock: list[float]) -> None:
    found = [Message(CONTENT, 1, "query").metadata for _ in range(2)]
    assert [(one.run_id, one.src_node_id, one.message_id, one.created_at) for one in found] == [
        (3, 7, "r1-1", 100.0),
        (3, 7, "r1-2", 100.0),
    ]


def test_reply_takes_what_it_can_from_its_message(clock: list[float]) -> None:
    message = Message(CONTENT, 5, "train.apply_gradients", ttl=60, group_id="round 4")
    clock[0] = 110.0
    content = RecordDict()
    reply = Message(content, reply_to=message)
    about = reply.metadata
    assert reply.content is content
    assert (about.src_node_id, about.dst_node_id) == (5, 7)
    assert (about.reply_to_message_id, about.run_id) == (message.metadata.message_id, 3)
    assert (about.group_id, about.message_type) == ("round 4", "train.apply_gradients")
    assert (about.created_at, about.ttl) == (110.0, 50.0)
    assert about.message_id != message.metadata.message_id


def test_ttl_of_a_reply_ends_with_that_of_its_message(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    message = Message(CONTENT, 5, "train", ttl=60)
    with caplog.at_level(logging.WARNING, "fedpkg.apps"):
        assert Message(CONTENT, reply_to=message, ttl=20).metadata.ttl == 20
        assert Message(CONTENT, reply_to=message, ttl=60.05).metadata.ttl == 60.05  # time passes while it is built
        assert not caplog.records
        assert Message(CONTENT, reply_to=message, ttl=90).metadata.ttl == 60
    assert "ttl of a reply was reduced from 90.00 s to the 60.00 s" in caplog.text


def test_error_takes_the_place_of_the_content() -> None:
    message = Message(CONTENT, 5, "train")
    failed = Message(Error(ErrorCode.NODE_UNAVAILABLE, "it is gone"), reply_to=message)
    assert failed.has_error() and not failed.has_content()
    assert failed.error == Error(5, "it is gone")
    with pytest.raises(ValueError, match=r"no content but an error .*it is gone.*message.has_content\(\)"):
        _ = failed.content
    with pytest.raises(ValueError, match="cannot get content"):
        failed.content = CONTENT
    with pytest.raises(ValueError, match=r"no error but content; ask message.has_error\(\)"):
        _ = message.error
    with pytest.raises(ValueError, match="cannot get an error"):
        message.error = Error(0)
    failed.error = Error(1)
    message.content = other = RecordDict()
    assert failed.error.code == 1 and message.content is other
    with pytest.raises(TypeError, match="got dict"):
        message.content = {}  # type: ignore[assignment]
    with pytest.raises(TypeError, match="got str; write Error"):
        failed.error = "gone"  # type: ignore[assignment]


def test_message_is_made_from_metadata_and_one_of_content_and_error() -> None:
    about = Message(CONTENT, 5, "train").metadata
    assert Message(metadata=about, content=CONTENT).metadata is about
    assert Message(metadata=about, error=Error(3)).error.code == 3


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "either content or an error"),
        ({"content": CONTENT}, "needs a node and a type, or reply_to"),
        ({"content": CONTENT, "dst_node_id": 1}, "needs a node and a type"),
        ({"content": CONTENT, "error": Error(0), "dst_node_id": 1, "message_type": "train"}, "either content or an"),
        ({"content": CONTENT, "reply_to": Message(CONTENT, 1, "train"), "dst_node_id": 1}, "leave out dst_node_id"),
        (
            {"content": CONTENT, "reply_to": Message(CONTENT, 1, "train"), "message_type": "train", "group_id": "1"},
            "leave out message_type and group_id",
        ),
        ({"content": CONTENT, "reply_to": CONTENT}, "a reply takes these from its message"),
        ({"content": CONTENT, "metadata": Message(CONTENT, 1, "train").metadata, "ttl": 1}, "metadata has all"),
        ({"content": {"config": {}}, "dst_node_id": 1, "message_type": "train"}, r"got dict; write RecordDict\("),
        ({"content": MetricRecord(), "dst_node_id": 1, "message_type": "train"}, "got MetricRecord; write RecordDict"),
        ({"error": "gone", "reply_to": Message(CONTENT, 1, "train")}, "got str"),
    ],
)
def test_arguments_that_do_not_belong_together_are_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(MessageInitializationError, match=reason) as caught:
        Message(**arguments)
    assert isinstance(caught.value, TypeError)
    assert "Message(content, dst_node_id, message_type)" in str(caught.value) or "got" in str(caught.value)


@pytest.mark.parametrize("name", ["train", "evaluate", "query", "system", "train.apply_gradients", "query.größe"])
def test_types_of_messages(name: str) -> None:
    assert Message(CONTENT, 1, name).metadata.message_type == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("foo", "invalid message type 'foo': expected '<category>' or '<category>.<action>'"),
        ("train.my-action", "an action is a Python identifier, write 'train.my_action'"),
        ("train.", "expected"),
        ("train.a.b", "expected"),
        ("Train", "expected"),
        ("", "expected"),
        (3, "invalid message type 3"),
    ],
)
def test_other_types_are_refused_also_when_they_are_set_later(name: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Message(CONTENT, 1, name)
    about = Message(CONTENT, 1, "train").metadata
    with pytest.raises(ValueError, match=reason):
        about.message_type = name
    assert about.message_type == "train"


def test_some_metadata_can_be_changed() -> None:
    about = Message(CONTENT, 1, "train").metadata
    about.dst_node_id, about.group_id, about.created_at, about.ttl, about.delivered_at = np.int64(9), "a", 3, 4.5, "now"
    about.message_type = "evaluate"
    assert (about.dst_node_id, about.group_id, about.created_at, about.ttl) == (9, "a", 3.0, 4.5)
    assert type(about.dst_node_id) is int
    for name in ("run_id", "message_id", "src_node_id", "reply_to_message_id"):
        with pytest.raises(AttributeError, match=f"the {name} of a message cannot be changed: build another Message"):
            setattr(about, name, 1)
    for name, value in {"dst_node_id": "1", "group_id": 4, "ttl": "12", "created_at": True}.items():
        with pytest.raises(TypeError, match=f"{name} must be"):
            setattr(about, name, value)


def test_comparisons_do_not_raise() -> None:
    about = Metadata(1, "a", 2, 3, "", "", 0.0, 1.0, "train")
    assert about == copy.deepcopy(about) and about == pickle.loads(pickle.dumps(about))
    assert about != Metadata(1, "a", 2, 4, "", "", 0.0, 1.0, "train")
    assert about != "metadata" and Error(1) != 1 and Error(1) == Error(ErrorCode.LOAD_CLIENT_APP_EXCEPTION)
    assert len({Error(1, "x"), Error(1, "x"), Error(2)}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(about)
    message = Message(CONTENT, 1, "train")
    assert message == message and message != copy.copy(message) and len({message, message}) == 1
    assert pickle.loads(pickle.dumps(message)).content == CONTENT
    for code in (True, "1", None):
        with pytest.raises(TypeError, match="code must be int"):
            Error(code)  # type: ignore[arg-type]


def test_former_ways_to_reply_work() -> None:
    message = Message(CONTENT, 1, "train")
    with pytest.warns(DeprecationWarning, match="reply_to=message"):
        reply = message.create_reply(CONTENT)
    with pytest.warns(DeprecationWarning, match="reply_to=message"):
        failed = message.create_error_reply(Error(0, "x"), ttl=1)
    assert reply.metadata.reply_to_message_id == failed.metadata.reply_to_message_id == message.metadata.message_id
    assert failed.error.reason == "x" and failed.metadata.ttl == 1


def test_run_config_of_a_context_cannot_be_changed_and_says_so_at_once() -> None:
    context = Context(1, 2, {"partition-id": 0}, RecordDict(), {"lr": 0.1})
    assert context.run_config == {"lr": 0.1} and isinstance(context.run_config, dict)
    for change in (
        lambda: context.run_config.update(lr=1),
        lambda: context.run_config.__setitem__("lr", 1),
        lambda: context.run_config.pop("lr"),
        lambda: setattr(context, "run_config", {}),
    ):
        with pytest.raises(ValueError, match=r"run_config of a Context cannot be changed.*dict\(context.run_config\)"):
            change()
    for copied in (
        dict(context.run_config),
        context.run_config.copy(),
        copy.copy(context.run_config),
        copy.deepcopy(context).run_config.copy(),
        pickle.loads(pickle.dumps(context.run_config)),
    ):
        copied["lr"] = 2
    assert context.run_config == {"lr": 0.1}
    assert copy.deepcopy(context).node_config == pickle.loads(pickle.dumps(context)).node_config == {"partition-id": 0}


def test_state_of_a_context_is_a_record_dict() -> None:
    context = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})
    context.state["n"] = MetricRecord({"n": 1})
    context.state = RecordDict()
    with pytest.raises(TypeError, match=r"state of a Context is a RecordDict, got dict; put values into it as records"):
        context.state = {"n": 1}  # type: ignore[assignment]
    with pytest.raises(TypeError, match="got dict"):
        Context(1, 2, {}, {}, {})  # type: ignore[arg-type]
