"""Whether two values are the same to the bit, also NaN and -0.0, with types, dtypes and order in memory."""

from __future__ import annotations

import decimal
import struct
from typing import Any

import numpy as np
import pandas as pd
import torch


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, float):
        assert struct.pack("<d", one) == struct.pack("<d", other)
    elif isinstance(one, decimal.Decimal):  # NaN equals nothing
        assert str(one) == str(other)
    elif isinstance(one, complex):
        assert struct.pack("<dd", one.real, one.imag) == struct.pack("<dd", other.real, other.imag)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif isinstance(one, dict):
        assert_same(list(one), list(other))
        assert_same(list(one.values()), list(other.values()))
    elif isinstance(one, (set, frozenset)):
        assert one == other
        assert sorted(map(_named, one)) == sorted(map(_named, other))
    elif isinstance(one, (np.ndarray, np.generic)):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if one.dtype == object:
            assert_same(one.reshape(-1).tolist(), other.reshape(-1).tolist())
        else:
            assert one.tobytes() == other.tobytes()
        assert isinstance(one, np.generic) or one.flags.f_contiguous == other.flags.f_contiguous
    elif isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, one.requires_grad) == (other.dtype, other.shape, other.requires_grad)
        bits = [tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in (one, other)]
        assert not one.numel() or bits[0] == bits[1]
    elif isinstance(one, pd.MultiIndex):
        assert_same(list(one.names), list(other.names))
        assert_same(
            [list(one.levels), list(map(np.asarray, one.codes))],
            [list(other.levels), list(map(np.asarray, other.codes))],
        )
    elif isinstance(one, pd.Index):
        pd.testing.assert_index_equal(one, other)
        assert_same([one.name, getattr(one, "freq", None)], [other.name, getattr(other, "freq", None)])
        assert isinstance(one.dtype, pd.api.extensions.ExtensionDtype) or _same_arrays(one, other)
    elif isinstance(one, pd.DataFrame):
        assert_same([one.index, one.columns, one.attrs], [other.index, other.columns, other.attrs])
        for number in range(len(one.columns)):
            assert_same(one.iloc[:, number], other.iloc[:, number])
        assert len(set(one.dtypes)) != 1 or _same_arrays(one, other)
    elif isinstance(one, pd.Series):
        pd.testing.assert_series_equal(one, other, check_exact=True)
        assert_same([one.name, one.attrs], [other.name, other.attrs])
        assert isinstance(one.dtype, pd.api.extensions.ExtensionDtype) or _same_arrays(one, other)
    elif isinstance(one, pd.api.extensions.ExtensionArray):
        pd.testing.assert_extension_array_equal(one, other)
    else:
        assert one is other or one == other


def _same_arrays(one: Any, other: Any) -> bool:
    assert_same(one.to_numpy(), other.to_numpy())
    return True


def _named(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"
