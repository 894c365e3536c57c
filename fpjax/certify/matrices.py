"""The kernel's matrices of Arb balls: the few operations that an enclosure needs, and upper bounds of norms.

In this room: linear algebra with outward rounding. Not in this room: networks (enclosure.py). A comparison of balls is
True only where it holds for all their points: a NaN, an overflow or a loose bound therefore ends in "not proved" and
never in a proof. All norms are Euclidean, and every bound is an exact number. fast.py has the same class in float64.
"""

from collections.abc import Iterable

from flint import arb, arb_mat, fmpq  # pyright: ignore[reportMissingModuleSource]

INF, ZERO, ONE = arb.pos_inf(), arb(0), arb(1)


def exact(value: float) -> fmpq:
    """A float as the rational number it is."""
    return fmpq(*value.as_integer_ratio())


def balls(values: Iterable) -> list[arb]:
    """Exact balls."""
    return [arb(v) for v in values]


def upper(x: arb) -> arb:
    """An upper bound of |x|; infinity where x is not finite."""
    return x.abs_upper() if x.is_finite() else INF


def largest(values: Iterable[arb]) -> arb:
    """An upper bound of the largest |x|."""
    best = ZERO
    for v in map(upper, values):
        best = v if not v <= best else best
    return best


def dot(u: list[arb], v: list[arb]) -> arb:
    """The inner product."""
    return sum((a * b for a, b in zip(u, v, strict=True)), ZERO)


def norm(values: list[arb]) -> arb:
    """An upper bound of the Euclidean norm."""
    return upper(dot(values, values).nonnegative_part().sqrt())


class ArbMatrix:
    """A matrix of balls; ``shape`` is (rows, columns)."""

    arithmetic, pixels = "Arb", 1024
    scale = 1  # how many times MAX_WORK this arithmetic is quick enough for
    slack = ONE  # what bounds computed without matrices are multiplied by, so that the fast ones contain Arb's

    def __init__(self, ball: arb_mat):
        self.ball, self.shape = ball, (ball.nrows(), ball.ncols())

    @classmethod
    def of(cls, rows: int, columns: int, values: Iterable) -> "ArbMatrix":
        """From numbers or balls, row by row."""
        return cls(arb_mat(rows, columns, list(values)))

    @classmethod
    def eye(cls, n: int, value: arb = ONE, columns: int = 0, first: int = 0) -> "ArbMatrix":
        """n rows, ``value`` at (i, first + i), zero elsewhere; at least n columns."""
        m = arb_mat(n, max(n, columns))
        for i in range(n):
            m[i, first + i] = value
        return cls(m)

    def __add__(self, other: "ArbMatrix") -> "ArbMatrix":
        return ArbMatrix(self.ball + other.ball)

    def __sub__(self, other: "ArbMatrix") -> "ArbMatrix":
        return ArbMatrix(self.ball - other.ball)

    def __matmul__(self, other: "ArbMatrix") -> "ArbMatrix":
        return ArbMatrix(self.ball * other.ball)

    def __mul__(self, factor: arb) -> "ArbMatrix":
        return ArbMatrix(self.ball * factor)

    @property
    def T(self) -> "ArbMatrix":
        """The transpose."""
        return ArbMatrix(self.ball.transpose())

    def entries(self) -> list[arb]:
        """The balls, row by row."""
        return self.ball.entries()

    def scaled(self, rows: list[arb]) -> "ArbMatrix":
        """diag(rows) times the matrix."""
        n = self.shape[1]
        return self.of(*self.shape, (rows[i // n] * v for i, v in enumerate(self.entries())))

    def apply(self, vector: list[arb]) -> list[arb]:
        """The product with a vector."""
        return (self.ball * arb_mat(len(vector), 1, vector)).entries()

    def take(self, columns: list[int]) -> "ArbMatrix":
        """Some columns."""
        n, flat = self.shape[1], self.entries()
        return self.of(self.shape[0], len(columns), (flat[i * n + j] for i in range(self.shape[0]) for j in columns))

    def placed(self, at: list[int], n: int) -> "ArbMatrix":
        """The n x n matrix that has entry (i, j) of this one at (at[i], at[j])."""
        m, k = arb_mat(n, n), self.shape[1]
        for i, v in enumerate(self.entries()):
            m[at[i // k], at[i % k]] = v
        return ArbMatrix(m)

    @staticmethod
    def middles(slopes: list[arb]) -> list[arb]:
        """The midpoints of slopes over a ball, as they enter a Jacobian."""
        return [s.mid() for s in slopes]

    def inverse(self) -> "ArbMatrix":
        """Exact numbers near the inverse of the midpoint."""
        return ArbMatrix(self.ball.mid().inv().mid())

    def norm(self) -> arb:
        """An upper bound of the Frobenius norm."""
        return norm(self.entries())

    def row_norms(self) -> list[arb]:
        """Upper bounds of the norms of the rows."""
        n, flat = self.shape[1], self.entries()
        return [norm(flat[i : i + n]) for i in range(0, len(flat), n)]

    def norm2(self, squarings: int = 12) -> arb:
        """An upper bound of the spectral norm: ||G||_2 <= ||G^p||_F^(1/p) with G = M^T M and p a power of two."""
        m, plain = self.ball, self.norm()
        g = m.transpose() * m if m.nrows() >= m.ncols() else m * m.transpose()
        for _ in range(squarings):
            g = g * g
        top = norm(g.entries())
        if not (top > 0 and top.is_finite()):
            return plain
        return min(upper(top.root(2 ** (squarings + 1))), plain)


def lambda_min(s: ArbMatrix) -> arb:
    """A lower bound of the smallest eigenvalue of a symmetric matrix: c - ||c I - S|| for a c near ||S||."""
    c = s.norm2()
    return c - (s.eye(s.shape[0], c) - s).norm2(16) if c.is_finite() else -INF
