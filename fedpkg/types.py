"""Small types that every layer shares."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
# What becomes of a reply's numbers: means and the like, which stay between them; or steps, squares, distances.
# ``former``: the bounds of sessions with rules below 2 (`fedpkg/rules.py`).
Use: TypeAlias = Literal["averaged", "stepped", "former"]
# What the tensors of an update are.
Content: TypeAlias = Literal["weights", "delta", "gradient"]

# Those that fedpkg itself calls; a strategy may ask for any other that a package has.
ENTRY_POINTS = ("build", "startup", "train", "validate", "predict", "gradient", "prox")


class ReplyKind(str, Enum):
    """What a request expects back from an entry point.

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
    """How a sampler draws, as far as promises of privacy depend on it.

    ``poisson``: each client by an independent draw, all with the same probability.
    ``without_replacement``: a fixed number of clients, each set of that size with the same probability.
    ``data_free``: a fixed number, in another way that does not depend on what clients report, such as in turns.
    ``other``: not known, or by what clients report.
    """

    POISSON = "poisson"
    WITHOUT_REPLACEMENT = "without_replacement"
    DATA_FREE = "data_free"
    OTHER = "other"


@dataclass(frozen=True)
class Sampling:
    """How the cohorts of a session are drawn.

    ``rate`` is the share of all clients that is asked, or its expectation; 1 where nothing is known of it.
    """

    scheme: Scheme = Scheme.OTHER
    rate: float = 1.0
