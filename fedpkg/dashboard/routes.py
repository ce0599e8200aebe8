"""The addresses of the pages. A page is a function in a module of `pages/`, and a template of the same name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from fedpkg.dashboard.asked import Asked
from fedpkg.dashboard.page import Page


@dataclass(frozen=True)
class Route:
    """An address, the module of its page and, if they have another name than ``page``, its function and template."""

    path: str
    module: str
    area: str  # the entry of the navigation that it belongs to
    function: str = "page"
    name: str = ""  # of the template, if it is not that of the module

    @property
    def template(self) -> str:
        return f"{self.name or self.module}.html"

    def answer(self, asked: Asked) -> Page:
        make: Callable[[Asked], Page] = getattr(import_module(f"fedpkg.dashboard.pages.{self.module}"), self.function)
        return make(asked)


ROUTES = (
    Route("/", "sessions", "sessions"),
    Route("/sessions/{session_id}", "session", "sessions"),
    Route("/sessions/{session_id}/metrics", "metrics", "sessions"),
    Route("/sessions/{session_id}/metrics/{metric}", "metrics", "sessions", "one_metric", "metric"),
    Route("/sessions/{session_id}/values", "values", "sessions"),
    Route("/sessions/{session_id}/rounds", "rounds", "sessions"),
    Route("/sessions/{session_id}/rounds/{round}", "rounds", "sessions", "one_round", "round"),
    Route("/sessions/{session_id}/clients", "clients", "sessions"),
    Route("/sessions/{session_id}/clients/{client_id}", "client", "sessions"),
    Route("/sessions/{session_id}/failures", "failures", "sessions"),
    Route("/sessions/{session_id}/models", "models", "sessions"),
    Route("/sessions/{session_id}/topology", "topology", "sessions"),
    Route("/sessions/{session_id}/configuration", "configuration", "sessions"),
    Route("/tasks/{task_id}", "task", "sessions"),
    Route("/clients/{client_id}", "client", "sessions", "history", "client_history"),
    Route("/compare", "compare", "compare"),
    Route("/sweeps", "sweeps", "sweeps"),
    Route("/sweeps/{sweep}", "sweeps", "sweeps", "one_sweep", "sweep"),
    Route("/models", "models", "models", "all_models", "all_models"),
    Route("/models/{model_id}", "model", "models"),
)
