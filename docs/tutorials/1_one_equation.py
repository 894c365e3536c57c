# %% [markdown]
# # 1. One equation
#
# Everything that fpjax does is about one equation. A diffusion model's denoiser `D(y, σ)` guesses the clean image behind
# `y = clean + σ·noise`. One deterministic step from noise level `σ_t` down to `σ_s`, whether DDIM, EDM's Euler step or that of a
# rectified flow, is
#
# > `F(y) = ρ·y + (1 − ρ)·D(y, σ_t)` with `ρ = σ_s/σ_t` (E1).
#
# Generating applies F. **Inverting solves `F(y) = y_s` for y** (E2). Here the data are the two numbers −1 and 1, so that all
# of it can be drawn.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

jax.config.update("jax_enable_x64", True)

import fpjax
from fpjax import solve, step

den = fpjax.models.exact.empirical(np.array([[-1.0], [1.0]]))
den(jnp.array([0.4]), 0.8), jnp.tanh(0.4 / 0.8**2)  # this denoiser is tanh(y/σ²)

# %% [markdown]
# The step's map F, a target, and where they meet. F rises everywhere, with slope at least ρ: so it meets every target, once.

# %%
sigma, rho, target = 0.8, 0.3, 0.25
p = step.Step(den.astype(jnp.float64), jnp.asarray(sigma), jnp.asarray(rho), jnp.array([target]), jnp.int32(0))
grid = jnp.linspace(-2.5, 2.5, 401)


def curve(function, p):
    return jax.vmap(lambda y: function(y[None], p)[0])(grid)


figure, axes = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
axes.plot(grid, curve(step.F, p), color="#3b6fb6", label="F(y)")
axes.plot(grid, rho * grid, "--", color="grey", linewidth=1, label="ρ·y")
axes.axhline(target, color="#c4622d", label="y_s")
axes.set(xlabel="y", title=f"σ = {sigma}, ρ = {rho}")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# Solving it is one call. The answer carries an exit code, a residual that belongs to the returned point, and what the residual
# implies for the error: with the modulus `m = ρ` (T2, E3), the error is at most residual/m (T8).

# %%
answer = solve.solve(step.G, p.target, p, tol=1e-12, modulus=rho)
print("solution ", answer.y)
print("exit     ", fpjax.Exit(int(answer.exit)).name)
print("residual ", float(answer.residual), " error at most", float(answer.error))
assert abs(step.F(answer.y, p) - p.target).max() < 1e-12

# %% [markdown]
# For a whole trajectory of steps, over a batch of images, the call is `fpjax.invert`; its levels come from a *process*.

# %%
process = fpjax.process.from_sigmas([0.02, 0.1, 0.3, 0.8, 2.0])
inversion = fpjax.invert(den, np.array([[0.9], [-0.3]]), process, tol=1e-12)
again = fpjax.generate(den, inversion.latent, process)
print("latents", inversion.latent.ravel(), "come back as", again.ravel())
assert inversion.solved.all()
np.testing.assert_allclose(again.ravel(), [0.9, -0.3], atol=1e-9)

# %% [markdown]
# ## Exercises
#
# 1. The map people iterate is `G(y) = y_s + (1 − ρ)·(y − D(y))`. Show that `G(y) − y = y_s − F(y)`, on the grid.
# 2. Find the solution without fpjax: bisection needs only that F rises.
# 3. How much farther apart are the latents of two images than the images? Predict it from the levels (T9), then measure.

# %% [markdown]
# ## Solutions

# %%
# 1. Both sides, everywhere.
np.testing.assert_allclose(curve(step.G, p) - grid, target - curve(step.F, p), atol=1e-14)

# %%
# 2. Bisection.
low, high = -10.0, 10.0
for _ in range(60):
    middle = (low + high) / 2
    value = rho * middle + (1 - rho) * np.tanh(middle / sigma**2)
    low, high = (middle, high) if value < target else (low, middle)
print(low, "against", float(answer.y[0]))
assert abs(low - float(answer.y[0])) < 1e-11

# %%
# 3. Each step stretches by at most 1/ρ, together sigma_T/sigma_0: here 100.
limit = process.sigmas[-1] / process.sigmas[0]
pairs = fpjax.invert(den, np.array([[0.9], [0.9 + 1e-6]]), process, tol=1e-12)
stretch = abs(pairs.latent[1, 0] - pairs.latent[0, 0]) / 1e-6
print(f"stretched {float(stretch):.3f} times, at most {limit:.0f}")
assert 1 < stretch <= limit * (1 + 1e-6)
