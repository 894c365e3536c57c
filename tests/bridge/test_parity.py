"""Parity with diffusers' own schedulers: the same trajectories from the same network, over hundreds of configurations.

diffusers keeps its tables (and, for sigma-based schedulers, its states) in float32, whatever the dtype of the samples. For
the float64 comparison its modules therefore run with ``torch.float32`` and ``np.float32`` read as float64: its own code, its
own order of operations, in double precision. The float32 comparison is of float32 states with the same tables, and then twice
with diffusers untouched: once with our tables rounded as its own are (``tables="float32"``), and once with exact ones, where the
rounding of theirs shows: where abar nearly vanishes (squared cosine, zero terminal SNR), and where a time is cut down to a
whole one and rounding makes it another.

The network is closed form, evaluated by torch there and by JAX here: what is compared is schedules, times and steps.
"""

import contextlib
import importlib
import itertools
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import fpjax
from fpjax import schedulers
from fpjax.process import PURE_NOISE

SHAPE, COUNT = (2, 3), 20
MODULES = {
    "DDIMScheduler": "scheduling_ddim",
    "DDIMInverseScheduler": "scheduling_ddim_inverse",
    "EulerDiscreteScheduler": "scheduling_euler_discrete",
    "HeunDiscreteScheduler": "scheduling_heun_discrete",
    "EDMEulerScheduler": "scheduling_edm_euler",
    "FlowMatchEulerDiscreteScheduler": "scheduling_flow_match_euler_discrete",
    "DPMSolverMultistepScheduler": "scheduling_dpmsolver_multistep",
    "UniPCMultistepScheduler": "scheduling_unipc_multistep",
}
BETAS = {
    "linear": {"beta_schedule": "linear"},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "squaredcos": {"beta_schedule": "squaredcos_cap_v2"},
    "trained": {"trained_betas": np.geomspace(1e-4, 0.03, 600).tolist(), "num_train_timesteps": 600},
    "zero snr": {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True},
}
SPACINGS = ("leading", "trailing", "linspace")
SHAPES = ("", "karras", "exponential", "beta")


class _Double:
    """A module whose float32 is float64."""

    def __init__(self, module, double):
        self._module, self.float32 = module, double

    def __getattr__(self, name):
        return getattr(self._module, name)


@contextlib.contextmanager
def precision(name: str, tables: str):
    """diffusers' module of that scheduler, its tables in double precision where asked."""
    module = importlib.import_module(f"diffusers.schedulers.{MODULES[name]}")
    if tables == "float32":
        yield module
        return
    before = module.torch, module.np if hasattr(module, "np") else None
    module.torch = _Double(torch, torch.float64)
    if before[1] is not None:
        module.np = _Double(np, np.float64)
    torch.set_default_dtype(torch.float64)
    try:
        yield module
    finally:
        torch.set_default_dtype(torch.float32)
        module.torch = before[0]
        if before[1] is not None:
            module.np = before[1]


def shape(kind: str) -> dict:
    return {f"use_{kind}_sigmas": True} if kind else {}


