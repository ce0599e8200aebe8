"""Small types that all layers use, and the leaves of JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeAlias

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
Attribute: TypeAlias = "str | int | float | bool"  # of an entity
# The use of a reply's values: means and the like, which stay in their range; or steps, squares, distances.
# ``former``: the bounds of sessions with rules below 2 (`fedpkg/rules.py`).
Use: TypeAlias = Literal["averaged", "stepped", "former"]
# The meaning of an update's tensors.
Content: TypeAlias = Literal["weights", "delta", "gradient"]

# Those that fedpkg itself calls; a strategy may use any other one of a package.
ENTRY_POINTS = ("build", "startup", "train", "validate", "predict", "gradient", "prox")


def leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each value that is no section, with the keys that lead to it; an empty section is a value."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


class ReplyKind(str, Enum):
    """The kind of reply that a request expects from an entry point.

    ``update``: a model file that fits the global model, with ``num_examples`` in its metadata.
    ``sets``: several named weight sets in one model file, ``num_examples`` as for an update.
    ``metrics``: any JSON.  ``records``: a file of any number of named sets of tensors, and any JSON.  ``seed``: a model
    file that defines the global model.  ``result``: an opaque file.  ``nothing``: no file.
    """

    UPDATE = "update"
    SETS = "sets"
    METRICS = "metrics"
    RECORDS = "records"
    SEED = "seed"
    RESULT = "result"
    NOTHING = "nothing"


class Scheme(str, Enum):
    """How a sampler draws clients, as far as privacy guarantees depend on it.

    ``poisson``: each client by an independent draw, all with the same probability.
    ``without_replacement``: a fixed number of clients, each set of that size with the same probability.
    ``data_free``: a fixed number, in another way that does not depend on clients' reports, such as in turns.
    ``other``: in an unknown way, or depending on clients' reports.
    """

    POISSON = "poisson"
    WITHOUT_REPLACEMENT = "without_replacement"
    DATA_FREE = "data_free"
    OTHER = "other"


@dataclass(frozen=True)
class Sampling:
    """How the cohorts of a session are drawn.

    ``rate`` is the fraction of all clients that is asked, or its expectation; 1 if unknown.
    """

    scheme: Scheme = Scheme.OTHER
    rate: float = 1.0
