"""The trusted kernel: re-derives what a certificate claims, with python-flint balls and the standard library alone.

In this room: the front door, and the fields of each kind of certificate (format.md). It stands on the files that
FILES names and on nothing else of fpjax, so it also runs alone: ``python check.py FILE... --model CARD_OR_FOLDER``. Not
in this room: anything that searches.
"""

# ruff: noqa: E402, I001 - run as a plain file, it loads its neighbours first

import argparse
import importlib.util
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from flint import ctx  # pyright: ignore[reportMissingModuleSource]

FILES = ("reading", "matrices", "enclosure", "layers", "trees", "lipsdp", "newton", "bounds", "refutations")
if not __package__:  # run as a plain file: the files beside it, under the names that they have in the package
    for file in (*FILES, "fast") if "--fast" in sys.argv else FILES:
        spec = importlib.util.spec_from_file_location(f"fpjax.certify.{file}", Path(__file__).with_name(f"{file}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[spec.name])

from fpjax.certify.bounds import BOUNDS, prove_guidance_limit, prove_lipschitz
from fpjax.certify.enclosure import Step
from fpjax.certify.trees import OPS
from fpjax.certify.newton import local_bounds, need, prove_step, prove_structure, prove_trajectory
from fpjax.certify.reading import CERTIFICATE, MAX_FILE, CertificateError, Model, anything, digest, levels, listof
from fpjax.certify.reading import load_bytes, load_json, nullable, real, record, require, seal, whole, word
from fpjax.certify.refutations import prove_no_solution, prove_non_uniqueness, prove_witness

__all__ = ["OPS", "CertificateError", "Model", "Proved", "Step", "check", "check_data", "local_bounds", "need", "seal"]


@dataclass(frozen=True)
class Proved:
    """What the kernel has re-derived: a sentence, the verdict on each audit question it settles, numbers, and whether
    matrices were multiplied in Arb or, faster, in float64 with proved error bounds (fast.py)."""

    kind: str
    model: str
    statement: str
    questions: dict[str, str]
    facts: dict[str, float] = field(default_factory=dict)
    arithmetic: str = "Arb"

    @property
    def verdict(self) -> str:
        """CERTIFIED, or REFUTED where the certificate proves that a property fails."""
        return "REFUTED" if "REFUTED" in self.questions.values() else "CERTIFIED"


def kinds(model: Model) -> dict:
    """Kind -> (function, the fields of its claim, the fields of its proof), for networks of this size."""
    point, positive, number, n = listof(real(), model.size), real(0.0), real(), model.size
    condition, many = whole(0, model.classes), (1, 10000)
    problem = {"condition": condition, "guidance": number, "sigma_to": positive, "sigma_from": positive}
    form = {"form": word("structure", "monotone", "radii"), "preconditioner": nullable(listof(point, n))}
    ball = {"centre": point, "radius": positive}

    def anywhere(reader):
        return lambda value, what: value if value == "everywhere" else reader(value, what)

    region = {"region": anywhere(record(ball))}
    bounds, multipliers = dict.fromkeys(BOUNDS, nullable(number)), nullable(listof(positive, *many))
    path = {"condition": condition, "guidance": number, "levels": levels, "image": point, "centres": listof(point, *many),
            "radii": listof(positive, *many), "unique": word("everywhere", "balls")}  # fmt: skip
    step = {"target": point, "target_radius": positive, **ball, "uniqueness_radius": anywhere(positive)}
    limit = {k: problem[k] for k in ("condition", "sigma_to", "sigma_from")} | region | {"limit": real(1.0)}
    witness = {"points": listof(point, 2), "factor": nullable(real(1.0))}
    shape = {"levels": levels, "conditions": listof(condition, *many), "guidance": number}
    return {
        "structure": (prove_structure, shape, {}),
        "lipschitz": (prove_lipschitz, problem | region | bounds, {"multipliers?": record(dict.fromkeys(BOUNDS, multipliers))}),
        "guidance-limit": (prove_guidance_limit, limit, {"multipliers?": listof(multipliers, 2)}),
        "step": (prove_step, problem | step, form),
        "trajectory": (prove_trajectory, path, {"steps": listof(record(form), *many)}),
        "non-uniqueness": (prove_non_uniqueness, {**problem, "target": point, "balls": listof(record(ball), 2)},
                           {"balls": listof(record(form), 2)}),
        "witness": (prove_witness, problem | witness, {}),
        "no-solution": (prove_no_solution, {**problem, "target": point, "lower": point, "upper": point}, {}),
    }  # fmt: skip


NAMES = dict.fromkeys(("name", "weights_sha256", "program_sha256"), anything)
FIELDS = {"format": word(CERTIFICATE), "kind": anything, "model": record(NAMES), "precision": whole(64, 1024),
          "claim": anything, "proof": anything, "seal": anything}  # fmt: skip


def check_data(data: dict, model: str | Path | Model, limit_s: float = 600.0, fast: bool = False) -> Proved:
    """Like :func:`check`, for a certificate that is already read."""
    found = record(FIELDS)(data, "certificate")
    require(data["seal"] == digest({k: v for k, v in data.items() if k != "seal"}), "the seal does not fit the content")
    with ctx.workprec(found["precision"]):
        try:
            net = model if isinstance(model, Model) else Model(model, found["model"]["name"], fast=fast)
            require(net.fast is fast, "the model was loaded for another arithmetic")
            net.deadline = time.monotonic() + limit_s
            for key, what in (("name", "a model of another name"), ("weights_sha256", "other weights"),
                              ("program_sha256", "another program of layers")):  # fmt: skip
                require(found["model"][key] == getattr(net, key), f"the certificate is for {what}")
            table = kinds(net)
            prove, claim, proof = table[word(*table)(found["kind"], "kind")]
            read = record(claim)(data["claim"], "claim"), record(proof)(data["proof"], "proof")
            return Proved(found["kind"], net.name, *prove(net, *read), arithmetic=net.matrix.arithmetic)
        except CertificateError:
            raise
        except Exception as error:
            raise CertificateError(f"the check broke off: {type(error).__name__}: {str(error)[:80]}") from None


def check(path: str | Path, model: str | Path | Model, limit_s: float = 600.0, fast: bool = False) -> Proved:
    """Re-derives a certificate from the weights.

    Args:
      path: the certificate.
      model: a model card, the folder that holds it, or a loaded :class:`Model`.
      limit_s: seconds.
      fast: multiply matrices in float64 with proved error bounds (fast.py, which needs numpy), for larger networks.

    Raises:
      CertificateError: if anything is malformed, or the claim was not proved.
    """
    return check_data(load_json(load_bytes(Path(path), MAX_FILE), "certificate"), model, limit_s, fast)


def main(arguments: list[str] | None = None) -> int:
    """Checks files; returns 0 if every one was proved, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="fpjax.certify.check", description="Re-derive certificates from the weights.")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--model", required=True, metavar="CARD_OR_FOLDER")
    parser.add_argument("--limit", type=float, default=600.0, metavar="SECONDS", help="time for one file")
    parser.add_argument("--fast", action="store_true", help="multiply matrices in float64 with proved error bounds")
    options, failed = parser.parse_args(arguments), 0
    for file in options.files:
        try:
            proved = check(file, options.model, options.limit, options.fast)
            print(f"{file}: {proved.verdict} ({proved.arithmetic}): {proved.kind}, {proved.model}: {proved.statement}")
        except CertificateError as error:
            failed = 1
            print(f"{file}: REJECTED: {error}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
