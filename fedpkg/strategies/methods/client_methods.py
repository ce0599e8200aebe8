"""Methods that are the clients' part alone: the server sends their parameters, and averages as ever.

What clients do with them is in `fedpkg.client`. Two at once: ``{name: fedper, local: [head.*], parameters:
{proximal_mu: 0.1}}``.
"""

from __future__ import annotations

from typing import Any

from fedpkg.registry import NotNegative, Positive
from fedpkg.strategies.registry import register_client_method


@register_client_method(
    "fedprox",
    lines=("fedprox", "proximal_term"),
    equation="client: y <- y - eta (grad f_k(y) + mu (y - w));  w <- sum_k (n_k / n) y_k",
    paper="Li et al. 2020, Federated Optimization in Heterogeneous Networks, arXiv:1812.06127, Alg. 2",
)
def fedprox(proximal_mu: NotNegative = 0.01) -> dict[str, Any]:
    """Clients are held near the global model by ``proximal_mu`` (`fedpkg.client.fedprox`)."""
    return {"proximal_mu": proximal_mu}


@register_client_method(
    "moon",
    lines=("Moon", "moon_loss"),
    equation="client: min f_k(y) + mu l,  l = -log(e^(cos(z, z_w) / tau) / (e^(cos(z, z_w) / tau) + e^(cos(z, z_prev) "
    "/ tau)));  w <- sum_k (n_k / n) y_k",
    paper="Li, He and Song 2021, Model-Contrastive Federated Learning, arXiv:2103.16257",
)
def moon(mu: NotNegative = 1.0, temperature: Positive = 0.5) -> dict[str, Any]:
    """Clients' features z are drawn to the global model's: ``moon_mu``, ``moon_temperature`` (`fedpkg.client.Moon`)."""
    return {"moon_mu": mu, "moon_temperature": temperature}


@register_client_method(
    "fedlc",
    lines=("calibrated_logits",),
    equation="client: cross entropy of the logits f_c - tau n_c^(-1/4), n_c its examples of class c;  "
    "w <- sum_k (n_k / n) y_k",
    paper="Zhang et al. 2022, Federated Learning with Label Distribution Skew via Logits Calibration, arXiv:2209.00189",
)
def fedlc(tau: NotNegative = 1.0) -> dict[str, Any]:
    """Clients train with margins for their rare classes: ``fedlc_tau`` (`fedpkg.client.calibrated_logits`)."""
    return {"fedlc_tau": tau}


@register_client_method(
    "fedper",
    aliases=("lg_fedavg",),
    equation="w = (shared, local);  shared <- sum_k (n_k / n) shared_k;  each client keeps its local_k",
    paper="Arivazhagan et al. 2019, Federated Learning with Personalization Layers, arXiv:1912.00818 (the head is "
    "local); Liang et al. 2020, Think Locally, Act Globally, arXiv:2001.01523 (the body is)",
)
def fedper(local: list[str]) -> dict[str, Any]:
    """Tensors that match one of the patterns ``local`` (``["head.*"]``) stay with the clients.

    They find the patterns as ``local_names``; a package that uses `fedpkg.client` needs no line for it.
    """
    if not local:
        raise ValueError("local is empty: nothing would stay with the clients")
    return {"local_names": [*local]}


@register_client_method(
    "fedbn",
    equation="w = (shared, norms);  shared <- sum_k (n_k / n) shared_k;  each client keeps its normalising layers",
    paper="Li et al. 2021, FedBN: Federated Learning on Non-IID Features via Local Batch Normalization, "
    "arXiv:2102.07623",
)
def fedbn() -> dict[str, Any]:
    """Normalising layers stay with the clients: ``local_norms``; `fedpkg.client.load` and `save` see to it."""
    return {"local_norms": True}


@register_client_method(
    "ditto",
    lines=("Ditto",),
    equation="client: y as in FedAvg, and v <- v - eta (grad f_k(v) + lambda (v - w));  w <- sum_k (n_k / n) y_k",
    paper="Li et al. 2021, Ditto: Fair and Robust Federated Learning Through Personalization, arXiv:2012.04221, Alg. 1",
)
def ditto(lam: NotNegative = 0.1) -> dict[str, Any]:
    """Each client keeps a model v of its own near the global one: ``ditto_lambda`` (`fedpkg.client.Ditto`)."""
    return {"ditto_lambda": lam}


@register_client_method(
    "pfedme",
    lines=("PFedMe",),
    equation="client: theta = argmin f_k(theta) + lambda/2 |theta - y|^2, y <- y - eta lambda (y - theta);  "
    "w <- sum_k (n_k / n) y_k",
    paper="Dinh, Tran and Nguyen 2020, Personalized Federated Learning with Moreau Envelopes, arXiv:2006.08848, Alg. 1",
)
def pfedme(lam: Positive = 15.0, eta: Positive = 0.005) -> dict[str, Any]:
    """Clients move by their Moreau envelopes: ``pfedme_lambda`` and ``pfedme_eta`` (`fedpkg.client.PFedMe`).

    In the paper clients weigh the same (``aggregator: uniform_mean``), and the server goes beta of the way
    (``server_optimiser: {name: sgd, learning_rate: beta, momentum: 0}``).
    """
    return {"pfedme_lambda": lam, "pfedme_eta": eta}
