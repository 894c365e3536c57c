"""How much an audit spends on each step.

In this room: the numbers and what they must not be. Not in this room: what they are spent on (auditing).
"""

from typing import NamedTuple

from fpjax.evidence import FpjaxError
from fpjax.jacobian import MOST

PICARD_LIMIT = 200  # plain iterations allowed by the question "convergence"


class Budget(NamedTuple):
    """How much an audit spends on each step; the default suits small networks, and less is weaker evidence.

    Attributes:
      points: for each image, 1 to 3: where the solver ended, the naive start, a fresh sample at this noise level.
      lanczos: most iterations of each spectrum; an extreme eigenvalue may then be missed, and its residual says so.
      picard: plain iterations allowed by the question "convergence".
      at_once: points whose spectra are computed together; memory is proportional to it. None: all.
    """

    points: int = 3
    lanczos: int = MOST
    picard: int = PICARD_LIMIT
    at_once: int | None = None

    def check(self) -> None:
        """A budget must suffice for an answer to every question.

        Raises:
          FpjaxError: if it does not.
        """
        if self.points not in (1, 2, 3):
            raise FpjaxError(f"an audit looks at 1, 2 or 3 points for each image and step, not {self.points}")
        if self.lanczos < 2 or self.picard < 1 or (self.at_once is not None and self.at_once < 1):
            raise FpjaxError("an audit needs at least 2 Lanczos iterations, 1 plain iteration and 1 point at once")


BUDGET = Budget()
