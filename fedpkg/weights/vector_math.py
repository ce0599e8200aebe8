"""Makes the first calls of oneMKL's vector math at a time when no result depends on them."""

from __future__ import annotations

import torch

# Functions for which PyTorch with oneMKL may use its vector math. Also in fedpkg/runtime/path/_fedpkg_task.py.
VECTOR_MATH = (
    "acos asin atan ceil cos cosh erf erfc erfinv exp expm1 floor log log10 log1p log2 reciprocal round rsqrt sigmoid "
    "sin sinh sqrt tan tanh trunc"
)


def warm_vector_math() -> None:
    """Call each function of oneMKL's vector math once, on one thread.

    Each function chooses a kernel at its first call. If several threads make that call at the same time, one of them
    may get a less accurate kernel, for that call only: rarely, half of a tensor of square roots was wrong in the fourth
    digit (https://github.com/pytorch/pytorch/issues/188792; oneMKL before 2025).
    """
    for dtype in (torch.float32, torch.float64):
        number = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        for name in VECTOR_MATH.split():
            getattr(number, name)()
