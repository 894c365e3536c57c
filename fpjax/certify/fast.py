"""The kernel's fast arithmetic: matrices of midpoints and radii in float64, multiplied by BLAS, with proved error bounds.

In this room: the class of matrices.py once more (after Rump, "Fast and parallel interval arithmetic", BIT 1999), for
networks on which Arb is slow. Only matrices take this path: values at the centre, slopes, ranges and the last
inequality stay in Arb. The kernel uses it only where it is asked to, and its verdict says so.

What is assumed of the machine: float64 operations rounded to nearest, u = 2^-53; a product of matrices computes each
entry by n products and n - 1 sums, fused or not, in any order. Rounding modes are not touched. Subnormal numbers are
not relied upon: matrices hold none, and whatever is lost to underflow, flushed to zero or not, is less than TINY an
operation. What overflows becomes the ball of all reals. Two lemmas follow (Higham 2002, sections 2.2 and 3.1).

L1. A computed sum of products of length n is off by at most n u/(1 - n u) times the same sum of absolute values, and
    2 n TINY.
L2. A formula of sums, products and roots of nonnegative numbers, with at most k roundings on each path (k u < 1/4), is
    at most the computed value times 1 + 2 k u, but for what its products lose to underflow.
"""

import math
from collections.abc import Iterable

import numpy as np
from flint import arb, arb_mat  # pyright: ignore[reportMissingModuleSource]

from fpjax.certify.matrices import INF, ONE

U, TINY = 2.0**-53, 2.0**-1022
WIDER = arb(1) + arb(2) ** -27  # Arb keeps 30 bits of a radius: norms are widened by more, to contain Arb's enclosure
quiet = np.errstate(all="ignore")


def up(x, k: int, lost: float = 0.0):
    """An upper bound of a nonnegative formula with k roundings, computed as ``x``, that lost at most ``lost`` TINY (L2)."""
    return x * (1 + 4 * (k + 8) * U) + (lost + 2) * TINY


def above(x: arb) -> float:
    """Zero, or a normal float of at least the exact number x >= 0; infinity where there is none."""
    return 0.0 if x == 0 else max(math.nextafter(float(x), math.inf), TINY) if x.is_finite() else math.inf


def split(values: Iterable) -> tuple[np.ndarray, np.ndarray]:
    """Midpoints, zero or normal, and radii of balls or floats."""
    mid, rad = [], []
    for v in values:
        m = float(v)
        m = m if abs(m) >= TINY else 0.0
        mid.append(m)
        rad.append(0.0 if type(v) is float and m == v else above((arb(v) - m).abs_upper()))
    return np.asarray(mid), np.asarray(rad)


