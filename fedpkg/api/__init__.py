"""The read API: plain functions on a home that is open for reading, and the typed answers that they return.

::

    from fedpkg.api.opening import opened
    from fedpkg.api.sessions import list_sessions

    with opened(".fedpkg") as at:
        for session in list_sessions(at, state="running").items:
            print(session.session_id, session.progress)

| module | functions |
|---|---|
| `opening` | `opened` |
| `sessions` | `list_sessions`, `session_filters`, `get_session` |
| `rounds` | `list_rounds`, `get_round` |
| `metrics` | `metric_names`, `series`, `all_series`; of several metrics of a session: `Curves` |
| `values` | `list_validations`, `get_validation`, `list_reports`, `client_lines`, `value_at` |
| `clients` | `list_clients`, `get_client`, `client_history` |
| `tasks` | `tasks_in_flight`, `list_failures`, `failure_kinds`, `list_tasks`, `get_task`, `get_log` |
| `models` | `list_models`, `get_model`, `model_trail`, `model_graph`, `get_tensors`, `model_file` |
| `topology` | `get_topology`, `combiner_rounds`, `list_clusters`, `get_dendrogram` |
| `configuration` | `get_configuration`, `get_package`, `get_split`, `list_starts` |
| `comparing` | `compare`, `compare_series` |
| `sweeps` | `list_sweeps`, `get_sweep`, `heat_map` |
| `actions` | `stop_session`, `resume_session` |
| `changes` | `database_version`, `change_token` |

Lists that may be long (`list_validations`, `list_tasks`) are iterators; the others have pages. `http.add_api` adds all
functions to an aiohttp application, with the OpenAPI document at ``/api/v1/openapi.json``.

Each function raises `fedpkg.errors.NotFound` for what does not exist, and `fedpkg.errors.ConfigError` for a parameter
that is out of its range. Texts in answers are those of clients and packages: pages must escape them.
"""
