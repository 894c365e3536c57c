"""One batch on 1, 2 and 8 devices, and on two processes: the same verdicts, the same values to 1e-10, less memory each."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "sharded.py"
WITHIN = 1e-10
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]  # every process compiles the whole audit


def command(devices: int, *words: str) -> subprocess.Popen:
    out = Path(words[0])
    env = {
        "JAX_COMPILATION_CACHE_DIR": str(out.parent / "compiled"),  # the programs that are looked at were run before
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.Popen([sys.executable, str(SCRIPT), *words], env=env, stderr=subprocess.PIPE, text=True)


def outcome(process: subprocess.Popen, out: Path) -> dict:
    errors = process.communicate(timeout=1200)[1]
    assert process.returncode == 0, errors[-2000:]
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def audits(tmp_path_factory) -> dict[int, dict]:
    """By the number of devices."""
    folder = tmp_path_factory.mktemp("audits")
    counts = (1, 2, 8) if os.environ.get("FPJAX_FULL") else (1, 8)
    return {n: outcome(command(n, str(folder / f"{n}.json")), folder / f"{n}.json") for n in counts}


def agree(one: dict, other: dict) -> float:
    """Same questions, same verdicts; the largest difference of any value."""
    gap = 0.0
    assert len(one["rows"]) == len(other["rows"])
    for a, b in zip(one["rows"], other["rows"], strict=True):
        same = ("step", "question", "guidance", "theorem", "verdict", "evidence")
        assert [a[k] for k in same] == [b[k] for k in same]
        assert (a["value"] is None) == (b["value"] is None)
        if a["value"] is not None:
            gap = max(gap, abs(a["value"] - b["value"]) / max(1.0, abs(a["value"])))
    gap = max(gap, float(np.max(np.abs(np.asarray(one["latents"]) - np.asarray(other["latents"])))))
    assert [t["solved"] for t in one["round_trip"]] == [t["solved"] for t in other["round_trip"]]
    return gap


@pytest.mark.timeout(3600)
def test_devices_agree_on_an_audit(audits):
    """Ten images, which eight devices do not divide."""
    for n, found in audits.items():
        assert found["devices"] == n
        assert agree(audits[1], found) <= WITHIN


@pytest.mark.timeout(3600)
def test_each_device_holds_its_share(audits):
    """The path's shards are exactly 1/devices; what a compiled program needs is, but for what every device needs."""
    one = audits[1]["held"]
    for n, found in audits.items():
        held = found["held"]
        assert len(held["path"]) == n
        assert set(held["path"]) == {one["path"][0] // n}
        for name in ("invert", "look"):
            assert held[name] <= one[name] / n * 1.25


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_processes_agree_on_an_audit(audits, tmp_path):
    """``jax.distributed``, four virtual devices in each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    outs = [tmp_path / f"{i}.json" for i in range(2)]
    running = [command(4, str(out), address, str(i), "2") for i, out in enumerate(outs)]
    first, second = [outcome(process, out) for process, out in zip(running, outs, strict=True)]
    assert first == second
    assert first["devices"] == 8
    assert agree(audits[1], first) <= WITHIN


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_one_point_in_pieces(tmp_path):
    """Lanczos vectors cut over 8 devices: the same extremes, and an eighth of the memory on each."""
    outs = {n: tmp_path / f"{n}.json" for n in (1, 8)}
    one, eight = (outcome(command(n, str(out), "pieces"), out) for n, out in outs.items())
    for d, whole in one.items():
        np.testing.assert_allclose(eight[d]["extremes"], whole["extremes"], atol=WITHIN)
        assert eight[d]["bytes"] <= whole["bytes"] / 8 * 1.25
