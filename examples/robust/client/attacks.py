"""The updates that attackers send. ``w`` is the global model, d_k = w_k - w the step of an honest client."""

from statistics import NormalDist

import torch

ATTACKS = ("none", "label_flip", "sign_flip", "scaled", "gaussian", "alie", "ipm", "nan")


def flipped(labels):
    """Wrong labels: 9 for 0, 8 for 1 …"""
    return 9 - labels


def attacked(attack, w, own, honest, *, attackers, draw):
    """The update of one attacker.

    own: the update that training gives, with flipped labels for label_flip and scaled.
    honest: the updates of the honest clients, one tensor (clients, ...) per name. Attackers with alie and ipm know
        them, and all send the same update.
    """
    if attack == "label_flip":
        return own
    if attack == "sign_flip":  # in the opposite direction, 4 times as far
        return {name: w[name] - 4 * (own[name] - w[name]) for name in w}
    if attack == "scaled":  # a wrong model, to replace the global one: Bagdasaryan et al. 2020, arXiv:1807.00459
        return {name: w[name] + 10 * (own[name] - w[name]) for name in w}
    if attack == "gaussian":
        return {name: w[name] + torch.randn(w[name].shape, generator=draw) for name in w}
    if attack == "alie":  # inside the honest clients' own spread: Baruch et al. 2019, arXiv:1902.06156
        n = len(next(iter(honest.values()))) + attackers
        z = NormalDist().inv_cdf((n - attackers - (n // 2 + 1 - attackers)) / (n - attackers))
        return {name: honest[name].mean(dim=0) - z * honest[name].std(dim=0) for name in w}
    if attack == "ipm":  # against the mean of the honest steps: Xie et al. 2019, arXiv:1903.03936
        return {name: w[name] - 3 * (honest[name].mean(dim=0) - w[name]) for name in w}
    if attack == "nan":
        return {name: torch.full_like(w[name], torch.nan) for name in w}
    raise SystemExit(f"there is no attack {attack!r}; there are {', '.join(ATTACKS)}")
