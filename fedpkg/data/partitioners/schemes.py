"""Registers the schemes of `fedpkg.partitions`, under the names that they have there."""

from __future__ import annotations

import importlib

from fedpkg.data.partitioners.registry import PARTITIONERS, register_partitioner
from fedpkg.partitions.schemes import SCHEMES

for module in PARTITIONERS.modules:
    if module.startswith("fedpkg.partitions."):
        importlib.import_module(module)
for name, scheme in SCHEMES.items():
    register_partitioner(name, aliases=scheme.aliases, equation=scheme.equation, paper=scheme.paper)(scheme.make)
