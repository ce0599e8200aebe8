"""A ClientApp finds the function for a message, runs it inside its mods, and checks what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fedpkg.apps import ClientApp, Context, Message
from fedpkg.apps.client_app import WrongReply
from fedpkg.apps.numpy_client import Client, NumPyClient
from fedpkg.records import ArrayRecord, ConfigRecord, MetricRecord, RecordDict


def asked(message_type: str = "train", **records: Any) -> Message:
    return Message(RecordDict(records), 1, message_type)


def context() -> Context:
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})


def answer(message: Message, _context: Context) -> Message:
    return Message(RecordDict({"metrics": MetricRecord({"answer": 42})}), reply_to=message)


def adding(name: str, trail: list[str]) -> Callable[..., Message]:
    def mod(message: Message, given: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        trail.append(f"{name} in")
        reply = call_next(message, given)
        trail.append(f"{name} out")
        return reply

    return mod


def test_functions_are_found_by_type_and_action() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, _context: Context) -> Message:
        return Message(RecordDict({"m": MetricRecord({"by": 1})}), reply_to=message)

    @app.train("apply_gradients")
    def apply_gradients(message: Message, _context: Context) -> Message:
        return Message(RecordDict({"m": MetricRecord({"by": 2})}), reply_to=message)

    assert app(asked("train"), context()).content["m"]["by"] == 1
    assert app(asked("train.default"), context()).content["m"]["by"] == 1
    assert app(asked("train.apply_gradients"), context()).content["m"]["by"] == 2
    assert app.message_types == ["train", "train.apply_gradients"]


def test_a_type_without_function_names_those_that_are_there() -> None:
    app = ClientApp()
    app.train()(answer)
    with pytest.raises(ValueError, match=r"No evaluate function registered with name 'default'.*\(it has train\)"):
        app(asked("evaluate"), context())


def test_an_action_is_registered_once() -> None:
    app = ClientApp()
    app.query()(answer)
    with pytest.raises(ValueError, match="action 'default' of query is already registered"):
        app.query()


def test_an_action_is_an_identifier() -> None:
    with pytest.raises(ValueError, match="'my-action': it must be an identifier, such as 'my_action'"):
        ClientApp().train("my-action")


def test_a_decorator_without_parentheses_says_so() -> None:
    with pytest.raises(TypeError, match=r"write @app\.train\(\)"):
        ClientApp().train(answer)  # type: ignore[arg-type]


def test_mods_of_the_app_are_outside_those_of_a_function() -> None:
    trail: list[str] = []
    app = ClientApp(mods=[adding("a", trail), adding("b", trail)])
    app.train(mods=[adding("c", trail), adding("d", trail)])(answer)
    app(asked(), context())
    assert trail == ["a in", "b in", "c in", "d in", "d out", "c out", "b out", "a out"]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "returned None"),
        ({"loss": 1}, "returned a dict with the keys 'loss'"),
        (RecordDict(), "returned a RecordDict"),
        (3.0, "returned a float"),
    ],
)
def test_a_wrong_return_value_says_what_came_and_what_was_expected(returned: object, said: str) -> None:
    app = ClientApp()
    app.train()(lambda message, context: returned)
    with pytest.raises(WrongReply, match=f"'train' {said}.*reply_to=message"):
        app(asked(), context())


def test_a_message_to_somebody_else_is_no_reply() -> None:
    app = ClientApp()
    app.train()(lambda message, context: Message(RecordDict(), 7, "train"))
    with pytest.raises(WrongReply, match="does not answer the one it got"):
        app(asked(), context())


def test_the_message_itself_is_no_reply() -> None:
    app = ClientApp()
    app.train()(lambda message, context: message)
    with pytest.raises(WrongReply, match="returned the message that it got"):
        app(asked(), context())


def test_a_lifespan_surrounds_a_message_also_after_an_error() -> None:
    trail = []
    app = ClientApp()

    @app.lifespan()
    def around(_context: Context) -> Iterator[None]:
        trail.append("before")
        yield
        trail.append("after")

    def fail(message: Message, _context: Context) -> Message:
        trail.append("function")
        raise KeyError("x")

    app.train()(fail)
    with pytest.raises(KeyError):
        app(asked(), context())
    assert trail == ["before", "function", "after"]


def test_a_lifespan_has_one_yield() -> None:
    app = ClientApp()

    @app.lifespan()
    def around(_context: Context) -> Iterator[None]:
        yield
        yield

    app.train()(answer)
    with pytest.raises(RuntimeError, match="more than one 'yield'"):
        app(asked(), context())


class Adding(NumPyClient):
    """Adds what its configuration says."""

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
        return [one + config["step"] for one in parameters], 5, {"loss": 0.5, "note": "text", "done": True}

    def evaluate(self, parameters: list[Any], config: dict[str, Any]) -> tuple[float, int, dict[str, Any]]:
        return float(sum(one.sum() for one in parameters)), 3, {"accuracy": 1.0}


def test_a_numpy_client_answers_training_and_evaluation() -> None:
    app = ClientApp(client_fn=lambda context: Adding().to_client())
    arrays = ArrayRecord({"w": np.ones(3), "b": np.zeros(1)})
    given = {"arrays": arrays, "config": ConfigRecord({"step": 2})}
    trained = app(asked("train", **given), context()).content
    assert list(trained["arrays"]) == ["w", "b"]
    np.testing.assert_array_equal(trained["arrays"]["w"].numpy(), [3, 3, 3])
    assert dict(trained["metrics"]) == {"num-examples": 5, "loss": 0.5}
    assert dict(trained["metrics.others"]) == {"note": "text", "done": True}
    measured = app(asked("evaluate", **given), context()).content
    assert list(measured) == ["metrics"]
    assert dict(measured["metrics"]) == {"num-examples": 3, "loss": 3.0, "accuracy": 1.0}


class Returning(NumPyClient):
    def __init__(self, returned: Any) -> None:
        self.returned = returned

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> Any:
        return self.returned


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "fit returned a NoneType; it must return"),
        (([], 1), "fit returned a tuple of 2"),
        (([], 1, {}), "fit returned 0 arrays; it must return a list of 1"),
        ((3, 1, {}), "fit returned a int; it must return a list of 1"),
        (([np.ones(1)], "many", {}), "'many' as the number of examples"),
    ],
)
def test_a_numpy_client_that_returns_something_else_is_told(returned: Any, said: str) -> None:
    app = ClientApp(client_fn=lambda context: Returning(returned))
    with pytest.raises(TypeError, match=said):
        app(asked("train", arrays=ArrayRecord({"w": np.ones(1)})), context())


def test_client_fn_excludes_decorators() -> None:
    app = ClientApp(client_fn=lambda context: Adding())
    with pytest.raises(ValueError, match="cannot be used in a ClientApp that was made with client_fn="):
        app.train()


def test_client_fn_must_return_a_client() -> None:
    app = ClientApp(client_fn=lambda context: 3)
    with pytest.raises(TypeError, match="client_fn returned a int"):
        app(asked(), context())


def test_the_oldest_form_is_refused_when_it_is_defined() -> None:
    with pytest.raises(TypeError, match="derive it from NumPyClient"):

        class Oldest(Client):
            pass
