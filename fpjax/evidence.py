"""The words every answer is made of: Verdict, Evidence, Exit and Bound.

In this room: what a number may claim (THEORY section 4) and how two claims combine.
Not in this room: anything that computes a number.
"""

import enum
import math
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """The answer to one question of an audit (THEORY section 4)."""

    REFUTED = "REFUTED"
    """A stored witness, which anyone can evaluate again, contradicts the property."""
    CERTIFIED = "CERTIFIED"
    """The independent checker re-derived a rigorous bound that implies the property."""
    SUPPORTED = "SUPPORTED"
    """Sampling found no violation; the row says at how many points."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """Anything else: not converged, not finite, or the bound is too loose."""

    @property
    def holds(self) -> bool:
        """Whether the property was found to hold (SUPPORTED or CERTIFIED)."""
        return self in (Verdict.SUPPORTED, Verdict.CERTIFIED)


class Evidence(enum.IntEnum):
    """Where a number comes from, weakest first."""

    ASSUMED = 0
    """Declared by a model's author; nothing was checked."""
    SAMPLED = 1
    """Computed at some points; says nothing about the others."""
    PROBABLE = 2
    """True with a stated probability (T15)."""
    ENCLOSED = 3
    """Inside an interval computed with outward rounding."""


class Exit(enum.IntEnum):
    """How an iteration ended; the order of the tests is in :func:`fpjax.solve.classify`."""

    RUNNING = 0
    CONVERGED = 1
    CONVERGED_TO_PRECISION = 2
    STEP_LIMIT = 3
    NONFINITE = 4
    DIVERGED = 5
    STALLED = 6

    @property
    def solved(self) -> bool:
        """Whether the returned point solves the equation as well as was asked or as the dtype allows."""
        return self in (Exit.CONVERGED, Exit.CONVERGED_TO_PRECISION)

    @property
    def message(self) -> str:
        """One sentence that says what happened and what to do."""
        return _EXIT_MESSAGES[self]


_EXIT_MESSAGES = {
    Exit.RUNNING: "The iteration has not ended.",
    Exit.CONVERGED: "The residual and the error it implies (T8; see the record's basis) are below the tolerance.",
    Exit.CONVERGED_TO_PRECISION: "The residual stopped at the rounding noise of this dtype (T16), above the tolerance; "
    "use float64 or a larger tolerance.",
    Exit.STEP_LIMIT: "The iteration limit was reached with the residual above the tolerance; "
    "raise the limit or use another method.",
    Exit.NONFINITE: "The network or the iterate became NaN or infinite; look at the input and at the noise level.",
    Exit.DIVERGED: "The residual grew far beyond its first value; this method does not suit this step (T3).",
    Exit.STALLED: "The residual no longer falls, also along the Newton direction; a solution near here may not exist.",
}


class Basis(enum.IntEnum):
    """What the error of a :class:`fpjax.solve.Solution` rests on (T8), weakest first."""

    RESIDUAL = 0
    """The residual itself; no rate was seen and no modulus is known, so it implies nothing about the error."""
    MEASURED = 1
    """Residual times the largest recent ||dy||/||dr||: an estimate from what the iteration saw, not a bound."""
    ASSUMED = 2
    """Residual over a declared modulus: a bound if the declaration is true."""
    CERTIFIED = 3
    """Residual over a proved modulus: a bound."""


@dataclass(frozen=True)
class Bound:
    """A number together with what it may claim.

    Attributes:
      value: the number.
      evidence: where it comes from.
      norm: the norm it is measured in; bounds in different norms do not combine.
      source: the theorem or the computation behind it.
    """

    value: float
    evidence: Evidence
    norm: str = "2"
    source: str = ""

    def combine(self, other: "Bound", value: float) -> "Bound":
        """A bound computed from two others: as weak as the weaker one.

        Raises:
          ValueError: if the two are measured in different norms.
        """
        if self.norm != other.norm:
            raise ValueError(f"cannot combine a bound in norm {self.norm!r} with one in norm {other.norm!r}")
        source = " + ".join(s for s in (self.source, other.source) if s)
        return Bound(value, min(self.evidence, other.evidence), self.norm, source)

    @property
    def finite(self) -> bool:
        """Whether the value is neither NaN nor infinite."""
        return math.isfinite(self.value)


class FpjaxError(ValueError):
    """Bad input. The message is one sentence that says what was wrong and what to do."""
