"""The audit measures what it says, where it says: every number of a small audit computed once more by hand."""

import dataclasses
import inspect
import types

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest

import fpjax
from fpjax import auditing, process, report
from fpjax.budget import PICARD_LIMIT
from fpjax.denoiser import Facts
from fpjax.evidence import Exit, FpjaxError
from fpjax.step import Step

SHAPE = (2,)
TABLES = np.asarray([[[0.9, 0.3], [-0.2, 0.5]], [[-2.5, 0.1], [0.4, 0.2]], [[0.6, 0.0], [0.2, 0.8]]])
CLEAN = np.asarray([[0.3, -0.4], [0.8, 0.1]])
CONDITION = np.asarray([0, 1])
GRID = process.from_sigmas([0.1, 0.4, 1.0])
SEED = 5


def bent(params, y, sigma, condition):
    return params[condition] @ jnp.tanh(y) / (1 + sigma)


WEIGHTS = (2.0, 3.0)  # two weights, one compiled program


@dataclasses.dataclass(frozen=True)
class Declared:
    """A bound Lambda that is not true: what is declared is believed (ASSUMED), and T11 makes a modulus of it."""

    def __call__(self, sigma):
        return 0.1


DEN = fpjax.Denoiser.from_function(
    bent, TABLES, SHAPE, conditions=("a", "b"), facts=Facts(monotone=True, lipschitz=Declared()), name="small network"
)


def denoised(y, sigma, c, w=1.0):
    conditional, null = (TABLES[k] @ np.tanh(y) / (1 + sigma) for k in (c, 2))
    return null + w * (conditional - null)


def jacobian(y, sigma, c, w=1.0):
    table = TABLES[2] + w * (TABLES[c] - TABLES[2])
    return table * (1 - np.tanh(y) ** 2) / (1 + sigma)


def test_the_documented_constants():
    assert inspect.signature(fpjax.audit).parameters["limit"].default == 400
    assert PICARD_LIMIT == 200
    assert auditing.SPECTRUM_TOL == 1e-6
    assert auditing.PAIR_SIZES == (1e-1, 1e-2, 1e-3, 1e-4)
    assert auditing._spectrum_tol(jnp.float64) == 1e-6
    assert auditing._spectrum_tol(jnp.float32) == 100 * 2.0**-23


BAD = {
    "at least one guidance": {"guidance": []},
    "unknown solver": {"solver": "guess"},
    "tol must be": {"tol": 0.0},
    "limit must be": {"limit": 0},
    "guidance must be": {"guidance": [1.0, -1.0]},
}


@pytest.mark.parametrize("sentence", sorted(BAD))
def test_bad_input_is_refused_before_anything_is_told(sentence):
    told = []
    with pytest.raises(FpjaxError, match=sentence):
        fpjax.audit(DEN, GRID, images=CLEAN, condition=CONDITION, progress=lambda *w: told.append(w), **BAD[sentence])
    assert not told


def test_a_structure_certificate_raises_its_questions_at_guidance_1():
    def made(question, guidance):
        row = {"question": question, "guidance": guidance, "rho": 0.25, "verdict": "SUPPORTED", "detail": "seen"}
        return row | {"theorem": "T1", "value": 3.0, "evidence": "SAMPLED"}

    table = [made("uniqueness", 1.0), made("uniqueness", 2.0), made("contraction", 1.0)]
    rep = auditing.Report("m", {}, [1.0], [dict(r) for r in table], [], [], {})
    auditing.apply_structure(rep, types.SimpleNamespace(questions={"uniqueness": "CERTIFIED"}), "c.json")
    raised = rep.table[0]
    assert (raised["verdict"], raised["evidence"], raised["theorem"]) == ("CERTIFIED", "ENCLOSED", "T2")
    assert raised["value"] == 0.25
    assert "c.json" in raised["detail"]
    assert "seen" in raised["detail"]
    assert rep.table[1:] == table[1:]


def step_at(i, w=None):
    x = types.SimpleNamespace(z=jnp.asarray(CLEAN), den=DEN, condition=jnp.asarray(CONDITION, jnp.int32), guidance=w)
    return auditing._step(x, GRID, i)


def test_a_step_without_target():
    p = step_at(1)
    assert (float(p.sigma), float(p.rho)) == (1.0, pytest.approx(0.4))
    assert p.target.shape == SHAPE
    assert not p.target.any()
    assert p.guidance is None


def turn(params, y, sigma, condition):
    return y - params * y * jnp.asarray([1.0, 0.5], y.dtype)


