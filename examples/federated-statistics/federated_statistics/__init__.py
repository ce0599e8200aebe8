"""Statistics over organizations. Each result equals that of the pooled rows, which never leave their organization.

Functions whose name starts with ``partial_`` run on the rows of one organization and return counts and sums. The others
are central: they ask for these and combine them.
"""

from .columns import partial_levels
from .cox import cox, partial_cox
from .glm import glm, partial_glm
from .histograms import histogram, partial_counts_below, partial_histogram, partial_range, quantiles
from .moments import mean_and_variance, partial_cross_products, partial_moments, partial_row_moments
from .pca import pca
from .survival import kaplan_meier, partial_at_risk, partial_event_times
from .tables import contingency_table, partial_table

__all__ = [
    "contingency_table",
    "cox",
    "glm",
    "histogram",
    "kaplan_meier",
    "mean_and_variance",
    "partial_at_risk",
    "partial_counts_below",
    "partial_cox",
    "partial_cross_products",
    "partial_event_times",
    "partial_glm",
    "partial_histogram",
    "partial_levels",
    "partial_moments",
    "partial_range",
    "partial_row_moments",
    "partial_table",
    "pca",
    "quantiles",
]
