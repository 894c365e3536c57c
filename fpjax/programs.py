"""Compiled programs are forgotten before there are too many of them.

Every program of XLA's CPU backend keeps memory mappings (those of one audit two to four thousand), and Linux aborts a process
that asks for more than ``vm.max_map_count`` of them, 65,530 by default.
"""

from pathlib import Path

import jax

MAPPINGS = 25_000  # an audit or a file of tests may begin with so many, and ends below the limit


def forget(most: int = MAPPINGS) -> bool:
    """Drops JAX's compiled programs if this process holds more than ``most`` memory mappings; what is used again is
    compiled again. Returns whether it did; always False where there is no ``/proc``."""
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") <= most:
        return False
    jax.clear_caches()
    return True
