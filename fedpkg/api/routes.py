"""The addresses of the read API, below ``/api/v1``, and the functions that answer them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args, get_origin, get_type_hints

from fedpkg.api import changes, clients, metrics, models, rounds, sessions

PREFIX = "/api/v1"


@dataclass(frozen=True)
class Route:
    """An address; the names in braces, and those of the query, are parameters of the function."""

    path: str
    function: Callable[..., Any]

    @cached_property
    def answer(self) -> Any:
        """The type of the answer; of a list that is sent bit by bit, the type of its items."""
        found = get_type_hints(self.function, include_extras=True)["return"]
        return get_args(found)[0] if get_origin(found) is Iterator else found

    @cached_property
    def is_stream(self) -> bool:
        return get_origin(get_type_hints(self.function)["return"]) is Iterator

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def tag(self) -> str:
        return self.function.__module__.rpartition(".")[2]


ROUTES = (
    Route("/sessions", sessions.list_sessions),
    Route("/session-filters", sessions.session_filters),
    Route("/sessions/{ref}", sessions.get_session),
    Route("/sessions/{ref}/rounds", rounds.list_rounds),
    Route("/sessions/{ref}/rounds/{round_number}", rounds.get_round),
    Route("/sessions/{ref}/metrics", metrics.metric_names),
    Route("/sessions/{ref}/series", metrics.series),
    Route("/sessions/{ref}/curves", metrics.all_series),
    Route("/sessions/{ref}/clients", clients.list_clients),
    Route("/sessions/{ref}/models", models.model_graph),
    Route("/models", models.list_models),
    Route("/models/{ref}", models.get_model),
    Route("/models/{ref}/trail", models.model_trail),
    Route("/changes", changes.change_token),
)
