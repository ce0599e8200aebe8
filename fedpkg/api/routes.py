"""The addresses of the read API, below ``/api/v1``, and the functions that answer them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args, get_origin, get_type_hints

from fedpkg.api import (
    actions,
    changes,
    clients,
    comparing,
    configuration,
    fedn_form,
    metrics,
    models,
    rounds,
    sessions,
    sweeps,
    tasks,
    topology,
    values,
)

PREFIX = "/api/v1"


@dataclass(frozen=True)
class Route:
    """An address; the names in braces, and those of the query, are parameters of the function."""

    path: str
    function: Callable[..., Any]
    is_action: bool = False  # a POST, which needs an operator's token

    @cached_property
    def answer(self) -> Any:
        """The type of the answer; of a list that is sent bit by bit, the type of its items."""
        found = get_type_hints(self.function, include_extras=True)["return"]
        return get_args(found)[0] if get_origin(found) is Iterator else found

    @cached_property
    def is_stream(self) -> bool:
        return get_origin(get_type_hints(self.function)["return"]) is Iterator

    @property
    def is_file(self) -> bool:
        return get_type_hints(self.function)["return"] is models.Download

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
    Route("/sessions/{ref}/rounds/{round_number}/reports", values.list_reports),
    Route("/sessions/{ref}/metrics", metrics.metric_names),
    Route("/sessions/{ref}/series", metrics.series),
    Route("/sessions/{ref}/curves", metrics.all_series),
    Route("/sessions/{ref}/lines", values.client_lines),
    Route("/sessions/{ref}/validations", values.list_validations),
    Route("/validations/{task_id}", values.get_validation),
    Route("/sessions/{ref}/clients", clients.list_clients),
    Route("/sessions/{ref}/clients/{client_id}", clients.get_client),
    Route("/clients/{client_id}", clients.client_history),
    Route("/sessions/{ref}/in-flight", tasks.tasks_in_flight),
    Route("/sessions/{ref}/failures", tasks.list_failures),
    Route("/sessions/{ref}/failure-kinds", tasks.failure_kinds),
    Route("/sessions/{ref}/tasks", tasks.list_tasks),
    Route("/tasks/{task_id}", tasks.get_task),
    Route("/tasks/{task_id}/log", tasks.get_log),
    Route("/sessions/{ref}/models", models.model_graph),
    Route("/models", models.list_models),
    Route("/models/{ref}", models.get_model),
    Route("/models/{ref}/trail", models.model_trail),
    Route("/models/{ref}/tensors", models.get_tensors),
    Route("/models/{ref}/file", models.model_file),
    Route("/sessions/{ref}/topology", topology.get_topology),
    Route("/sessions/{ref}/clusters", topology.list_clusters),
    Route("/sessions/{ref}/dendrogram", topology.get_dendrogram),
    Route("/sessions/{ref}/combiner", topology.combiner_rounds),
    Route("/sessions/{ref}/configuration", configuration.get_configuration),
    Route("/sessions/{ref}/package", configuration.get_package),
    Route("/sessions/{ref}/split", configuration.get_split),
    Route("/sessions/{ref}/starts", configuration.list_starts),
    Route("/compare", comparing.compare),
    Route("/compare/series", comparing.compare_series),
    Route("/sweeps", sweeps.list_sweeps),
    Route("/sweeps/{name}", sweeps.get_sweep),
    Route("/sweeps/{name}/heat-map", sweeps.heat_map),
    Route("/changes", changes.change_token),
    Route("/fedn/{method}", fedn_form.fedn_answer),
    Route("/sessions/{ref}/stop", actions.stop_session, is_action=True),
    Route("/sessions/{ref}/resume", actions.resume_session, is_action=True),
)
