"""Methods that are the clients' part alone: the server sends their parameters, and averages as ever.

What clients do with them is in `fedpkg.client`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fedpkg.registry import NotNegative, Part, Positive
from fedpkg.strategies.pipeline import Pipeline
from fedpkg.strategies.registry import register_strategy

AnAggregator = Annotated[Any, Part("aggregator")]
AnOptimiser = Annotated[Any, Part("server_optimiser")]


@register_strategy(
    "fedprox",
    equation="client: y <- y - eta (grad f_k(y) + mu (y - w));  w <- sum_k (n_k / n) y_k",
    paper="Li et al. 2020, Federated Optimization in Heterogeneous Networks, arXiv:1812.06127, Alg. 2",
    folds=True,
)
def fedprox(
    proximal_mu: NotNegative = 0.01, aggregator: AnAggregator = "weighted_mean", server_optimiser: AnOptimiser = None
) -> Pipeline:
    """Clients are held near the global model by ``proximal_mu`` (`fedpkg.client.fedprox`)."""
    return Pipeline(aggregator, server_optimiser, {"proximal_mu": proximal_mu})


@register_strategy(
    "moon",
    equation="client: min f_k(y) + mu l,  l = -log(e^(cos(z, z_w) / tau) / (e^(cos(z, z_w) / tau) + e^(cos(z, z_prev) "
    "/ tau)));  w <- sum_k (n_k / n) y_k",
    paper="Li, He and Song 2021, Model-Contrastive Federated Learning, arXiv:2103.16257",
    folds=True,
)
def moon(
    mu: NotNegative = 1.0,
    temperature: Positive = 0.5,
    aggregator: AnAggregator = "weighted_mean",
    server_optimiser: AnOptimiser = None,
) -> Pipeline:
    """Clients' features z are drawn to the global model's: ``moon_mu``, ``moon_temperature`` (`fedpkg.client.Moon`)."""
    return Pipeline(aggregator, server_optimiser, {"moon_mu": mu, "moon_temperature": temperature})


@register_strategy(
    "fedlc",
    equation="client: cross entropy of the logits f_c - tau n_c^(-1/4), n_c its examples of class c;  "
    "w <- sum_k (n_k / n) y_k",
    paper="Zhang et al. 2022, Federated Learning with Label Distribution Skew via Logits Calibration, arXiv:2209.00189",
    folds=True,
)
def fedlc(
    tau: NotNegative = 1.0, aggregator: AnAggregator = "weighted_mean", server_optimiser: AnOptimiser = None
) -> Pipeline:
    """Clients train with margins for their rare classes: ``fedlc_tau`` (`fedpkg.client.calibrated_logits`)."""
    return Pipeline(aggregator, server_optimiser, {"fedlc_tau": tau})


@register_strategy(
    "fedper",
    aliases=("lg_fedavg",),
    equation="w = (shared, local);  shared <- sum_k (n_k / n) shared_k;  each client keeps its local_k",
    paper="Arivazhagan et al. 2019, Federated Learning with Personalization Layers, arXiv:1912.00818 (the head is "
    "local); Liang et al. 2020, Think Locally, Act Globally, arXiv:2001.01523 (the body is)",
    folds=True,
)
def fedper(
    local: list[str], aggregator: AnAggregator = "weighted_mean", server_optimiser: AnOptimiser = None
) -> Pipeline:
    """Tensors that match one of the patterns ``local`` (``["head.*"]``) stay with the clients.

    They find the patterns as ``local_names``; those that `fedpkg.client.load` and `save` need no line for it.
    """
    return Pipeline(aggregator, server_optimiser, {"local_names": [*local]})


@register_strategy(
    "fedbn",
    equation="w = (shared, norms);  shared <- sum_k (n_k / n) shared_k;  each client keeps its normalising layers",
    paper="Li et al. 2021, FedBN: Federated Learning on Non-IID Features via Local Batch Normalization, "
    "arXiv:2102.07623",
    folds=True,
)
def fedbn(aggregator: AnAggregator = "weighted_mean", server_optimiser: AnOptimiser = None) -> Pipeline:
    """Normalising layers stay with the clients: ``local_norms``; those that use `fedpkg.client` need no line for it."""
    return Pipeline(aggregator, server_optimiser, {"local_norms": True})


@register_strategy(
    "ditto",
    equation="client: y as in FedAvg, and v <- v - eta (grad f_k(v) + lambda (v - w));  w <- sum_k (n_k / n) y_k",
    paper="Li et al. 2021, Ditto: Fair and Robust Federated Learning Through Personalization, arXiv:2012.04221, Alg. 1",
    folds=True,
)
def ditto(
    lam: NotNegative = 0.1, aggregator: AnAggregator = "weighted_mean", server_optimiser: AnOptimiser = None
) -> Pipeline:
    """Each client keeps a model v of its own near the global one: ``ditto_lambda`` (`fedpkg.client.Ditto`)."""
    return Pipeline(aggregator, server_optimiser, {"ditto_lambda": lam})


@register_strategy(
    "pfedme",
    equation="client: theta = argmin f_k(theta) + lambda/2 |theta - y|^2, y <- y - eta lambda (y - theta);  "
    "w <- (1 - beta) w + beta mean_k y_k",
    paper="Dinh, Tran and Nguyen 2020, Personalized Federated Learning with Moreau Envelopes, arXiv:2006.08848, Alg. 1",
)
def pfedme(lam: Positive = 15.0, eta: Positive = 0.005, beta: Positive = 1.0) -> Pipeline:
    """Clients move by their Moreau envelopes: ``pfedme_lambda`` and ``pfedme_eta`` (`fedpkg.client.PFedMe`)."""
    from fedpkg.strategies.sgd import Sgd
    from fedpkg.strategies.uniform_mean import UniformMean

    parameters = {"pfedme_lambda": lam, "pfedme_eta": eta}
    return Pipeline(UniformMean(), None if beta == 1 else Sgd(learning_rate=beta, momentum=0.0), parameters)
