"""Scheduler configurations of diffusers as noise processes: ``scheduler_config.json`` in, :class:`Process` out.

In this room: which of their fields make which noise levels, times and coefficients, what a network of that scheduler is
given and returns (:class:`Preconditioning`), and what cannot be a fixed-point equation with a theory and is refused by
name. Neither torch nor diffusers is imported. Tables are float64 unless asked to be rounded as diffusers rounds its own. Not
in this room: their arithmetic on tables of noise levels (schedules), networks (diffusers).
"""

import itertools
import math
from typing import Any

import numpy as np

from fpjax import samplers, schedules
from fpjax.evidence import FpjaxError
from fpjax.preconditioning import Preconditioning
from fpjax.process import PURE_NOISE, Process

VP = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
}
SHAPES = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
CLIPS = {"clip_sample": True, "thresholding": False}
DDIM = VP | CLIPS | {"set_alpha_to_one": True, "timestep_spacing": "leading"}
EULER = VP | SHAPES | {"timestep_spacing": "linspace", "sigma_min": None, "sigma_max": None}
MULTISTEP = (
    VP
    | SHAPES
    | {
        "timestep_spacing": "linspace",
        "solver_order": 2,
        "thresholding": False,
        "final_sigmas_type": "zero",
        "use_flow_sigmas": False,
        "flow_shift": 1.0,
        "use_dynamic_shifting": False,
        "lower_order_final": True,
    }
)
# What each scheduler assumes where its configuration is silent.
DEFAULTS: dict[str, dict[str, Any]] = {
    "DDIMScheduler": DDIM,
    "DDPMScheduler": DDIM,
    "DDIMInverseScheduler": DDIM,
    "EulerDiscreteScheduler": EULER
    | {"interpolation_type": "linear", "timestep_type": "discrete", "final_sigmas_type": "zero"},
    "HeunDiscreteScheduler": EULER | {"beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False},
    "EDMEulerScheduler": {
        "sigma_min": 0.002,
        "sigma_max": 80.0,
        "sigma_data": 0.5,
        "sigma_schedule": "karras",
        "prediction_type": "epsilon",
        "rho": 7.0,
        "final_sigmas_type": "zero",
    },
    "FlowMatchEulerDiscreteScheduler": SHAPES
    | {
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "use_dynamic_shifting": False,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
        "invert_sigmas": False,
        "shift_terminal": None,
        "time_shift_type": "exponential",
        "stochastic_sampling": False,
    },
    "DPMSolverMultistepScheduler": MULTISTEP
    | {
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "euler_at_final": False,
        "use_lu_lambdas": False,
        "lambda_min_clipped": -math.inf,
        "variance_type": None,
    },
    "UniPCMultistepScheduler": MULTISTEP | {"solver_type": "bh2", "predict_x0": True, "disable_corrector": []},
}
SCHEDULERS = tuple(DEFAULTS)
WHOLE = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")  # these tell the network whole times only
OPTIONS = ("mu", "image_seq_len", "sigmas")  # of FlowMatchEulerDiscreteScheduler, what its pipelines pass
TABLES = ("float64", "float32")
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v", "flow_prediction": "velocity"}
REFUSED = {
    "PNDMScheduler": "its Runge-Kutta and linear multistep phases are not mapped",
    "LMSDiscreteScheduler": "linear multistep steps in eps are not mapped",
    "DDPMParallelScheduler": "it adds noise at every step",
    "EulerAncestralDiscreteScheduler": "it adds noise at every step",
    "KDPM2AncestralDiscreteScheduler": "it adds noise at every step",
    "LCMScheduler": "it adds noise at every step",
    "DPMSolverSDEScheduler": "it adds noise at every step",
    "SASolverScheduler": "it adds noise at every step",
}


def from_config(config: dict, steps: int, **options) -> Process:
    """The process of a diffusers scheduler: its noise levels, times and steps, exactly, for ``steps`` inference steps.

    A DDPMScheduler is read as diffusers' ``DDIMScheduler.from_config`` reads it, and a DDIMInverseScheduler as the
    process that it approximately inverts. Steps that change nothing are left out, so the process may have fewer than
    ``steps``. The first level of a flow, and of a terminal abar of 0, is pure noise (:class:`Process`).

    Args:
      config: the contents of ``scheduler_config.json``, with ``_class_name`` one of :data:`SCHEDULERS`; what it does not
        say, or names in ``_use_default_values``, is diffusers' default, and what it says more is ignored.
      steps: diffusers' ``num_inference_steps``.
      options: entries that override the configuration's, ``_class_name`` among them; ``tables``, "float64" or "float32" for
        noise levels rounded where diffusers rounds its own; and for FlowMatchEulerDiscrete ``mu`` (or ``image_seq_len``,
        from which Flux and SD3 pipelines compute it) and ``sigmas``, which pipelines pass.

    Raises:
      FpjaxError: for a scheduler or setting that is not a smooth deterministic step, with its name and the reason.
    """
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise FpjaxError(f"steps must be a whole number, at least 1, got {steps!r}")
    c = _read(config, options)
    extra = {k: v for k, v in options.items() if k in OPTIONS and v is not None}
    if extra and c["_class_name"] != "FlowMatchEulerDiscreteScheduler":
        raise FpjaxError(f"{c['_class_name']} takes no {sorted(extra)[0]!r}; only FlowMatchEulerDiscreteScheduler does")
    return _MAKERS[c["_class_name"]](c, int(steps), **extra)


def prediction(config: dict, **options) -> str:
    """What the network returns: "eps", "x0", "v" or "velocity".

    "x0" for EDMEulerScheduler, whose D is its own c_skip·y + c_out·output; see :func:`preconditioning`.

    Raises:
      FpjaxError: as :func:`from_config`.
    """
    c = _read(config, options)
    name = c["_class_name"]
    if name == "FlowMatchEulerDiscreteScheduler":
        return "velocity"
    edm, flow = name == "EDMEulerScheduler", bool(c.get("use_flow_sigmas"))
    known = [p for p in PREDICTIONS if not (edm and p == "sample") and (flow or p != "flow_prediction")]
    if c["prediction_type"] not in known:
        raise FpjaxError(f"{name} has no prediction_type {c['prediction_type']!r} here; it has {', '.join(known)}")
    return "x0" if edm else PREDICTIONS[c["prediction_type"]]


def preconditioning(config: dict, process: Process | None = None, **options) -> Preconditioning:
    """What a network trained with this scheduler is given and returns, for every sigma (:class:`Preconditioning`).

    DPM-Solver++ and UniPC cut fractional times down to whole ones, which near whole times depends on rounding: with the
    ``process`` of :func:`from_config` the times at its levels are exactly those of diffusers.

    Raises:
      FpjaxError: as :func:`from_config`.
    """
    c = _read(config, options)
    name, predicts = c["_class_name"], prediction(config, **options)
    if name == "FlowMatchEulerDiscreteScheduler":
        return Preconditioning("rectified-flow", "velocity", time="flow", train_steps=c["num_train_timesteps"])
    if name == "EDMEulerScheduler":
        kind = "edm-v" if c["prediction_type"] == "v_prediction" else "edm"
        return Preconditioning("edm", kind, c["sigma_data"], time="log")
    if _continuous(c):
        return Preconditioning("edm", predicts, time="log")
    space = "rectified-flow" if c.get("use_flow_sigmas") else "ddim"
    if process is not None and name in WHOLE and (c["use_flow_sigmas"] or schedules.shaped(c) is not None):
        return Preconditioning(space, predicts, knots=(process.levels[1:], process.timesteps[1:], True))
    if c.get("use_flow_sigmas"):
        knots = _flow_knots(c["num_train_timesteps"])
        return Preconditioning("rectified-flow", predicts, knots=knots, rounding="floor")
    sigmas = schedules.table(c)
    finite = [s if math.isfinite(s) else PURE_NOISE for s in sigmas.tolist()]
    times = tuple(map(float, range(len(finite))))
    continuous = name in ("EulerDiscreteScheduler", "HeunDiscreteScheduler")
    knots = (tuple(finite), times, not continuous or schedules.shaped(c) is not None)
    return Preconditioning("ddim", predicts, knots=knots, rounding="none" if continuous else _rounding(c))


def network_time(config: dict, **options):
    """The time that the network is told at a noise level, as a pure function of sigma; see Preconditioning.c_noise.

    Raises:
      FpjaxError: as :func:`from_config`.
    """
    return preconditioning(config, **options).c_noise


def _flow_knots(train_steps: int):
    """sigma -> train_steps·t as knots dense enough to be exact where diffusers truncates to whole times."""
    t = np.arange(1, 16 * train_steps) / (16 * train_steps)
    return tuple((t / (1 - t)).tolist()), tuple((train_steps * t).tolist()), False


def _continuous(c: dict) -> bool:
    """Whether the network is told log(sigma)/4."""
    return c.get("timestep_type") == "continuous" and c["prediction_type"] == "v_prediction"


def _rounding(c: dict) -> str:
    shape = schedules.shaped(c)
    if c["_class_name"] not in WHOLE or shape is None:
        return "snap"
    whole = shape in ("karras", "lu") and c["beta_schedule"] != "squaredcos_cap_v2"
    return "nearest" if whole and c["_class_name"] == "DPMSolverMultistepScheduler" else "floor"


def _read(config: dict, options: dict) -> dict[str, Any]:
    """The configuration with diffusers' defaults, or the reason why it is refused."""
    if not isinstance(config, dict) or not isinstance(options.get("_class_name", config.get("_class_name")), str):
        raise FpjaxError("a scheduler configuration is a dict with '_class_name', as in scheduler_config.json")
    name = str(options.get("_class_name", config.get("_class_name"))).removeprefix("Flax")
    if name in REFUSED:
        raise FpjaxError(f"{name} is refused: {REFUSED[name]}; try _class_name='DDIMScheduler' on the same betas")
    if name not in DEFAULTS:
        raise FpjaxError(f"{name} is not mapped; fpjax knows {', '.join(SCHEDULERS)}")
    known = DEFAULTS[name]
    unknown = [k for k in options if k not in known and k not in OPTIONS and k not in ("_class_name", "eta", "tables")]
    if unknown:
        raise FpjaxError(f"{name} has no setting {unknown[0]!r}; it has {', '.join(known)}")
    tables = options.get("tables", "float64")
    if tables not in TABLES:
        raise FpjaxError(f"tables must be {' or '.join(TABLES)}, got {tables!r}")
    unsaid = config.get("_use_default_values") or ()  # of a scheduler in memory: the class that reads has its own
    said = {k: v for k, v in dict(config).items() if k not in unsaid} | options
    c = known | {k: v for k, v in said.items() if k in known} | {"_class_name": name, "tables": tables}
    reason = _reason(c, options.get("eta", 0.0))
    if reason:
        raise FpjaxError(f"{name} is refused: {reason}")
    return c


def _reason(c: dict, eta: float) -> str | None:
    """Why a configuration is not a smooth deterministic step of a known kind, or None."""
    unipc = c["_class_name"] == "UniPCMultistepScheduler"
    clip = "it clips D, which is then constant in places: J loses rank, and T2 its modulus"
    rules = [
        (eta != 0, "eta > 0 adds noise at every step, so no equation determines the state before it; use eta = 0"),
        (c.get("clip_sample"), f"clip_sample=True: {clip}; pass clip_sample=False to go without"),
        (c.get("thresholding"), f"thresholding=True: {clip}; pass thresholding=False to go without"),
        (c.get("stochastic_sampling"), "stochastic_sampling adds noise at every step"),
        (c.get("invert_sigmas"), "invert_sigmas=True runs from data to noise; its levels do not decrease"),
        (str(c.get("algorithm_type")).startswith("sde"), f"{c.get('algorithm_type')} adds noise at every step"),
        (c.get("variance_type"), "variance_type: the network returns a variance too; pass variance_type=None"),
        (
            c.get("interpolation_type") == "log_linear",
            "log_linear levels are not those of the times the network is told",
        ),
        (
            unipc and c["solver_type"] == "bh1" and c["final_sigmas_type"] == "zero",
            "solver_type 'bh1' has no step down to sigma = 0 (it is NaN in diffusers); use final_sigmas_type='sigma_min'",
        ),
        (
            unipc and (schedules.shaped(c) or c["use_flow_sigmas"]),
            "UniPC on sigmas other than its training times' is not mapped",
        ),
        (
            c.get("use_dynamic_shifting") and "flow_shift" in c,
            "use_dynamic_shifting here is not mapped; give flow_shift",
        ),
        (not c.get("predict_x0", True), "predict_x0=False steps in eps, which is not mapped"),
        (c.get("disable_corrector"), "disable_corrector on single steps is not mapped"),
        (c.get("solver_order", 1) not in (1, 2), f"solver_order {c.get('solver_order')} is not mapped; use 1 or 2"),
        (
            c.get("algorithm_type") == "dpmsolver" and c["solver_order"] != 1,
            "dpmsolver steps in eps; use algorithm_type='dpmsolver++' or solver_order=1",
        ),
    ]
    return next((text for broken, text in rules if broken), None)


def _settings(c: dict) -> tuple[tuple[str, object], ...]:
    return (("scheduler", c["_class_name"]), *((("tables", "float32"),) if schedules.single(c) else ()))


def _ddim(c: dict, steps: int) -> Process:
    """DDIM with eta = 0. Each step ends num_train_timesteps // steps below its own time, wherever the next one starts."""
    sigmas, train = schedules.table(c), c["num_train_timesteps"]
    starts = schedules.timesteps(c, steps)[::-1]
    final = 0.0 if c["set_alpha_to_one"] else float(sigmas[0])
    jump = train // steps
    ends = [float(sigmas[t - jump]) if t >= jump else final for t in starts]
    times = [float(t - jump) if t >= jump else 0.0 if final else -1.0 for t in starts]
    kept = [k for k, t in enumerate(starts) if sigmas[t] != ends[k]]
    if not kept:
        raise FpjaxError("with this spacing the only step is the identity; use more steps or another timestep_spacing")
    levels = [float(sigmas[starts[k]]) for k in kept] + [ends[kept[-1]]]
    told = [float(starts[k]) for k in kept] + [times[kept[-1]]]
    pure = math.isinf(levels[0])
    if pure and c["prediction_type"] == "epsilon":
        raise FpjaxError(f"{c['_class_name']} is refused: eps does not determine D at a terminal abar of 0")
    if pure:
        levels[0] = samplers.pure_noise_label(levels[1])
    rows = []
    for n, k in enumerate(kept):
        end = ends[k]
        row = samplers.first_order(end / levels[n], 1 - end / levels[n], levels[n])
        row = samplers.pure_noise(end, levels[0]) if pure and n == 0 else row
        read = end if n == len(kept) - 1 else levels[n + 1]  # the level at which diffusers reads the state again
        ratio = _vp_scale(end) / _vp_scale(read)
        rows.append(row._replace(a=ratio * row.a, b1=ratio * row.b1))
    chained = not pure and all(levels[n + 1] == ends[k] for n, k in enumerate(kept))
    return _process(c, "ddim", levels, told, () if chained else rows, pure)


def _vp_scale(sigma: float) -> float:
    return 1 / math.sqrt(1 + sigma**2)


def _process(c, kind, levels, times, rows=(), pure=False, sampler="euler") -> Process:
    """A process from decreasing levels and times, and rows in the order of the sampler."""
    table = tuple(tuple(map(float, row)) for row in rows)[::-1]
    levels, times = tuple(map(float, levels))[::-1], tuple(map(float, times))[::-1]
    return Process(kind, levels, times, _settings(c), sampler, table, pure)


def _distinct(levels, times):
    """Without the last level where it is the one before it, up to rounding: a step that changes nothing."""
    levels, times = list(map(float, levels)), list(map(float, times))
    if len(levels) > 1 and math.isclose(levels[-1], levels[-2], rel_tol=1e-12):
        levels, times = levels[:-1], times[:-1]
    if len(levels) < 2:
        raise FpjaxError("with these settings the only step is the identity; use more steps")
    return levels, times


def _euler(c: dict, steps: int) -> Process:
    sigmas, times = schedules.interpolated(c, steps)
    last = float(schedules.table(c)[0]) if c["final_sigmas_type"] == "sigma_min" else 0.0
    end = 0.0 if last else -1.0
    if _continuous(c):
        times, end = np.log(sigmas) / 4, math.log(last) / 4 if last else -1.0
    return _process(c, "edm", *_distinct([*sigmas, last], [*times, end]))


def _heun(c: dict, steps: int) -> Process:
    sigmas, times = schedules.interpolated(c, steps)
    return samplers.with_sampler(_process(c, "edm", [*sigmas, 0.0], [*times, -1.0]), "heun")


def _edm(c: dict, steps: int) -> Process:
    sigmas = schedules.edm(c, steps)
    last = float(sigmas[-1]) if c["final_sigmas_type"] == "sigma_min" else 0.0
    levels, _ = _distinct([*sigmas, last], [0.0] * (steps + 1))
    times = [math.log(s) / 4 if s else -1.0 for s in levels]
    return _process(c, "edm", levels, times)


def _flow(c: dict, steps: int, *, mu=None, image_seq_len=None, sigmas=None) -> Process:
    t = schedules.flow(c, steps, mu, image_seq_len, sigmas)
    if not (np.isfinite(t).all() and t[0] <= 1 + 1e-12 and (np.diff(t) < 0).all() and t[-1] > 0):
        raise FpjaxError("these settings give flow times that do not decrease from at most 1 to above 0")
    pure = math.isclose(t[0], 1, rel_tol=1e-12)
    t[0] = 1.0 if pure else t[0]
    with np.errstate(divide="ignore"):
        levels = [*(t / (1 - t)).tolist(), 0.0]
    times = [*(c["num_train_timesteps"] * t).tolist(), 0.0]
    if not pure:
        return _process(c, "rectified-flow", levels, times)
    levels[0] = samplers.pure_noise_label(levels[1])
    rows = [samplers.first_order(b / a, 1 - b / a, a) for a, b in itertools.pairwise(levels)]
    rows[0] = samplers.pure_noise(levels[1], levels[0])
    return _process(c, "rectified-flow", levels, times, rows, True)


def _multistep(c: dict, steps: int) -> Process:
    levels, times = schedules.multistep(c, steps)
    kind = "rectified-flow" if c["use_flow_sigmas"] else "ddim"
    last = float(schedules.table(c)[0]) if c["final_sigmas_type"] == "sigma_min" else 0.0
    whole = [*levels, last]
    grid, told = _distinct(whole, [*times, 0.0 if last else -1.0])
    process = _process(c, kind, grid, told)
    unipc = c["_class_name"] == "UniPCMultistepScheduler"
    if c["solver_order"] == 1 and not unipc:
        return process
    if len(grid) < len(whole):
        raise FpjaxError(f"{c['_class_name']} is refused: its last step repeats a level; use final_sigmas_type='zero'")
    if unipc:
        options = {
            "solver_type": "bh1" if c["solver_type"] == "bh1" else "bh2",  # as diffusers takes other names
            "lower_order_final": c["lower_order_final"],
            "order": c["solver_order"],
        }
        return samplers.with_sampler(process, "unipc", **options)
    lower = c["euler_at_final"] or (c["lower_order_final"] and steps < 15) or not last
    rule = c["solver_type"] if c["solver_type"] in ("midpoint", "heun") else "midpoint"
    return samplers.with_sampler(process, "dpm2m", solver_type=rule, last="first" if lower else "second")


_MAKERS = {
    "DDIMScheduler": _ddim,
    "DDPMScheduler": _ddim,
    "DDIMInverseScheduler": _ddim,
    "EulerDiscreteScheduler": _euler,
    "HeunDiscreteScheduler": _heun,
    "EDMEulerScheduler": _edm,
    "FlowMatchEulerDiscreteScheduler": _flow,
    "DPMSolverMultistepScheduler": _multistep,
    "UniPCMultistepScheduler": _multistep,
}
