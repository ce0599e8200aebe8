"""The names of Hugging Face's datasets that message apps use beside flwr_datasets, over local data.

Only message apps find this module, where the library is not installed; see ``_fedpkg_compat.serve_apps``.

Runs inside a task's interpreter: standard library only.
"""

from __future__ import annotations

from _fedpkg_names import Library  # type: ignore[import-not-found]

__version__ = "fedpkg"

_QUIET = "fedpkg.apps.federated_data.loading:do_nothing"
_LOGGING = dict.fromkeys(
    (
        *("disable_progress_bar", "enable_progress_bar", "set_verbosity", "set_verbosity_error", "set_verbosity_info"),
        "set_verbosity_warning",
    ),
    _QUIET,
)

MODULES: dict[str, dict[str, str]] = {
    "datasets": {
        **dict.fromkeys(("ClassLabel", "Image", "Value"), "fedpkg.apps.federated_data.columns"),
        **dict.fromkeys(("Dataset", "DatasetDict"), "fedpkg.apps.federated_data.table"),
        "concatenate_datasets": "fedpkg.apps.federated_data.table:concatenate",
        "load_dataset": "fedpkg.apps.federated_data.loading",
        **dict.fromkeys(("disable_progress_bar", "disable_progress_bars", "enable_progress_bars"), _QUIET),
    },
    "datasets.utils": dict.fromkeys(("disable_progress_bar", "disable_progress_bars"), _QUIET),
    "datasets.utils.logging": _LOGGING,
}

_SOURCES = "name the data in data.sources of the run configuration, and load them by load_dataset"
REASONS = dict.fromkeys(("datasets.load_from_disk", "datasets.load_dataset_builder"), _SOURCES)


__getattr__ = Library("datasets", MODULES, REASONS).look_up
