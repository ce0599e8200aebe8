"""Errors: what they say, what they carry, and that they survive a pickle."""

from __future__ import annotations

import pickle

from fedpkg import errors
from fedpkg.errors import FedpkgError, ModelMismatch, nearest


def leaves(cls: type[FedpkgError]) -> list[type[FedpkgError]]:
    return [cls, *(leaf for child in cls.__subclasses__() for leaf in leaves(child))]


def test_error_says_what_and_what_to_do() -> None:
    error = ModelMismatch("update.npz: extra tensor 'evil'", hint="look at it", client_id="client-3")
    assert str(error).splitlines() == ["update.npz: extra tensor 'evil'", "    try      look at it"]
    assert error.fields == {"client_id": "client-3"}


def test_errors_survive_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(ModelMismatch("x", hint="y", a=1)))
    assert (type(error), error.message, error.hint, error.fields) == (ModelMismatch, "x", "y", {"a": 1})


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    for cls in leaves(FedpkgError):
        assert cls.__name__ in errors.__doc__


def test_nearest_names_one_word_or_none() -> None:
    assert nearest("rouns", ["rounds", "clients"]) == "; did you mean 'rounds'?"
    assert nearest("xyzzy", ["rounds", "clients"]) == ""
