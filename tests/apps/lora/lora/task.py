"""A tiny causal transformer that is built from its configuration, with low-rank adapters (LoRA)."""

import torch
from torch import nn


class Adapted(nn.Module):
    """A frozen linear layer, and a trained product of two small matrices beside it."""

    def __init__(self, layer, rank):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, layer.in_features) * 0.1)
        self.lora_b = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x):
        return self.layer(x) + x @ self.lora_a.T @ self.lora_b.T


class Block(nn.Module):
    def __init__(self, width, heads, rank):
        super().__init__()
        self.heads, self.first, self.second = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = Adapted(nn.Linear(width, 3 * width), rank), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        batch, length, width = x.shape
        parts = self.qkv(self.first(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.second(x))


class Transformer(nn.Module):
    def __init__(self, vocabulary, width, heads, layers, rank, seed):
        super().__init__()
        torch.manual_seed(seed)  # the frozen part is the same everywhere, and need not travel
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads, rank) for _ in range(layers))
        self.head = Adapted(nn.Linear(width, vocabulary), rank)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_("lora_" in name)

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def adapters(model):
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def load_text(partition_id, vocabulary):
    """Each client counts in steps of its own."""
    starts = torch.arange(8 + 2 * partition_id)[:, None]
    return (starts + (1 + partition_id) * torch.arange(9)[None]) % vocabulary


def fit(model, tokens, lr, steps=3):
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        scores = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
    return loss.item()