@pytest.mark.parametrize(("factor", "code", "iterations"), [(0.5, Exit.CONVERGED, 20), (0.999, Exit.STEP_LIMIT, 200)])
def test_plain_iteration_is_what_is_run(factor, code, iterations):
    """G(y) = target + factor·diag(1, 1/2)·y at rho = 0; from y = target the residual after k steps is factor^(k + 1)."""
    den = fpjax.Denoiser.from_function(turn, np.float64(factor), SHAPE)
    target = jnp.asarray([[1.0, 0.0], [0.25, 0.0]])
    p = Step(den, jnp.asarray(1.0), jnp.asarray(0.0), jnp.zeros(SHAPE), jnp.zeros(2, jnp.int32))
    run = auditing._picard(p, target, target, 0.5**21 * 1.0001)
    assert np.asarray(run.exit).tolist() == [code, code]
    assert int(run.iterations[0]) == iterations
    wanted = [iterations - 2, iterations][iterations == 200]
    assert int(run.iterations[1]) == wanted
    assert float(run.residual[0]) == pytest.approx(factor ** (iterations + 1), rel=1e-9)


def test_edges_forget_guidance():
    p = step_at(0, jnp.asarray(5.0))._replace(condition=jnp.zeros(6, jnp.int32))
    conditions = jnp.asarray([2, 0, 1, 1, 1, 1], jnp.int32)
    edges = auditing._edges(p, jnp.asarray(np.tile(CLEAN, (3, 1))), conditions, jax.random.key(0))
    for k, c in enumerate((2, 0)):
        j = jacobian(CLEAN[k], 0.4, c)
        values = np.linalg.eigvalsh((j + j.T) / 2)
        assert float(edges.low[k]) == pytest.approx(values[0], rel=1e-9)
        assert float(edges.high[k]) == pytest.approx(values[1], rel=1e-9)


def test_the_pair_is_the_worst_of_those_tried():
    """tanh flattens: the shortest pair is pushed apart most where I - J grows towards the point."""
    p = step_at(0, jnp.asarray(2.0))._replace(condition=jnp.asarray(np.tile(CONDITION, 3), jnp.int32))
    s, ratio, pair = auditing._look(p, jnp.asarray(np.tile(CLEAN, (3, 1))), jax.random.key(1))
    for k, c in enumerate(CONDITION):
        y, v = CLEAN[k], np.asarray(s.departure.right[k])
        others = [y + h * (np.linalg.norm(y) + 1) * v for h in auditing.PAIR_SIZES]
        image = [0.75 * (u - denoised(u, 0.4, c, 2.0)) for u in (y, *others)]
        ratios = [np.linalg.norm(g - image[0]) / np.linalg.norm(u - y) for g, u in zip(image[1:], others, strict=True)]
        assert float(ratio[k]) == pytest.approx(max(ratios), rel=1e-9)
        assert np.allclose(pair[k], others[int(np.argmax(ratios))], rtol=1e-12)
        away = np.eye(2) - jacobian(y, 0.4, c, 2.0)
        assert float(s.departure.value[k]) == pytest.approx(np.linalg.norm(away, 2), rel=1e-6)


def test_only_solved_images_count_for_the_error_of_solved_images():
    inv = fpjax.invert(DEN, CLEAN, GRID, condition=CONDITION, guidance=2.0, tol=1e-12, limit=400)
    codes = np.full((2, 2), Exit.CONVERGED)
    codes[0, 1] = Exit.STALLED
    bound = np.asarray([[9.0, 1.0], [9.0, 2.0]])
    doctored = dataclasses.replace(inv, exit=codes, error_bound=bound)
    trip = auditing._round_trip(1.0, CLEAN, CLEAN + np.asarray([[3.0, 4.0], [0.5, 0.25]]), doctored)
    assert (trip["solved"], trip["max_error_solved"], trip["max_error"]) == (1, 0.5, 4.0)
    assert trip["latent_error_bound"] == 2.0
    codes[1, 1] = Exit.STALLED
    assert auditing._round_trip(1.0, CLEAN, CLEAN, doctored)["max_error_solved"] is None