class FloatMatrix:
    """A matrix of balls, ``mid`` and ``rad``, each zero or a normal number; the methods are those of ArbMatrix."""

    arithmetic, pixels, scale, slack = "fast: float64 with proved error bounds", 4096, 64, arb(1 + 2.0**-20)

    @quiet
    def __init__(self, mid: np.ndarray, rad: np.ndarray):
        bad, low = ~(np.isfinite(mid) & np.isfinite(rad)), np.abs(mid) < TINY
        self.mid = np.where(bad | low, 0.0, mid)
        self.rad = np.where(bad, np.inf, np.where(low & (mid != 0), up(rad, 1, 1), rad))
        self.shape: tuple[int, int] = mid.shape
        self.exact: arb_mat | None = None
        self.turned: FloatMatrix | None = None

    @classmethod
    def of(cls, rows: int, columns: int, values: Iterable) -> "FloatMatrix":
        """From numbers or balls, row by row."""
        values = list(values)
        mid, rad = split(values)
        found = cls(mid.reshape(rows, columns), rad.reshape(rows, columns))
        found.exact = arb_mat(rows, columns, values)
        return found

    @classmethod
    def eye(cls, n: int, value: arb = ONE, columns: int = 0, first: int = 0) -> "FloatMatrix":
        """n rows, ``value`` at (i, first + i), zero elsewhere; at least n columns."""
        (m,), (r,) = split([value])
        unit = np.eye(n, max(n, columns), first)
        return cls(unit * m, np.where(unit > 0, r, 0.0))

    @quiet
    def __add__(self, other: "FloatMatrix") -> "FloatMatrix":
        mid = self.mid + other.mid
        return FloatMatrix(mid, up(self.rad + other.rad + U * np.abs(mid), 3, 4))

    def __sub__(self, other: "FloatMatrix") -> "FloatMatrix":
        return self + FloatMatrix(-other.mid, other.rad)

    @quiet
    def __matmul__(self, other: "FloatMatrix") -> "FloatMatrix":
        """|A B - ab| <= |a| rb + ra (|b| + rb) and L1, for a in A, b in B."""
        n, a, b = self.shape[1], np.abs(self.mid), np.abs(other.mid)
        rad = (2 * (n + 8) * U) * (a @ b)
        if other.rad.any():
            rad = rad + a @ other.rad
        if self.rad.any():
            rad = rad + self.rad @ (b + other.rad)
        return FloatMatrix(self.mid @ other.mid, up(rad, n + 4, 16 * (n + 1)))

    def __mul__(self, factor: arb) -> "FloatMatrix":
        return self.scaled([factor] * self.shape[0])

    @property
    def T(self) -> "FloatMatrix":
        """The transpose."""
        if self.turned is None:
            self.turned = FloatMatrix(self.mid.T, self.rad.T)
            self.turned.exact, self.turned.turned = None if self.exact is None else self.exact.transpose(), self
        return self.turned

    def entries(self) -> list[arb]:
        """The balls, row by row."""
        if self.exact is not None:
            return self.exact.entries()
        return [arb(m, r) for m, r in zip(self.mid.ravel().tolist(), self.rad.ravel().tolist(), strict=True)]

    @quiet
    def scaled(self, rows: list[arb]) -> "FloatMatrix":
        """diag(rows) times the matrix."""
        mid, rad = (v[:, None] for v in split(rows))
        found = mid * self.mid
        error = np.abs(mid) * self.rad + rad * (np.abs(self.mid) + self.rad) + U * np.abs(found)
        return FloatMatrix(found, up(error, 5, 8))

    def apply(self, vector: list[arb]) -> list[arb]:
        """The product with a vector, in Arb."""
        self.exact = arb_mat(*self.shape, self.entries()) if self.exact is None else self.exact
        return (self.exact * arb_mat(len(vector), 1, vector)).entries()

    def take(self, columns: list[int]) -> "FloatMatrix":
        """Some columns."""
        return FloatMatrix(self.mid[:, columns], self.rad[:, columns])

    def placed(self, at: list[int], n: int) -> "FloatMatrix":
        """The n x n matrix that has entry (i, j) of this one at (at[i], at[j])."""
        mid, rad = np.zeros((n, n)), np.zeros((n, n))
        mid[np.ix_(at, at)], rad[np.ix_(at, at)] = self.mid, self.rad
        return FloatMatrix(mid, rad)

    @staticmethod
    def middles(slopes: list[arb]) -> list[arb]:
        """Balls around the midpoints of slopes over a ball, wide enough for those of a slightly smaller ball: Arb's."""
        return [s.mid() + arb(0, s.rad() * arb(2) ** -20) for s in slopes]

    def inverse(self) -> "FloatMatrix":
        """Exact numbers near the inverse of the midpoint."""
        try:
            return FloatMatrix(np.linalg.inv(self.mid), np.zeros(self.shape))
        except np.linalg.LinAlgError:
            raise ZeroDivisionError("matrix is singular") from None

    @quiet
    def row_norms(self) -> list[arb]:
        """Upper bounds of the norms of the rows."""
        size, n = np.abs(self.mid) + self.rad, self.shape[1]
        most = size.max(axis=1)
        _, power = np.frexp(np.where(np.isfinite(most), most, 1.0))
        small = np.ldexp(size, -power[:, None])  # exact, or below TINY
        found = up(np.sqrt((small * small).sum(axis=1)), 2 * n + 4)
        return [
            arb(0) if m == 0 else (arb(f) * WIDER * arb(2) ** int(p)).upper() if math.isfinite(f) else INF
            for m, f, p in zip(most.tolist(), found.tolist(), power, strict=True)
        ]

    def norm(self) -> arb:
        """An upper bound of the Frobenius norm."""
        flat = FloatMatrix(self.mid.reshape(1, -1), self.rad.reshape(1, -1))
        return flat.row_norms()[0]

    @quiet
    def norm2(self, squarings: int = 12) -> arb:
        """An upper bound of the spectral norm: ||mid|| + ||rad||_F. With S_0 = mid and S_k+1 the computed product
        S_k^T S_k / 4^p_k, ||S_k|| <= 2^p_k sqrt(||S_k+1|| + what was lost), and the norm of the last is at most ||.||_F."""
        plain, m = self.norm(), self.mid if self.shape[0] >= self.shape[1] else self.mid.T
        spread, path = FloatMatrix(np.zeros(self.shape), self.rad).norm(), []
        for _ in range(squarings + 1):
            _, power = np.frexp(np.abs(m).max())
            m = np.ldexp(m, -int(power))  # the largest entry is in [1/2, 1); exact, or below TINY
            frobenius, n = FloatMatrix(m, np.zeros(m.shape)).norm(), m.shape[0]
            path.append((int(power), arb(4 * (n + 8) * U) * frobenius**2))  # L1 takes half; underflow is far below that
            m = m.T @ m
        top = FloatMatrix(m, np.zeros(m.shape)).norm()
        for power, lost in reversed(path):
            top = (top + lost).sqrt().upper() * arb(2) ** power
        return min(((top + spread) * WIDER).upper(), plain) if top.is_finite() and m.any() else plain
