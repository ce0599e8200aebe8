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
| `clients` | `list_clients` |
| `models` | `list_models`, `get_model`, `model_trail`, `model_graph` |
| `changes` | `database_version`, `change_token` |

Each function raises `fedpkg.errors.NotFound` for what does not exist, and `fedpkg.errors.ConfigError` for a parameter
that is out of its range. Texts in answers are those of clients and packages: pages must escape them.
"""