def test_states_that_are_not_finite_are_replaced():
    """Points of a trajectory that broke: the step's start falls back to the image, its end to the step's start."""
    inv = fpjax.invert(DEN, CLEAN, GRID, condition=CONDITION, guidance=2.0, tol=1e-12, limit=400)
    path = np.array(inv.path)
    path[0, 1:] = np.nan
    broken, e1 = dataclasses.replace(inv, path=path), auditing._Seen(None, None, None)
    measured = auditing._measure(step_at(1, jnp.asarray(2.0)), broken, 1, jax.random.key(0), 1e-12, e1)
    points = np.asarray(measured.y)
    assert np.array_equal(points[:2], [path[0, 0], path[1, 1]])
    assert np.array_equal(points[2:4], [path[0, 0], path[1, 2]])
    assert measured.image.tolist() == [0, 1, 0, 1, 0, 1]
    assert np.isfinite(points).all()
    first = auditing._measure(step_at(0, jnp.asarray(2.0)), broken, 0, jax.random.key(0), 1e-12, e1)
    assert np.array_equal(np.asarray(first.y)[2:4], [path[0, 0], path[1, 1]])


# --- a whole audit --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def rep(told):
    return fpjax.audit(
        DEN,
        GRID,
        images=CLEAN,
        condition=CONDITION,
        guidance=WEIGHTS,
        seed=SEED,
        histories=(),
        progress=lambda *what: told.append(what),
    )


def looked_at(w, i):
    """The points of step i: where it started, where it ended, the clean image with fresh noise."""
    inv = fpjax.invert(DEN, CLEAN, GRID, condition=CONDITION, guidance=w, tol=1e-12, limit=400)
    path = np.asarray(inv.path)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(SEED), i), 0)
    noise = np.asarray(jax.random.normal(key, CLEAN.shape))
    return inv, np.concatenate([path[:, i], path[:, i + 1], path[:, 0] + GRID.sigmas[i + 1] * noise])


def row(rep, question, w, i):
    (found,) = [r for r in rep.table if (r["question"], r["guidance"], r["step"]) == (question, w, i + 1)]
    return found


@pytest.mark.parametrize("w", WEIGHTS)
@pytest.mark.parametrize("i", [0, 1])
def test_rows_are_the_numbers_of_their_points(rep, w, i):
    inv, points = looked_at(w, i)
    sigma, rho, c = GRID.sigmas[i + 1], GRID.rho[i], np.tile(CONDITION, 3)
    jacobians = np.stack([jacobian(y, sigma, k, w) for y, k in zip(points, c, strict=True)])
    low = np.linalg.eigvalsh((jacobians + np.swapaxes(jacobians, 1, 2)) / 2)[:, 0]
    kappa = (1 - rho) * np.linalg.norm(np.eye(2) - jacobians, ord=2, axis=(1, 2))
    uniqueness, contraction = row(rep, "uniqueness", w, i), row(rep, "contraction", w, i)
    assert uniqueness["value"] == pytest.approx((rho + (1 - rho) * low).min(), rel=1e-9)
    assert f"{len(points)} points" in contraction["detail"] + uniqueness["detail"]
    if contraction["verdict"] == "REFUTED":
        witness = contraction["witness"]
        a, b = np.asarray(witness["a"]), np.asarray(witness["b"])
        k = CONDITION[witness["image"]]
        moved = (1 - rho) * (a - denoised(a, sigma, k, w) - b + denoised(b, sigma, k, w))
        assert np.linalg.norm(moved) / np.linalg.norm(a - b) == pytest.approx(witness["ratio"], rel=1e-9)
        lengths = np.linalg.norm(a - b) / (1 + np.linalg.norm(a)) / np.asarray(auditing.PAIR_SIZES)
        assert np.isclose(lengths, 1, rtol=1e-9).any()
        assert contraction["value"] == pytest.approx(max(kappa.max(), witness["ratio"]), rel=1e-9)
    else:
        assert contraction["value"] == pytest.approx(kappa.max(), rel=1e-6)
    assert row(rep, "existence", w, i)["value"] == pytest.approx(float(inv.residual[:, i].max()), abs=1e-13)
    error = row(rep, "error", w, i)
    assert error["evidence"] == "ASSUMED"
    modulus = rho - (1 - rho) * (w - 1) * 0.1  # T11
    assert error["value"] == pytest.approx(float(inv.residual[:, i].max()) / modulus, abs=1e-13)
    null = np.stack([jacobian(y, sigma, 2) for y in points])
    top = np.linalg.eigvalsh((null + np.swapaxes(null, 1, 2)) / 2)[:, -1].max()
    limit = row(rep, "guidance-limit", w, i)
    conditional = np.stack([jacobian(y, sigma, k) for y, k in zip(points, c, strict=True)])
    lowest = np.linalg.eigvalsh((conditional + np.swapaxes(conditional, 1, 2)) / 2)[:, 0].min()
    assert limit["witness"]["eigenvalue"] == pytest.approx(lowest, rel=1e-6)
    assert top > 0
    assert limit["value"] is None


