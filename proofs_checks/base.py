"""What every theorem module is made of.

Each module of this package has four names:

* ``statement``: a :class:`Statement`, the theorem in words;
* ``instance()``: an :class:`Instance` that satisfies every hypothesis;
* ``broken_instance()``: an :class:`Instance` that violates exactly the hypothesis it names;
* ``check(instance, samples, seed)``: an :class:`Outcome`, whether the claim was seen to hold.

``check`` evaluates every hypothesis on the instance, and the claim; :func:`conclude` makes the outcome of both.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Formal:
    """The machine-checked counterpart of a statement.

    Attributes:
      file: the Coq file in ``proofs_checks/formal``.
      theorem: the name of the theorem there.
      hypotheses: the theorem's named hypotheses, name -> Coq text; a test compares them with the file.
      scope: the part of the statement that it covers, if that is not all of it.
    """

    file: str
    theorem: str
    hypotheses: dict[str, str]
    scope: str = ""


@dataclass(frozen=True)
class Statement:
    """A theorem in words.

    Attributes:
      name: its name in THEORY (E1, T2, ...).
      title: a few words.
      hypotheses: short name -> what is assumed.
      claim: what follows.
      source: where the theorem or its proof comes from.
      formal: the machine-checked theorems, if there are any.
    """

    name: str
    title: str
    hypotheses: dict[str, str]
    claim: str
    source: str
    formal: tuple[Formal, ...] = ()


@dataclass(frozen=True)
class Instance:
    """A concrete problem to check a theorem on.

    Attributes:
      data: what the module's ``check`` needs.
      violates: the name of the one hypothesis that does not hold, or None.
    """

    data: dict[str, Any]
    violates: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Attributes:
      holds: whether every hypothesis and the claim were seen to hold.
      how: "symbolic", "ball arithmetic", "sampled" or several of them.
      samples: the number of points sampled (0 for a purely symbolic check).
      detail: one sentence with the decisive figure.
      failed: names of the hypotheses that do not hold, and "claim" if the claim does not.
      figures: the numbers behind the sentence.
      hypotheses: name -> whether it was seen to hold on this instance; every hypothesis of the statement.
    """

    holds: bool
    how: str
    samples: int
    detail: str
    failed: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
    hypotheses: dict[str, bool] = field(default_factory=dict)


def conclude(
    hypotheses: dict[str, bool], claim: bool | None, how: str, samples: int, detail: str, figures: dict | None = None
) -> Outcome:
    """The outcome of a check.

    Args:
      hypotheses: name -> whether it holds on the instance, for every hypothesis of the statement.
      claim: whether the claim was seen to hold; None where it has no meaning because a hypothesis fails.
      how, samples, detail, figures: as in :class:`Outcome`.
    """
    seen = {name: bool(value) for name, value in hypotheses.items()}
    failed = [name for name, value in seen.items() if not value]
    if claim is not None and not claim:
        failed.append("claim")
    holds = not failed and claim is not None
    return Outcome(holds, how, samples, detail, tuple(failed), figures or {}, seen)
