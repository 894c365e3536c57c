"""The solvers by name.

In this room: the list. Not in this room: what they do (methods, machine, convex), how they are run (solve, lanes).
"""

import functools

from fpjax import convex, machine, methods
from fpjax.machine import POLICIES
from fpjax.methods import DEPTH, Method

METHODS = {**methods.METHODS, **convex.METHODS}
GRADIENT = tuple(convex.METHODS)  # those that need a symmetric Jacobian (T6)
CLASSIC = "newton_gmres"  # not a state machine: GMRES on exact products inside each step (solve)
SOLVERS = ("auto", "picard", "relaxed", "aitken", "anderson", "anderson_one", "newton_krylov", CLASSIC, *GRADIENT)


def named(solver: str, depth: int = DEPTH) -> Method:
    """The method of that name; ``depth`` is the number of secant pairs that auto, anderson, anderson_one and newton_krylov
    keep."""
    if solver in METHODS:
        return METHODS[solver]
    if solver == "anderson_one":
        return Method(functools.partial(methods.type_one_init, depth), methods.type_one)
    return Method(functools.partial(machine.machine_init, depth), functools.partial(machine.tell, POLICIES[solver]))
