"""The datasets of `data.sources`, made known to the tasks and the server's program of a session."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fedpkg.config import IsolateConfig, RunConfig
from fedpkg.stores.home import Home


def with_local_data(config: RunConfig, home: Home) -> tuple[RunConfig, RunConfig]:
    """The configuration with the digests of its sources, with which a resumed session compares them; and the one by
    which tasks are run: they find the list of the datasets, and may read their files.

    Raises:
        DataError: a source cannot be read, or is not the one that `data.digests` names.
    """
    if not config.data.sources:
        return config, config
    from fedpkg.apps.federated_data.sources import VARIABLE
    from fedpkg.data.named_sources import prepare_sources  # here: it imports NumPy

    found = prepare_sources(config.data, home.data)
    data = msgspec.structs.replace(config.data, digests=dict(found.digests))
    config = msgspec.structs.replace(config, data=data)
    read = [*config.isolate.read, *map(str, (found.listing, *found.files))]
    return config, msgspec.structs.replace(
        config,
        environment={**config.environment, VARIABLE: str(found.listing)},
        isolate=msgspec.structs.replace(config.isolate, read=read),
    )


def with_files(isolate: IsolateConfig, environment: Mapping[str, str]) -> IsolateConfig:
    """The isolation of a task that is repeated in the environment of a session: it may read the same datasets."""
    from fedpkg.apps.federated_data.sources import VARIABLE
    from fedpkg.data.named_sources import files_in

    if VARIABLE not in environment:
        return isolate
    return msgspec.structs.replace(isolate, read=[*isolate.read, *files_in(environment[VARIABLE])])
