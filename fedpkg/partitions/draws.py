"""Random numbers that are the same with every version of NumPy and on every platform.

NumPy guarantees the stream of a bit generator, but not the methods of `numpy.random.Generator`, whose algorithms have
changed. So every draw here is made from the bits of `random_raw`, by additions, multiplications, divisions and square
roots, which IEEE 754 rounds exactly, and by stable sorts. The logarithm and the exponential function of libm differ
between platforms in their last digit, which could move an example from one client to another; these here do not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_LN2_HIGH = 6.93147180369123816490e-01  # its last 32 bits are 0, so that its product with an exponent is exact
_LN2_LOW = 1.90821492927058770002e-10
_SQRT_HALF = 0.7071067811865476
_CHUNK = 1 << 18  # numbers that are computed at a time, so that intermediate arrays stay in the cache


class Draws:
    """Draws from the bit generator of ``rng``, which must give 64 bits at a time, as PCG64 does."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._bits = rng.bit_generator

    def raw(self, count: int) -> npt.NDArray[np.uint64]:
        return np.asarray(self._bits.random_raw(count), np.uint64).reshape(count)

    def uniform(self, *shape: int) -> Numbers:
        """Uniform in the open interval (0, 1): multiples of 2^-53, plus 2^-54."""
        numbers = (self.raw(int(np.prod(shape))) >> np.uint64(11)).astype(np.float64)
        numbers += 0.5
        numbers *= 2.0**-53
        return np.asarray(numbers.reshape(shape), np.float64)

    def below(self, number: int) -> int:
        """One of the numbers 0 … number - 1."""
        return int(self.raw(1)[0]) * number >> 64

    def permutation(self, count: int) -> Integers:
        """The numbers 0 … count - 1 in random order."""
        return self.order_within(np.zeros(1, np.uint8), count, 1)

    def shuffled(self, codes: npt.NDArray[np.integer], num_codes: int) -> Integers:
        """Codes 0 … num_codes - 1 in random order: words of random bits that end with the code are sorted."""
        bits = np.uint64(max(1, num_codes - 1).bit_length())
        words = self.raw(len(codes))
        words >>= bits
        words <<= bits
        words |= codes.astype(np.uint64)
        words.sort()
        words &= (np.uint64(1) << bits) - np.uint64(1)
        return words.view(np.int64)

    def order_within(self, codes: npt.NDArray[Any], count: int, num_codes: int) -> Integers:
        """The indices 0 … count - 1, sorted by their code 0 … num_codes - 1, and at random within a code.

        The bits of a code, random bits and those of the index are sorted as one word. As no two words are equal, every
        algorithm sorts them alike (NumPy has one for each kind of processor), and equal random bits keep their order.
        """
        index_bits, code_bits = max(1, count - 1).bit_length(), max(0, num_codes - 1).bit_length()
        words = self.raw(count)
        if code_bits and index_bits + code_bits > 40:  # too few random bits would be left
            order = self.permutation(count)
            return order[np.argsort(codes[order], kind="stable")]
        words >>= np.uint64(index_bits + code_bits)
        if code_bits:
            words |= codes.astype(np.uint64) << np.uint64(64 - index_bits - code_bits)
        words <<= np.uint64(index_bits)
        words |= np.arange(count, dtype=np.uint64)
        words.sort()
        words &= np.uint64((1 << index_bits) - 1)
        return words.view(np.int64)

    def normal(self, count: int) -> Numbers:
        """Standard normal numbers, by the polar method of Marsaglia and Bray 1964."""
        drawn = np.empty(count)
        done = 0
        while done < count:
            pairs = min(_CHUNK, (count - done) * 2 // 3 + 16)
            u, v = 2 * self.uniform(2, pairs) - 1
            s = u * u + v * v
            is_inside = (s < 1) & (s > 0)
            u, v, s = u[is_inside], v[is_inside], s[is_inside]
            factor = np.sqrt(-2 * log(s) / s)
            numbers = np.concatenate([u * factor, v * factor])[: count - done]
            drawn[done : done + len(numbers)] = numbers
            done += len(numbers)
        return drawn

    def log_gamma(self, shape: Numbers) -> Numbers:
        """Logarithms of Gamma(shape) draws with scale 1, one for each entry of ``shape``.

        By Marsaglia and Tsang 2000 for shape + 1, times U^(1/shape). Logarithms, because a draw of a small shape is
        smaller than the smallest float.
        """
        flat = np.asarray(shape, np.float64).ravel()
        drawn = np.empty(len(flat))
        for begin in range(0, len(flat), _CHUNK):
            part = flat[begin : begin + _CHUNK]
            drawn[begin : begin + _CHUNK] = self._log_gamma(part + 1) + log(self.uniform(len(part))) / part
        return drawn.reshape(np.shape(shape))

    def _log_gamma(self, shape: Numbers) -> Numbers:
        """For shapes of at least 1."""
        d = shape - 1 / 3
        c = 1 / np.sqrt(9 * d)
        drawn = np.empty(len(shape))
        left = np.arange(len(shape))
        while len(left):
            x = self.normal(len(left))
            v = 1 + c[left] * x
            v = v * v * v
            is_positive = v > 0
            log_v = log(np.where(is_positive, v, 1))
            is_taken = is_positive & (log(self.uniform(len(left))) < 0.5 * x * x + d[left] * (1 - v + log_v))
            taken = left[is_taken]
            drawn[taken] = log(d[taken]) + log_v[is_taken]
            left = left[~is_taken]
        return drawn

    def dirichlet(self, alpha: Numbers) -> Numbers:
        """A Dirichlet draw for each row of ``alpha`` (rows x entries): positive numbers whose row sums are 1."""
        logs = self.log_gamma(np.atleast_2d(alpha))
        logs -= logs.max(axis=1, keepdims=True)
        shares = exp(logs)
        return np.asarray(shares / np.cumsum(shares, axis=1)[:, -1:])


def log(numbers: Any) -> Numbers:
    """The natural logarithm of positive numbers: ln(m 2^e) = e ln 2 + 2 artanh((m - 1) / (m + 1)), as a series."""
    mantissa, exponent = np.frexp(np.asarray(numbers, np.float64))
    is_small = mantissa < _SQRT_HALF
    mantissa = np.where(is_small, mantissa * 2, mantissa)
    e = (exponent - is_small).astype(np.float64)
    s = (mantissa - 1) / (mantissa + 1)
    square = s * s
    series = np.full_like(s, 1 / 21)
    for odd in range(19, 0, -2):
        series *= square
        series += 1 / odd
    return np.asarray(e * _LN2_HIGH + (2 * s * series + e * _LN2_LOW))


def exp(numbers: Any) -> Numbers:
    """e^x = 2^n e^r with |r| <= ln(2) / 2, as a series; 0 for numbers below -745."""
    x = np.maximum(np.asarray(numbers, np.float64), -1000.0)
    n = np.rint(x * 1.4426950408889634)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    series = np.ones_like(r)
    for k in range(14, 0, -1):
        series *= r
        series /= k
        series += 1
    return np.asarray(np.ldexp(series, n.astype(np.int64)), np.float64)
