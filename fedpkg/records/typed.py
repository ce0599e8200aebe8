"""A dictionary that checks each value when it is put in; the base of all records."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterator, MutableMapping
from itertools import islice
from typing import Any, TypeVar

V = TypeVar("V")
C = TypeVar("C", bound="Checked[Any]")

_SHORT = reprlib.Repr()
_SHORT.maxlist, _SHORT.maxstring, _SHORT.maxother = 20, 100, 1000


class Checked(MutableMapping[str, V]):
    """A dictionary with text as keys, which refuses what its kind cannot contain.

    It equals another one of its kind, or any dictionary, with equal contents. It has no hash, as it can change.
    """

    __hash__ = None  # type: ignore[assignment]
    _kind: type[Any]

    def __init__(self) -> None:
        self._items: dict[str, V] = {}

    def _checked(self, key: str, value: Any) -> V:
        raise NotImplementedError

    def __setitem__(self, key: str, value: Any) -> None:
        self._items[self._key(key)] = self._checked(key, value)

    def _key(self, key: object) -> str:
        if not isinstance(key, str):
            raise TypeError(
                f"{self._name}: a key must be str, got {type(key).__name__} ({key!r:.60}); write {str(key)!r:.60}"
            )
        return key

    def __getitem__(self, key: str) -> V:
        try:
            return self._items[key]
        except KeyError:
            raise KeyError(f"{self._name} has no {key!r}; it has {named(self._items)}") from None

    def __delitem__(self, key: str) -> None:
        self[key]
        del self._items[key]

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Checked):
            return self._kind is other._kind and self._items == other._items
        return self._items == other if isinstance(other, dict) else NotImplemented

    def __copy__(self: C) -> C:
        another = type(self).__new__(type(self))
        another.__dict__.update(self.__dict__)
        another._items = dict(self._items)
        return another

    def copy(self: C) -> C:
        """Another one with the same values; these are not copied, as by `dict.copy`."""
        return self.__copy__()

    def __repr__(self) -> str:
        return f"{self._name}({{{', '.join(f'{key!r}: {_SHORT.repr(one)}' for key, one in self._items.items())}}})"

    @property
    def _name(self) -> str:
        return type(self).__name__


def named(keys: Collection[str]) -> str:
    """The first keys, for an error."""
    return ", ".join([*map(repr, islice(keys, 20)), *(["…"] if len(keys) > 20 else [])]) or "nothing"


def bytes_of(text: str) -> int:
    """The length of a text in UTF-8, also if it is not valid Unicode."""
    return len(text.encode("utf-8", "surrogatepass"))
