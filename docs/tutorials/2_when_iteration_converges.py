# %% [markdown]
# # 2. When does iteration converge?
#
# Everybody iterates `y ← G(y)`. By Banach it arrives from everywhere if G shrinks distances, `κ = (1 − ρ)·sup‖I − J‖ < 1`, J the
# Jacobian of the denoiser. For symmetric J that is a **window** for its spectrum (T3):
#
# > `−ρ/(1 − ρ) < λ < (2 − ρ)/(1 − ρ)`.
#
# The lower edge is where uniqueness ends too (T2). The upper edge is about iteration only. Both can be seen.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

jax.config.update("jax_enable_x64", True)

import fpjax
from fpjax import step

BLUE, ORANGE = "#3b6fb6", "#c4622d"
two = fpjax.models.exact.empirical(np.array([[-1.0], [1.0]]))


def problem(den, sigma, rho, target):
    target = jnp.atleast_1d(jnp.asarray(target, jnp.float64))
    return step.Step(den.astype(jnp.float64), jnp.asarray(sigma), jnp.asarray(rho), target, jnp.int32(0))


def orbit(p, start, count):
    states = [jnp.atleast_1d(jnp.asarray(start, jnp.float64))]
    for _ in range(count):
        states.append(step.G(states[-1], p))
    return np.array(states)


# %% [markdown]
# ## Cobwebs
#
# Draw G, go up to the curve, across to the diagonal, and again. Left, the modes −1 and 1 are close for the noise: the
# cobweb winds inwards. Right, less noise: the slope at the fixed point is below −1, and it winds outwards into a two-cycle,
# though the fixed point is still there, and still the only one.

# %%
figure, panels = plt.subplots(1, 2, figsize=(8, 3.9), layout="constrained")
grid = jnp.linspace(-2, 2, 401)
ends = {}
for axes, sigma in zip(panels, (0.8, 0.45), strict=True):
    p = problem(two, sigma, 0.3, 0.1)
    axes.plot(grid, jax.vmap(lambda y, p=p: step.G(y[None], p)[0])(grid), color=BLUE)
    axes.plot(grid, grid, color="grey", linewidth=0.8)
    y = orbit(p, 1.2, 40)[:, 0]
    axes.plot(np.repeat(y, 2)[:-1], np.repeat(y, 2)[1:], color=ORANGE, linewidth=1)
    slope = float(jax.jacfwd(lambda y, p=p: step.G(y, p))(jnp.array([0.05]))[0, 0])
    axes.set(title=f"σ = {sigma}: slope {slope:.2f} near the solution", xlabel="y", ylabel="G(y)", ylim=(-2, 2))
    ends[sigma] = abs(float(y[-1] - y[-2]))
plt.show()
print({sigma: f"last move {move:.1e}" for sigma, move in ends.items()})
assert ends[0.8] < 1e-3 < 0.1 < ends[0.45]

# %% [markdown]
# ## The two edges of the window
#
# A linear denoiser `D(y) = λ·y` has J = λ. Sweep λ through the window: iteration arrives inside it and nowhere else. Below the
# lower edge F itself falls: m = ρ + (1 − ρ)λ < 0. Above the upper edge m is large, the problem is *easier*, and only plain
# iteration fails.

# %%
rho = 0.4
values = np.linspace(-1.5, 4, 221)
factor = (1 - rho) * abs(1 - values)
modulus = rho + (1 - rho) * values
low, high = -rho / (1 - rho), (2 - rho) / (1 - rho)
figure, axes = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
axes.axvspan(low, high, color="#dff2e6")
axes.plot(values, factor, color=ORANGE, label="κ: plain iteration arrives below 1")
axes.plot(values, modulus, color=BLUE, label="m: one solution above 0")
axes.axhline(1, color="grey", linewidth=0.8)
axes.axhline(0, color="grey", linewidth=0.8)
axes.set(xlabel="eigenvalue λ of J", title=f"T3's window for ρ = {rho}: ({low:.2f}, {high:.2f})", ylim=(-1, 3))
axes.legend(frameon=False, fontsize=9)
plt.show()
assert ((factor < 1) == ((values > low) & (values < high))).all()

