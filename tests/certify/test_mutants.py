"""Every mutant of the kernel is killed: each comparison flipped, each refusal dropped, each rounding dropped.

The ordinary run takes every tenth mutant; FPJAX_FULL=1 takes all. They run in a process of their own, which forks one
child a mutant: a mutant may abort or take all memory, and a process that holds JAX must not fork.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fpjax.certify.check as kernel

STRIDE = 1 if os.environ.get("FPJAX_FULL") == "1" else 10


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_every_mutant_is_killed(tmp_path):
    root = Path(kernel.__file__).parent.parent.parent
    env = {
        **os.environ,
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(root), str(Path(__file__).parent)]),
    }
    command = [sys.executable, str(Path(__file__).parent / "certify_mutants.py"), str(STRIDE), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    outcome = json.loads(run.stdout.splitlines()[-1])
    print(f"\nmutants: {outcome['tried']} of {outcome['all']} tried, {len(outcome['survivors'])} survive")
    assert outcome["right"] is None
    assert outcome["all"] > 150
    assert outcome["survivors"] == []
