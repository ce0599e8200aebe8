"""Questions of the API: the types of their parameters, which are checked on every call, and of paged answers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, TypeAlias, TypeVar, get_type_hints

import msgspec

from fedpkg.api.opening import Item, Opened, Page
from fedpkg.errors import ConfigError

Result = TypeVar("Result")
Given = ParamSpec("Given")

Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=500)]
Ref: TypeAlias = Annotated[
    str, msgspec.Meta(min_length=1, max_length=500, description="an id, the unique beginning of one, or `latest`")
]
Skip: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=10**9, description="number of items before the first one")]
Limit: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1000, description="most items of the answer")]
RoundNumber: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
Order: TypeAlias = Literal["asc", "desc"]


def page(items: list[Item], *, skip: int, limit: int, notes: tuple[str, ...] = ()) -> Page[Item]:
    """A part of a list that is in memory."""
    return Page(total=len(items), skip=skip, items=items[skip : skip + limit], notes=notes)


def question(function: Callable[Concatenate[Opened, Given], Result]) -> Callable[Concatenate[Opened, Given], Result]:
    """Check the parameters of a function of the API by their types.

    The function raises ConfigError for a parameter that is out of its range.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(at: Opened, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        bound = signature.bind(at, *args, **kwargs)
        given = {name: value for name, value in bound.arguments.items() if name != "at"}
        check(checked, given)
        return function(at, *args, **kwargs)

    return checked


def check(function: Callable[..., Any], given: dict[str, Any], *, are_texts: bool = False) -> dict[str, Any]:
    """The values of parameters by their types.

    Args:
        are_texts: the values are those of a query: numbers are texts.

    Raises:
        ConfigError: a value is wrong or missing; the message names the parameter.
    """
    kind = parameters(function)
    try:
        found = msgspec.convert(given, kind, strict=not are_texts)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        name = where.strip("`").removeprefix("$.") or "the parameters"
        raise ConfigError(f"{name}: {what[:1].lower()}{what[1:]}", key=name) from error
    values = {name: getattr(found, name) for name in given}
    for name, value in values.items():
        for text in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(text, str) and not text.isascii() and any("\ud800" <= one <= "\udfff" for one in text):
                raise ConfigError(f"{name} must be Unicode text", key=name)
            if isinstance(text, str) and "\0" in text:
                raise ConfigError(f"{name} must not contain NUL characters", key=name)
    return values


@functools.cache
def parameters(function: Callable[..., Any]) -> type[msgspec.Struct]:
    """The parameters of a function of the API as a type, without the home."""
    hints = get_type_hints(function, include_extras=True)
    fields: list[Any] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name != "at":
            has_default = parameter.default is not parameter.empty
            fields.append((name, hints[name], parameter.default) if has_default else (name, hints[name]))
    return msgspec.defstruct(function.__name__, fields, kw_only=True)
