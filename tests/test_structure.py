"""Data flows one way: each file imports only what stands above it (DESIGN)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fpjax

ROOT = Path(fpjax.__file__).parent
ORDER = [
    "plugin",
    "evidence",
    "schemas",
    "process",
    "samplers",
    "preconditioning",
    "schedules",
    "schedulers",
    "haze",
    "data",
    "denoiser",
    "models.mixture",
    "models.exact",
    "models.patches",
    "models.tree",
    "models.priors",
    "models.distilled",
    "models.starts",
    "models.unet",
    "models.plain",
    "models.potentials",
    "models.capped",
    "models.monotone",
    "models.store",
    "models.checkpoints",
    "models.recipes",
    "models.distilling",
    "models.training",
    "images",
    "metrics",
    "models.convolutional",
    "composite",
    "diffusers.folder",
    "diffusers.bridge",
    "diffusers.families",
    "diffusers.text",
    "diffusers.autoencoder",
    "diffusers.checkpoint",
    "diffusers.export",
    "step",
    "tridiagonal",
    "secants",
    "methods",
    "machine",
    "convex",
    "solvers",
    "gmres",
    "solve",
    "lockstep",
    "sharding",
    "lanes",
    "compaction",
    "parallel",
    "multistep",
    "trajectory",
    "tiles",
    "dehazing",
    "restoration",
    "baselines",
    "exact_inverses",
    "pivotal",
    "peers",
    "restarted",
    "jacobian",
    "nonsymmetric",
    "moments",
    "confidence",
    "regions",
    "worst",
    "adapting",
    "guidance",
    "findings",
    "editing",
    "diffusers.attention",
    "models.quality",
    "lipschitz",
    "lipschitz_page",
    "rules",
    "budget",
    "programs",
    "curves",
    "auditing",
    "testing.asserting",
    "testing.trajectories",
    "testing.strategies",
    "testing.bridge",
    "testing",
    "report.words",
    "report.columns",
    "report.pictures",
    "report.page",
    "report.text",
    "report.figures",
    "report.comparing",
    "report",
    "gallery",
    "subject",
    "command",
    "report_command",
    "restoration_command",
    "edit_command",
    "study.plan",
    "study.store",
    "study.pool",
    "study.meter",
    "study.engine",
    "study.cluster",
    "study.work",
    "study.cost",
    "study",
    "study.export",
    "study.watching",
    "notebook",
    "study.command",
    "cli",
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Rooms of fpjax that a file imports when it is loaded; imports inside functions and TYPE_CHECKING do not count."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "fpjax":
            base = node.module.removeprefix("fpjax").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                is_module = (ROOT / (full.replace(".", "/") + ".py")).exists() or (
                    ROOT / full.replace(".", "/")
                ).is_dir()
                found.add(full if is_module else base)
    return found


FILES = [p for p in sorted(ROOT.rglob("*.py")) if "certify" not in p.parts]


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_upwards(path):
    name = module_name(path)
    if name in ("", "models", "diffusers"):
        assert not imported(path)  # lazy
        return
    assert name in ORDER, f"{name} has no place in the order"
    later = {other for other in imported(path) if ORDER.index(other) >= ORDER.index(name)}
    assert not later


def test_importing_fpjax_is_light():
    code = "import sys, fpjax, fpjax.certify; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_can_be_had():
    for name in fpjax.__all__:
        assert getattr(fpjax, name) is not None
    with pytest.raises(AttributeError):
        fpjax.wonders  # noqa: B018


def test_files_stay_short():
    long = {module_name(p): n for p in FILES if (n := len(p.read_text().splitlines())) > 430}
    assert not long
