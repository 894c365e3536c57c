"""Checkpoints of a training run: everything that its next update depends on, in one safetensors file.

The file is written beside and renamed, so there is always a whole one.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fpjax.evidence import FpjaxError
from fpjax.models.store import write_atomic


def write(path: Path, recipe: dict, carry, step: int, curve: list, seconds: float) -> None:
    """Saves the arrays of a run after ``step`` updates.

    Raises:
      FpjaxError: if the file cannot be written; the one before is kept.
    """
    leaves = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(carry))}
    facts = {"recipe": recipe, "step": step, "curve": curve, "seconds": seconds}
    write_atomic(path, save(leaves, metadata={"run": json.dumps(facts)}))


def read(path: Path, recipe: dict, carry) -> tuple[Any, int, list, float]:
    """The arrays as in ``carry``, updates done, loss curve and seconds of a run.

    Raises:
      FpjaxError: if the file is damaged or of another recipe.
    """
    try:
        with safe_open(path, "numpy") as file:
            facts = json.loads((file.metadata() or {})["run"])
            found = [file.get_tensor(str(i)) for i in range(len(file.keys()))]
            made, step, seconds = facts["recipe"], int(facts["step"]), float(facts["seconds"])
            curve = [(int(n), float(value)) for n, value in facts["curve"]]
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise FpjaxError(
            f"the checkpoint {path} is damaged ({type(error).__name__}); remove it to start again"
        ) from None
    leaves, tree = jax.tree.flatten(carry)
    fits = made == json.loads(json.dumps(recipe)) and len(found) == len(leaves)
    if not fits or any(a.shape != b.shape or a.dtype != b.dtype for a, b in zip(found, leaves, strict=True)):
        raise FpjaxError(f"the checkpoint {path} is of another recipe; give its options again or remove it")
    carry = jax.tree.unflatten(tree, [jnp.asarray(leaf) for leaf in found])
    return carry, step, curve, seconds
