"""What a claim is made of: the paper's and other people's statements, put to the same test as the theorems.

Each module of this folder has the four names of a theorem module, and two more:

* ``statement``: a :class:`Claim`;
* ``instance()``: a small exact problem on which it holds, or None; the smallest example, for a claim that something exists;
* ``broken_instance()``: the smallest counterexample that the search found, or None if none is known;
* ``check(instance, samples, seed)``: an :class:`~proofs_checks.base.Outcome`, whether the claim holds on that one problem;
* ``cases()``: a hypothesis strategy of small exact problems, for :func:`search`;
* ``rows(images, seed)``: one :class:`Row` for each model, with what was measured there.
"""

from dataclasses import dataclass, field
from types import ModuleType

import numpy as np

from proofs_checks.base import Instance

PAPER = "Exploring Fixed Point in Image Editing (NeurIPS 2024)"


@dataclass(frozen=True)
class Claim:
    """Somebody's statement.

    Attributes:
      name: how its authors or we call it.
      who: where it is stated.
      text: what is claimed, in our words.
      terms: the same in the notation of the theorems.
      reason: why it holds or fails, by theorem.
      order: its place on the page.
      exists: whether it says that something happens somewhere (one example proves it) and not that it happens always.
    """

    name: str
    who: str
    text: str
    terms: str
    reason: str
    order: int
    exists: bool = False


@dataclass(frozen=True)
class Row:
    """What was seen of a claim on one model.

    Attributes:
      model: its name.
      verdict: "holds", "fails" or "undecided", on this model.
      detail: one sentence with the decisive figures.
      figures: the numbers behind it.
    """

    model: str
    verdict: str
    detail: str
    figures: dict[str, float] = field(default_factory=dict)


def search(module: ModuleType, seed: int = 0, examples: int = 5000) -> Instance | None:
    """The smallest counterexample among ``module.cases()``, found and minimised by hypothesis (see :func:`size`).

    For a claim that something exists: the smallest example instead.

    Args:
      module: a claim.
      seed: of the search.
      examples: the most problems tried, each time, before giving up.

    Returns:
      The problem, or None if there was none among those tried.
    """
    import random

    import hypothesis

    wanted, best = module.statement.exists, None
    quiet = hypothesis.settings(
        max_examples=examples, database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
    )

    def good(data) -> bool:
        found = Instance(data)
        return (best is None or size(found) < size(best)) and module.check(found).holds is wanted

    while True:  # shrinking may end in a local minimum: search again for a smaller one until there is none
        try:
            data = hypothesis.find(module.cases(), good, settings=quiet, random=random.Random(seed))
        except hypothesis.errors.NoSuchExample:
            return best
        best = Instance(data, violates=None if wanted else "claim")


def size(instance: Instance) -> tuple[int, float]:
    """How large a small problem is: the count of its numbers, and the sum of their absolute values."""
    numbers = np.concatenate([np.ravel(np.asarray(v, float)) for v in instance.data.values()])
    return numbers.size, float(np.abs(numbers).sum())


def percent(share: float) -> str:
    """A share, rounded so that only all is 100 % and only none is 0 %."""
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    return f"{100 * share:.3g} %"


def quantiles(values, at=(0.05, 0.25, 0.5, 0.75, 0.95)) -> dict[str, float]:
    """The quantiles of an array, named "5 %" and so on, and its least and largest value."""
    values = np.ravel(np.asarray(values, float))
    named = {f"{100 * q:g} %": float(np.quantile(values, q)) for q in at}
    return {"least": float(values.min()), **named, "largest": float(values.max())}
