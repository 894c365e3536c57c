# %% [markdown]
# # 5. Guidance breaks uniqueness
#
# Classifier-free guidance replaces the denoiser by `D_w = D_0 + w·(D_c − D_0)`. Each of D_0, D_c may be exact, and so
# invertible at every step; `D_w` with w > 1 is not an exact denoiser of anything, and its step may have **several**
# preimages. T11 says how much guidance is safe: with Λ ≥ ‖J_0‖,
#
# > inversion stays unique while `w < 1 + ρ/((1 − ρ)·Λ)`.

# %%
import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

jax.config.update("jax_enable_x64", True)

import fpjax
from fpjax import step

BLUE, ORANGE = "#3b6fb6", "#c4622d"
POINTS = np.array([[-1.0, -0.5], [1.0, -0.5], [0.0, 1.0], [0.0, -0.9]])
CHOSEN = np.array([True, True, False, False])  # the condition: the first two
SIGMA, RHO, TARGET = 0.61, 0.68, np.array([-0.52, -0.45])

free = fpjax.models.exact.mixture(POINTS, 0.18)
logits = np.stack([np.where(CHOSEN, 0.0, -np.inf), np.zeros(4)])  # a prior for the condition, and one without
den = dataclasses.replace(free, params=free.params | {"logits": logits}, conditions=("left or right",))


def problem(w):
    return step.Step(
        den.astype(jnp.float64), jnp.asarray(SIGMA), jnp.asarray(RHO), jnp.asarray(TARGET), jnp.int32(0), jnp.asarray(w)
    )


# %% [markdown]
# All solutions of a small problem can be found: Newton from many starts, duplicates dropped.


# %%
@jax.jit
def newton(start, p):
    def move(y, _):
        r = step.F(y, p) - p.target
        d = jnp.linalg.solve(jax.jacfwd(step.F)(y, p), r)
        sizes = 0.5 ** jnp.arange(10.0)
        trials = y - sizes[:, None] * d
        norms = jax.vmap(lambda t: jnp.linalg.norm(step.F(t, p) - p.target))(trials)
        return trials[jnp.argmin(norms)], None

    y, _ = jax.lax.scan(move, start, None, length=60)
    return y, jnp.linalg.norm(step.F(y, p) - p.target)


STARTS = jnp.stack(jnp.meshgrid(*2 * [jnp.linspace(-4, 4, 11)]), -1).reshape(-1, 2)


def solutions(w):
    ends, residuals = jax.vmap(newton, (0, None))(STARTS, problem(w))
    found = []
    for y in np.asarray(ends)[np.asarray(residuals) < 1e-11]:
        if not any(np.linalg.norm(y - z) < 1e-6 for z in found):
            found.append(y)
    return np.array(sorted(found, key=tuple))


weights = [1.0, 1.5, 2.0, 2.5, 3.0, 3.4, 4.0]
found = {w: solutions(w) for w in weights}
print({w: len(ys) for w, ys in found.items()})
assert len(found[1.0]) == 1
assert len(found[3.4]) == 3

# %% [markdown]
# Where does uniqueness end? The limit of T11 is safe, and cautious: it knows only a bound on ‖J_0‖.

# %%
top = free.facts.lipschitz(SIGMA)
limit = 1 + RHO / ((1 - RHO) * top)
print(f"Lambda <= {top:.3f}, so w < {limit:.3f} is safe")
assert all(len(ys) == 1 for w, ys in found.items() if w < limit)


@jax.jit
def moduli(points, p):
    def one(y):
        f = jax.jacfwd(step.F)(y, p)
        return jnp.linalg.eigvalsh((f + f.T) / 2)[0]

    return jax.vmap(one)(points)


n = 81
plane = jnp.stack(jnp.meshgrid(*2 * [jnp.linspace(-3, 3, n)]), -1).reshape(-1, 2)
figure, panels = plt.subplots(1, 3, figsize=(10, 3.5), layout="constrained")
for axes, w in zip(panels, (1.0, 2.0, 3.4), strict=True):
    m = moduli(plane, problem(w)).reshape(n, n)
    axes.contourf(np.linspace(-3, 3, n), np.linspace(-3, 3, n), m < 0, levels=[0.5, 1.5], colors=[ORANGE], alpha=0.25)
    axes.plot(*POINTS[CHOSEN].T, "o", color=BLUE)
    axes.plot(*POINTS[~CHOSEN].T, "s", color=ORANGE)
    axes.plot(*found[w].T, "*", color="black", markersize=11)
    axes.plot(*TARGET, "+", color="black", markersize=10)
    axes.set(title=f"w = {w}: {len(found[w])} solution{'s' if len(found[w]) > 1 else ''}", xlim=(-3, 3), ylim=(-3, 3))
plt.show()

# %% [markdown]
# Shaded: F has a direction in which it falls (m < 0). Stars: preimages of the same target (+). An editing pipeline that inverts
# with w = 3.4 returns one of three latents, and which one depends on the solver.
#
# **The audit says so** for any model, by measuring:

# %%
images = np.random.default_rng(0).normal(size=(4, 2))
grid = fpjax.process.from_sigmas([RHO * SIGMA, SIGMA])
for w in (1.0, 3.4):
    report = fpjax.audit(den, grid, images=images, condition="left or right", guidance=w)
    rows = {row["question"]: row for row in report.table}
    print(f"w = {w}: uniqueness {rows['uniqueness']['verdict']}; {rows['uniqueness']['detail']}")
assert rows["uniqueness"]["verdict"] != "SUPPORTED"

# %% [markdown]
# ## Exercises
#
# 1. Check T11 where it is claimed: at 0.99 of the limit the modulus is positive at every point of the plane's grid.
# 2. Find the largest w, to 0.1, with one solution for this target. By which factor is T11's limit cautious here?
# 3. **Guide the prior instead of the score.** The exact denoiser of `p(x)·p(c|x)^w` is again a posterior mean, so m ≥ ρ
#    at every w. For a mixture it is the same network with other logits.
#    Build it for w = 4 with p(c|first two) = 0.9 and 0.1 for the others,
#    and count the solutions.

# %% [markdown]
# ## Solutions

# %%
# 1.
least = float(moduli(plane, problem(0.99 * limit)).min())
print(f"least modulus on the grid at w = {0.99 * limit:.3f}: {least:.3f}")
assert least > 0

# %%
# 2. The limit holds for every target; this one target may stand more.
unique = [w for w in np.arange(1.0, 3.45, 0.1) if len(solutions(w)) == 1]
print(
    f"one solution up to w = {max(unique):.2f}, {(max(unique) - 1) / (limit - 1):.1f} times the extra guidance of T11"
)
assert max(unique) > limit

# %%
# 3. Logits + w·log p(c | component): closed form, and unique at any w.
prior = np.zeros(4) + 4 * np.log(np.where(CHOSEN, 0.9, 0.1))
guided = dataclasses.replace(free, params=free.params | {"logits": prior[None]})
p = step.Step(guided.astype(jnp.float64), jnp.asarray(SIGMA), jnp.asarray(RHO), jnp.asarray(TARGET), jnp.int32(0))
ends, residuals = jax.vmap(newton, (0, None))(STARTS, p)
arrived = np.asarray(ends)[np.asarray(residuals) < 1e-11]
print("least modulus", float(moduli(plane, p).min()), "; spread of all ends", float(np.ptp(arrived, axis=0).max()))
assert float(moduli(plane, p).min()) >= RHO
assert np.ptp(arrived, axis=0).max() < 1e-8
