"""A function is found, its arguments are checked, and errors say which function and argument is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fedpkg.analytics import calling
from fedpkg.analytics.backend import Organization
from fedpkg.analytics.calling import Input
from fedpkg.analytics.errors import (
    AlgorithmModuleNotFoundError,
    MethodNotFoundError,
    UserInputError,
    WrongArguments,
)
from fedpkg.analytics.in_process import InProcess, MockNode
from fedpkg.analytics.v4.decorators import algorithm_client, data, metadata

MODULE = """
from collections import OrderedDict as _Hidden
from os.path import join
from fedpkg.analytics.v4.decorators import algorithm_client, data

limit = 3

@algorithm_client
def central(client, column): ...

def add(a, b=2):
    return a + b

def broken():
    raise ValueError("no data today")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "an-algorithm-of-a-test"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


@data(2)
@metadata
@algorithm_client
def decorated(client: Any, meta: Any, first: Any, second: Any, column: str, *, bins: int = 10) -> None: ...


def plain(a: int, b: int, /, *more: int, **named: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "asked", "message"),
    [
        (
            decorated,
            Input("f", (), {}),
            r"f\(\) needs 'column', which the input does not give. It takes: column,",
        ),
        (decorated, Input("f", (), {"colum": "a"}), r"f\(\) has no argument 'colum'; did you mean 'column'\?"),
        (decorated, Input("f", ("a", "b"), {}), r"takes 1 by position, but the input has 2 arguments in args"),
        (decorated, Input("f", ("a",), {"column": "a"}), r"gets the argument 'column' twice: in args and in kwargs"),
        (decorated, Input("f", ("a",), {"first": []}), r"gets the argument 'first' from its decorators"),
        (plain, Input("f", (1,), {}), r"needs 'b'.* It takes: a, b, \*more, \*\*named"),
        (plain, Input("f", (), {"a": 1, "b": 2}), r"needs 'a', 'b'"),
    ],
)
def test_wrong_arguments_are_named_with_their_function(function: Any, asked: Input, message: str) -> None:
    with pytest.raises(WrongArguments, match=message) as error:
        calling.check(function, asked)
    assert isinstance(error.value, TypeError)  # which is what a call would raise


@pytest.mark.parametrize(
    ("function", "asked"),
    [
        (decorated, Input("f", ("a",), {"bins": 3})),
        (decorated, Input("f", (), {"column": "a"})),
        (plain, Input("f", (1, 2, 3), {"c": 4})),
        (max, Input("max", (1, 2), {})),  # of a compiled module
    ],
)
def test_right_arguments_are_let_through(function: Any, asked: Input) -> None:
    calling.check(function, asked)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "the input is a list; it must be a dict with 'method'"),
        ({"methd": "a"}, "has no 'method', the name of the function; it has: 'methd'"),
        ({"method": "a", "args": "xyz"}, "'args' of the input for a is a str; it must be a list"),
        ({"method": "a", "kwargs": [1]}, "'kwargs' of the input for a is a list; it must be a dict"),
    ],
)
def test_an_input_of_another_form_is_refused(value: Any, message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        calling.input_of(value)


def test_absent_arguments_are_none() -> None:
    assert calling.input_of({"method": "a", "args": None, "kwargs": None}) == Input("a", [], {})


def test_a_module_may_have_hyphens_and_its_function_is_found(module: str) -> None:
    assert calling.find(calling.load(module), "add")(1) == 3


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("ad", "has no function 'ad'; did you mean 'add'? It has: add, broken, central."),
        ("limit", "has a int, and no function, 'limit'. It has: add"),
        ("other", "has no function 'other'. It has: add, broken, central."),
    ],
)
def test_a_function_that_is_not_there_is_named_with_those_that_are(module: str, method: str, message: str) -> None:
    with pytest.raises(MethodNotFoundError) as error:
        calling.find(calling.load(module), method)
    assert message in str(error.value)


def test_a_module_that_is_not_there_and_one_that_it_imports_are_told_apart(tmp_path: Path, module: str) -> None:
    with pytest.raises(AlgorithmModuleNotFoundError, match="there is no module 'absent_algorithm' where Python looks"):
        calling.load("absent_algorithm")
    (tmp_path / "importing.py").write_text("import absent_library\n")
    with pytest.raises(AlgorithmModuleNotFoundError, match="'importing' imports 'absent_library', which is not"):
        calling.load("importing")


def test_what_a_function_raises_is_shown_from_its_own_code_on(module: str) -> None:
    backend = InProcess(module, [MockNode(Organization(1, "a"))])
    task = backend.create(b'{"method": "broken"}', [1])
    backend.run()
    log = backend.runs(task)[0].log
    assert log.startswith("Traceback (most recent call last):\n  File ") and log.endswith("ValueError: no data today")
    assert log.count("File ") == 1 and "an-algorithm-of-a-test.py" in log
