"""Methods that the clients implement: the server sends their parameters and averages as in FedAvg.

`fedpkg.client` has the clients' part. Two methods at once: ``{name: fedper, local: [head.*], parameters:
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
    """Clients stay near the global model by a proximal term in their loss (`fedpkg.client.fedprox`).

    Args:
        proximal_mu: Weight mu of the proximal term mu/2 |y - w|^2. From 0.001 to 1 is usual, larger if clients differ
            more; 0 is FedAvg. Clients find it as `proximal_mu`.
    """
    return {"proximal_mu": proximal_mu}


@register_client_method(
    "moon",
    lines=("Moon", "moon_loss"),
    equation="client: min f_k(y) + mu l,  l = -log(e^(cos(z, z_w) / tau) / (e^(cos(z, z_w) / tau) + e^(cos(z, z_prev) "
    "/ tau)));  w <- sum_k (n_k / n) y_k",
    paper="Li, He and Song 2021, Model-Contrastive Federated Learning, arXiv:2103.16257",
)
def moon(mu: NotNegative = 1.0, temperature: Positive = 0.5) -> dict[str, Any]:
    """A contrastive loss draws the clients' features z to those of the global model (`fedpkg.client.Moon`).

    Args:
        mu: Weight mu of the contrastive loss. From 0.1 to 10 is usual; 0 is FedAvg. Clients find it as `moon_mu`.
        temperature: Temperature tau of the contrastive loss: the smaller, the more the nearest features count. Clients
            find it as `moon_temperature`.
    """
    return {"moon_mu": mu, "moon_temperature": temperature}


@register_client_method(
    "fedlc",
    lines=("calibrated_logits",),
    equation="client: cross entropy of the logits f_c - tau n_c^(-1/4), with its n_c examples of class c;  "
    "w <- sum_k (n_k / n) y_k",
    paper="Zhang et al. 2022, Federated Learning with Label Distribution Skew via Logits Calibration, arXiv:2209.00189",
)
def fedlc(tau: NotNegative = 1.0) -> dict[str, Any]:
    """Clients train with larger margins for their rare classes (`fedpkg.client.calibrated_logits`).

    Args:
        tau: Size tau of the margins, in units of the logits. 0 is plain cross entropy; a larger value protects rare
            classes more, and a very large one ignores frequent ones. Clients find it as `fedlc_tau`.
    """
    return {"fedlc_tau": tau}


@register_client_method(
    "fedper",
    aliases=("lg_fedavg",),
    equation="w = (shared, local);  shared <- sum_k (n_k / n) shared_k;  each client keeps its local_k",
    paper="Arivazhagan et al. 2019, Federated Learning with Personalization Layers, arXiv:1912.00818 (the head is "
    "local); Liang et al. 2020, Think Locally, Act Globally, arXiv:2001.01523 (the body is)",
)
def fedper(local: list[str]) -> dict[str, Any]:
    """Each client keeps some tensors of the model to itself, and the others are averaged.

    A package that loads and saves with `fedpkg.client` needs no change.

    Args:
        local: Patterns of the names of tensors that stay with each client: the last layers for FedPer ([head.*]), the
            first ones for LG-FedAvg. Clients find them as `local_names`.
    """
    if not local:
        raise ValueError("local is empty: no tensor would stay with the clients")
    return {"local_names": [*local]}


@register_client_method(
    "fedbn",
    equation="w = (shared, norms);  shared <- sum_k (n_k / n) shared_k;  each client keeps its normalising layers",
    paper="Li et al. 2021, FedBN: Federated Learning on Non-IID Features via Local Batch Normalization, "
    "arXiv:2102.07623",
)
def fedbn() -> dict[str, Any]:
    """Each client keeps its normalising layers to itself, and all other tensors are averaged.

    Clients find ``local_norms`` in task.json; `fedpkg.client.load` and `save` implement it.
    """
    return {"local_norms": True}


@register_client_method(
    "ditto",
    lines=("Ditto",),
    equation="client: y as in FedAvg, and v <- v - eta (grad f_k(v) + lambda (v - w));  w <- sum_k (n_k / n) y_k",
    paper="Li et al. 2021, Ditto: Fair and Robust Federated Learning Through Personalization, arXiv:2012.04221, Alg. 1",
)
def ditto(lam: NotNegative = 0.1) -> dict[str, Any]:
    """Each client also trains a personal model v, which stays near the global one (`fedpkg.client.Ditto`).

    Args:
        lam: Weight lambda of the distance between v and the global model. From 0.05 to 2 is usual: 0 trains v alone, a
            large value makes it the global model. Clients find it as `ditto_lambda`.
    """
    return {"ditto_lambda": lam}


@register_client_method(
    "pfedme",
    lines=("PFedMe",),
    equation="client: theta = argmin f_k(theta) + lambda/2 |theta - y|^2, y <- y - eta lambda (y - theta);  "
    "w <- sum_k (n_k / n) y_k",
    paper="Dinh, Tran and Nguyen 2020, Personalized Federated Learning with Moreau Envelopes, arXiv:2006.08848, Alg. 1",
)
def pfedme(lam: Positive = 15.0, eta: Positive = 0.005) -> dict[str, Any]:
    """Each client trains a personal model theta, and moves by its Moreau envelope (`fedpkg.client.PFedMe`).

    In the paper clients have equal weights (``aggregator: uniform_mean``), and the server takes the share beta of the
    step (``server_optimiser: {name: sgd, learning_rate: beta, momentum: 0}``).

    Args:
        lam: Weight lambda of the distance between theta and y. 15 to 30 in the paper; a smaller value is more personal.
            Clients find it as `pfedme_lambda`.
        eta: Step size eta of y: each step covers the share eta lambda of the way to theta, so keep that below 1.
            Clients find it as `pfedme_eta`.
    """
    return {"pfedme_lambda": lam, "pfedme_eta": eta}