def configurations() -> list[tuple[str, int, dict, dict]]:
    """(name, steps, config, options) of every configuration compared."""
    steps, found = itertools.cycle((10, 20, 30)), []
    predictions = itertools.cycle(("epsilon", "v_prediction", "sample"))

    def add(name, *parts, n=None, options=None, predict=None):
        config = {k: v for part in parts for k, v in part.items()}
        if name != "FlowMatchEulerDiscreteScheduler":
            config["prediction_type"] = predict or next(predictions)
        found.append((name, n or next(steps), config, options or {}))

    plain = {"clip_sample": False}
    for betas, spacing, one, offset in itertools.product(BETAS.values(), SPACINGS, (True, False), (0, 1)):
        grid = {"timestep_spacing": spacing, "set_alpha_to_one": one, "steps_offset": offset}
        for predict in ("epsilon", "v_prediction", "sample"):
            if "rescale_betas_zero_snr" in betas and spacing != "leading" and predict == "epsilon":
                continue  # refused: tested below
            add("DDIMScheduler", plain, betas, grid, predict=predict)
    for betas, spacing, kind, final in itertools.product(BETAS.values(), SPACINGS, SHAPES, ("zero", "sigma_min")):
        grid = {"timestep_spacing": spacing, "final_sigmas_type": final, "steps_offset": 0}
        add("EulerDiscreteScheduler", betas, grid, shape(kind))
    add("EulerDiscreteScheduler", {"timestep_type": "continuous", "use_karras_sigmas": True}, predict="v_prediction")
    for kind, final, predict, data in itertools.product(
        ("karras", "exponential"), ("zero", "sigma_min"), ("epsilon", "v_prediction"), (0.5, 1.0)
    ):
        add(
            "EDMEulerScheduler",
            {"sigma_schedule": kind, "final_sigmas_type": final, "sigma_data": data},
            predict=predict,
        )
    for shift, kind, terminal in itertools.product((1.0, 3.0), SHAPES, (None, 0.1)):
        add("FlowMatchEulerDiscreteScheduler", {"shift": shift, "shift_terminal": terminal}, shape(kind))
    for rule, options in itertools.product(
        ("exponential", "linear"), ({"mu": 1.15}, {"mu": 0.6, "sigmas": np.linspace(1, 0.1, 10).tolist()})
    ):
        config = {"use_dynamic_shifting": True, "time_shift_type": rule, "shift": 3.0}
        add("FlowMatchEulerDiscreteScheduler", config, n=10, options=options)
    for betas, spacing, order, kind in itertools.product(
        BETAS.values(), SPACINGS, (1, 2), ("", "karras", "lu", "beta")
    ):
        grid = {"timestep_spacing": spacing, "solver_order": order}
        extra = {"use_lu_lambdas": True} if kind == "lu" else shape(kind)
        add("DPMSolverMultistepScheduler", betas, grid, extra)
    for order, rule, lower, euler in itertools.product((1, 2), ("midpoint", "heun"), (True, False), (True, False)):
        grid = {"solver_order": order, "solver_type": rule, "lower_order_final": lower, "euler_at_final": euler}
        add("DPMSolverMultistepScheduler", grid, {"final_sigmas_type": "sigma_min"})
    for shift, order in itertools.product((1.0, 3.0), (1, 2)):
        grid = {"use_flow_sigmas": True, "flow_shift": shift, "solver_order": order}
        add("DPMSolverMultistepScheduler", grid, predict="flow_prediction")
    add("DPMSolverMultistepScheduler", BETAS["squaredcos"], {"lambda_min_clipped": -5.1})
    add(
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver", "solver_order": 1, "final_sigmas_type": "sigma_min"},
    )
    for betas, spacing, kind in itertools.product(list(BETAS.values())[:4], SPACINGS, SHAPES[:3]):
        add("HeunDiscreteScheduler", betas, {"timestep_spacing": spacing}, shape(kind))
    for betas, rule, order in itertools.product(list(BETAS.values())[:4], ("bh1", "bh2"), (1, 2)):
        final = {"final_sigmas_type": "sigma_min" if rule == "bh1" else "zero"}
        add("UniPCMultistepScheduler", betas, final, {"solver_type": rule, "solver_order": order})
    add("UniPCMultistepScheduler", {"final_sigmas_type": "sigma_min", "lower_order_final": False})
    return found


CONFIGURATIONS = configurations()


def tell(number: int) -> str:
    name, steps, config, options = CONFIGURATIONS[number]
    short = {k: v for k, v in config.items() if k != "trained_betas"}
    return f"configuration {number}: {name}, {steps} steps, {short}, {options}"


def network(lib, z, t):
    """A closed-form network: neither linear nor constant in z or t."""
    return 0.8 * lib.tanh(0.6 * z + lib.sin(0.02 * t + 0.3)) - 0.15 * z * lib.cos(0.013 * t)


class Told:
    """What the preconditioning says at the noise levels where a process evaluates D, for a function without constants."""

    def __init__(self, config: dict, process, dtype, options, tables="float64"):
        at = process.levels[1:]
        if process.table and process.sampler not in ("dpm2m", "unipc"):
            at = sorted({row[k] for row in process.table for k in (3, 7)})
        self.sigma = np.asarray([*at, *[4 * PURE_NOISE] * (70 - len(at))])
        p = schedulers.preconditioning(config, process, tables=tables)
        x = jnp.asarray(self.sigma)
        self.params = tuple(jnp.asarray(a, dtype) for a in (x, p.c_in(x), p.c_noise(x), p.c_skip(x), p.c_out(x)))


def denoise(params, y, sigma, condition):
    sigmas, c_in, c_noise, c_skip, c_out = params
    i = jnp.argmin(jnp.abs(sigmas - sigma))
    return c_skip[i] * y + c_out[i] * network(jnp, c_in[i] * y, c_noise[i])


def theirs(name: str, steps: int, config: dict, options: dict, z, tables: str, stepping: str):
    """diffusers' trajectory from z, and the times that its network was told; its tables and its steps in a precision each."""
    with precision(name, tables) as module, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = getattr(module, name)(**config)
        scheduler.set_timesteps(steps, **options) if "sigmas" not in options else scheduler.set_timesteps(**options)
        if hasattr(scheduler, "set_begin_index"):  # as pipelines do: repeated times make it skip a step otherwise
            scheduler.set_begin_index(0)
    if stepping != tables:  # else the difference of two of its float32 sigmas is rounded again
        scheduler.sigmas = scheduler.sigmas.double()
    with precision(name, stepping):
        state, told = torch.tensor(z), []
        for t in scheduler.timesteps:
            sample = scheduler.scale_model_input(state, t) if hasattr(scheduler, "scale_model_input") else state
            told.append(float(t))
            time = t if name == "FlowMatchEulerDiscreteScheduler" else t.to(state.dtype)
            state = scheduler.step(network(torch, sample, time.to(state.dtype)), t, state).prev_sample
    return state.numpy(), told


