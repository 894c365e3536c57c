"""The textbook Newton-Krylov direction: GMRES (Saad & Schultz 1986) of lineax on exact products with the Jacobian.

In this room: one inexact Newton direction, each product a forward-mode derivative that costs about two evaluations. Not in
this room: the machine whose directions cost one evaluation a product (machine), the line search (solve).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fpjax.methods import norm2

RESTART = 20  # Krylov vectors of one cycle of GMRES
CYCLES = 3  # the most cycles of one direction
PRODUCT = 2  # what a forward-mode product costs, in evaluations


def direction(step: Callable, y, r, params, forcing):
    """s with ||(I - J) s - r|| <= forcing·||r||, J the Jacobian of step at y, or what so many cycles make of it.

    Args:
      y, r: the point and step(y) - y. forcing: the share of the residual that may be left.

    Returns:
      s like y, and the evaluations spent: every cycle makes all its products, even where fewer would do.
    """
    import lineax

    restart = min(RESTART, y.size)
    size = norm2(r)
    unit = r / jnp.where(size > 0, size, jnp.ones_like(size))

    def product(v):
        return v - jax.jvp(lambda y: step(y, params), (y,), (v,))[1]

    operator = lineax.FunctionLinearOperator(product, jax.eval_shape(lambda: y))
    # The norm is of the quotient by (atol + rtol·|b|), so with rtol = 0 this is ||(I - J) s - r|| <= forcing·||r||; the
    # same is asked of the last change of s, which a long direction needs not meet.
    solver = lineax.GMRES(rtol=0.0, atol=forcing, norm=norm2, max_steps=CYCLES, restart=restart)
    found = lineax.linear_solve(operator, unit, solver, throw=False)
    cycles = jnp.asarray(found.stats["num_steps"], jnp.int32)
    return size * found.value, PRODUCT * (restart + 1) * cycles