# %% [markdown]
# ## Two dimensions: basins
#
# Three points in the plane. For each start: does plain iteration end at the solution? Near the edge of the window the answer
# depends on the start, and the basin has an intricate border. Relaxed iteration (T5) arrives from everywhere. The
# [playground](../playground.md) draws the same picture while you drag the points.

# %%
three = fpjax.models.exact.mixture(np.array([[-1.0, -0.6], [1.0, -0.6], [0.0, 1.1]]), 0.1)
p = problem(three, 0.38, 0.59, [0.66, -0.04])
n = 81
plane = jnp.stack(jnp.meshgrid(jnp.linspace(-2, 2, n), jnp.linspace(-2, 2, n)), -1).reshape(-1, 2)


@jax.jit
def residual_after(starts, omega, p):
    def move(y, _):
        return y + omega * (step.G(y, p) - y), None

    ends, _ = jax.lax.scan(move, starts, None, length=300)
    return jnp.linalg.norm(step.G(ends, p) - ends)


both = {omega: jax.vmap(residual_after, (0, None, None))(plane, omega, p).reshape(n, n) for omega in (1.0, 0.6)}
figure, panels = plt.subplots(1, 2, figsize=(8, 3.9), layout="constrained")
for axes, (omega, residual) in zip(panels, both.items(), strict=True):
    axes.imshow(residual < 1e-8, origin="lower", extent=(-2, 2, -2, 2), cmap="Blues", vmin=-0.3, vmax=1.4)
    axes.plot(*three.params["means"].T, "o", color=ORANGE)
    axes.set(title=f"ω = {omega}: {float((residual < 1e-8).mean()):.0%} of the starts arrive")
plt.show()
assert 0.05 < float((both[1.0] < 1e-8).mean()) < 0.95
assert bool((both[0.6] < 1e-8).all())

# %% [markdown]
# ## Exercises
#
# 1. For data ±1 and the solution 0 (`y_s = 0`), J(0) = 1/σ². At which σ does plain iteration stop arriving? Check both sides.
# 2. `e ← λ·e` with λ < 0 alternates. Which edge of the window makes iterates alternate, and which makes them run away?
# 3. A Jordan block shows that eigenvalues alone are not enough where J is not symmetric: J = I − [[.5, 10], [0, .5]], ρ = 0.
#    Compare the spectral radius of I − J with κ, and see what the first iterations do.

# %% [markdown]
# ## Solutions

# %%
# 1. (1 − ρ)(1/σ² − 1) = 1, so σ² = (1 − ρ)/(2 − ρ).
rho = 0.3
critical = np.sqrt((1 - rho) / (2 - rho))
below, above = (orbit(problem(two, s * critical, rho, 0.0), 0.01, 400)[-1, 0] for s in (0.98, 1.02))
print(f"critical sigma {critical:.4f}: just below ends at {below:.3f}, just above at {above:.1e}")
assert abs(below) > 0.05
assert abs(above) < 1e-4

# %%
# 2. Near a solution the error is multiplied by (1 − ρ)(1 − λ): below −1 at the upper edge, above 1 at the lower one.
rho = 0.4
multiplier = (1 - rho) * (1 - np.array([high + 0.1, low - 0.1]))
print("beyond the upper edge", multiplier[0], "(alternates); beyond the lower edge", multiplier[1], "(runs away)")
assert multiplier[0] < -1
assert multiplier[1] > 1

# %%
# 3. The error grows nearly tenfold before it falls: the radius says what happens in the end, κ what happens at once.
a = np.array([[0.5, 10.0], [0.0, 0.5]])
radius, kappa = max(abs(np.linalg.eigvals(a))), np.linalg.norm(a, 2)
sizes = [np.linalg.norm(np.linalg.matrix_power(a, k) @ [0.0, 1.0]) for k in range(12)]
print(f"radius {radius:.2f}, kappa {kappa:.2f}, errors {np.round(sizes, 2)}")
assert radius < 1 < kappa
assert max(sizes) > 9
assert sizes[-1] < 1