def test_a_report_saves_itself(rep, tmp_path):
    assert rep.save(tmp_path).exists()


def test_every_row_has_its_place(rep):
    assert [(r["guidance"], r["step"]) for r in rep.table] == [
        (w, i) for w in WEIGHTS for i in (1, 2) for _ in range(6)
    ]
    for r in rep.table:
        assert (r["sigma_from"], r["sigma_to"]) == GRID.pairs[r["step"] - 1]


def test_progress_counts_to_the_end(rep, told):
    lines = [f"guidance {w:g}: {what}" for w in WEIGHTS for what in ("inverting", "step 1 of 2", "step 2 of 2")]
    assert told == [(n, 6, what) for n, what in enumerate([*lines, "done"])]


def test_the_report_says_what_was_asked(rep):
    assert rep.settings == {
        "images": 2,
        "points": 6,
        "precision": "float64",
        "solver": "auto",
        "tol": 1e-12,
        "picard_limit": PICARD_LIMIT,
        "lanczos": 256,
        "seed": SEED,
    }
    assert rep.model == "small network"
    assert rep.process == GRID.describe()
    assert rep.guidance == list(WEIGHTS)
    data = rep.to_json()
    jsonschema.validate(data, report.schema())
    assert data["format"] == "fpjax-audit/1"
    for key in ("model", "process", "guidance", "settings", "round_trip"):
        assert data[key] == getattr(rep, key), key
    assert data["rows"] == rep.table
    assert rep.verdicts("existence") == [r["verdict"] for r in rep.table if r["question"] == "existence"]
    assert rep.verdicts("existence", 3.0) == rep.verdicts("existence")[2:]


def test_round_trips_are_those_of_the_trajectory(rep):
    for w, trip, images in zip(WEIGHTS, rep.round_trip, rep.images, strict=True):
        inv = fpjax.invert(DEN, CLEAN, GRID, condition=CONDITION, guidance=w, tol=1e-12, limit=400)
        again = np.asarray(fpjax.generate(DEN, inv.latent, GRID, condition=CONDITION, guidance=w))
        assert trip["guidance"] == w
        assert trip["images"] == 2
        assert trip["solved"] == int(inv.solved[:, -1].sum())
        assert trip["max_error"] == pytest.approx(np.abs(again - CLEAN).max(), abs=1e-15)
        assert trip["evaluations"] == np.asarray(inv.evaluations).sum() / 2
        bound = np.asarray(inv.error_bound)[:, -1].max()
        assert trip["latent_error_bound"] == pytest.approx(bound, rel=1e-12)
        assert np.array_equal(images["source"], CLEAN)
        assert np.allclose(images["latent"], inv.latent, rtol=1e-12)
        assert np.allclose(images["again"], again, rtol=1e-12)


def test_solver_and_limit_are_those_of_the_inversion():
    asked = {"solver": "picard", "tol": 1e-12, "limit": 3}
    rep = fpjax.audit(DEN, GRID, images=CLEAN, condition=CONDITION, histories=(), **asked)
    inv = fpjax.invert(DEN, CLEAN, GRID, condition=CONDITION, **asked)
    assert not inv.solved.any()
    assert rep.settings["solver"] == "picard"
    assert rep.round_trip[0]["solved"] == 0
    assert rep.round_trip[0]["evaluations"] == np.asarray(inv.evaluations).sum() / 2
    assert np.array_equal(rep.images[0]["latent"], np.asarray(inv.latent))


def test_a_round_trip_is_judged_at_its_last_step():
    """Three steps, two images: the last column decides, calls are summed over steps and averaged over images."""
    inversion = types.SimpleNamespace(
        solved=np.asarray([[True, False, True], [True, False, True]]),
        error_bound=np.asarray([[1.0, 7.0, 0.25], [2.0, 8.0, 0.5]]),
        evaluations=np.asarray([[1, 2, 3], [10, 20, 30]]),
    )
    again = CLEAN + np.asarray([[0.0, 0.5], [-0.125, 0.0]])
    assert auditing._round_trip(1.0, CLEAN, again, inversion) == {
        "guidance": 1.0,
        "images": 2,
        "solved": 2,
        "max_error_solved": 0.5,
        "max_error": 0.5,
        "latent_error_bound": 0.5,
        "evaluations": 33.0,
    }