def start(process, seed: int, dtype):
    """Noisy states in the process's own coordinates: of unit size, or of size sigma where z is y."""
    rng = np.random.default_rng(seed)
    size = process.levels[-1] if process.kind == "edm" else 1.0
    return (size * rng.normal(size=(COUNT, *SHAPE))).astype(dtype)


def compare(number: int, dtype: str, tables: str = "float64", ours: str = "float64", stepping: str = "") -> float:
    """The largest difference of final states, relative to 1 + their largest value.

    Args:
      dtype: of the states. tables: precision of diffusers' tables, and of its steps unless ``stepping`` says another one;
        "float32" is diffusers untouched. ours: precision of fpjax's tables.
    """
    name, steps, config, options = CONFIGURATIONS[number]
    config = config | {"_class_name": name}
    process = schedulers.from_config(config, steps, tables=ours, **options)
    den = fpjax.Denoiser.from_function(denoise, Told(config, process, dtype, options, ours).params, SHAPE)
    z = start(process, number, dtype)
    got = np.asarray(fpjax.generate(den, z, process))
    plain = {k: v for k, v in config.items() if k != "_class_name"}
    want, told = theirs(name, steps, plain, options, z.astype(stepping or dtype), tables, stepping or tables)
    if tables == ours:
        # How torch rounds its cumulative products in float32 depends on the processor; times near 0 show it most.
        loose = 1e-9 if ours == "float64" else 1e-4
        same = np.isclose(np.asarray(process.timesteps[1:])[:, None], np.asarray(told)[None], rtol=loose, atol=loose)
        assert same.any(axis=1).all(), tell(number)  # not the other way round: steps that change nothing are left out
    assert got.dtype == np.dtype(dtype)
    return float(np.max(np.abs(got - want)) / (1 + np.max(np.abs(want))))


def test_there_are_enough_configurations():
    kinds = {name for name, *_ in CONFIGURATIONS}
    assert len(CONFIGURATIONS) >= 300
    assert kinds >= set(MODULES) - {"DDIMInverseScheduler"}
    assert len({repr(c) for c in CONFIGURATIONS}) == len(CONFIGURATIONS)


@pytest.mark.parametrize(("dtype", "tol"), [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("name", [n for n in MODULES if n != "DDIMInverseScheduler"])
def test_trajectories_are_those_of_diffusers(name, dtype, tol):
    numbers = [i for i, c in enumerate(CONFIGURATIONS) if c[0] == name]
    errors = {i: compare(i, dtype) for i in numbers}
    worst = max(errors, key=lambda i: np.nan_to_num(errors[i], nan=np.inf))
    print(
        f"{name}, {dtype}: {len(numbers)} configurations x {COUNT} trajectories, largest difference {errors[worst]:.2e}"
    )
    assert errors[worst] <= tol, tell(worst)


def within(errors: dict[int, float], told: str) -> set[int]:
    """The configurations within 1e-5, after saying how many they are."""
    good = {i for i, e in errors.items() if e <= 1e-5}
    worst = max(errors, key=lambda i: np.nan_to_num(errors[i], nan=np.inf))
    print(f"{told}: {len(good)} of {len(errors)} within 1e-5; largest {errors[worst]:.2e}, {tell(worst)}")
    return good


def test_with_tables_rounded_alike_diffusers_untouched_agrees_in_float32():
    """tables="float32" against diffusers as it is installed: within 1e-5 but where its own float32 steps lose more.

    Euler's y + (y - D)/sigma·(sigma_s - sigma) cancels, and its states are of sigma's size: from 4096 (zero SNR) or more
    (squared cosine) down to data of size 1 that costs four digits. On the same float32 tables, but stepped in float64,
    diffusers is within 1e-5 there as well.
    """
    errors = {i: compare(i, "float32", "float32", "float32") for i in range(len(CONFIGURATIONS))}
    good = within(errors, "diffusers untouched, tables rounded alike")
    assert len(good) >= 510
    rest = set(errors) - good
    again = {i: compare(i, "float32", "float32", "float32", "float64") for i in rest}
    assert within(again, "the others, where diffusers steps in float64") == rest
    for i in rest:
        name, steps, config, options = CONFIGURATIONS[i]
        assert name == "EulerDiscreteScheduler", tell(i)
        assert schedulers.from_config(config | {"_class_name": name}, steps, **options).levels[-1] > 4000, tell(i)


def test_with_diffusers_untouched_only_the_rounding_of_its_tables_shows():
    """float32 tables and states: at least 300 configurations within 1e-5, and all where the tables are well conditioned."""
    errors = {i: compare(i, "float32", "float32") for i in range(len(CONFIGURATIONS))}
    good = within(errors, "diffusers untouched, our tables exact")
    assert len(good) >= 300
    assert max(errors.values()) < 5e-3
    for i in set(errors) - good:
        config = CONFIGURATIONS[i][2]
        shaped = any(
            config.get(f"use_{kind}") for kind in ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas")
        )
        cut = CONFIGURATIONS[i][0] in schedulers.WHOLE and shaped
        steep = config.get("beta_schedule") == "squaredcos_cap_v2" or config.get("rescale_betas_zero_snr")
        assert cut or steep or errors[i] < 3e-5, tell(i)
