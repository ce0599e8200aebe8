"""Bounds of the schemes' parameters, which a run.yaml's values are checked against.

Tasks import the schemes where msgspec may not be installed. There, nothing reads the bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    from msgspec import Meta as Meta
else:
    try:
        from msgspec import Meta
    except ImportError:

        class Meta:
            """Stands for a bound."""

            def __init__(self, **_bounds: object) -> None:
                pass


Count = Annotated[int, Meta(ge=1)]
CountOrZero = Annotated[int, Meta(ge=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
FromZeroToOne = Annotated[float, Meta(ge=0, le=1)]
# Parameters that several schemes share, with their explanations.
Amount = Annotated[float, Meta(gt=0, le=1e9)]
MinExamples = Annotated[
    CountOrZero, Meta(description="Least number of training examples of each client. 0 allows clients without any.")
]
