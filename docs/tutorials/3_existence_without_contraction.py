# %% [markdown]
# # 3. Existence without contraction
#
# Three questions, and three different assumptions: a solution **exists** if F is coercive (T1); it is **unique** if F is strongly
# monotone (T2); plain iteration **finds** it if G contracts (T3). The literature answers all three with the third, and so
# concludes too little. Here is a step of Stable Diffusion's own schedule where the first two hold and the third fails.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

jax.config.update("jax_enable_x64", True)

import fpjax
from fpjax import process, solve, step

BLUE, ORANGE = "#3b6fb6", "#c4622d"
abar = process.alphas_bar("scaled_linear", beta_start=8.5e-4, beta_end=1.2e-2)
sigma_s, sigma_t = (float(process.vp_sigma(abar[t])) for t in (0, 20))  # the first of 50 DDIM steps
den = fpjax.models.exact.empirical(np.array([[-1.0], [1.0]])).astype(jnp.float64)
rho = sigma_s / sigma_t
target = jnp.array([0.05 / np.sqrt(abar[0])])
p = step.Step(den, jnp.asarray(sigma_t), jnp.asarray(rho), target, jnp.int32(0))
slope = float(jax.jacfwd(step.G)(jnp.zeros(1), p)[0, 0])
print(
    f"sigma {sigma_s:.4f} -> {sigma_t:.4f}, rho {rho:.3f}; slope of G at 0: {slope:.1f}, and contraction needs |slope| < 1"
)
assert abs(slope + 40.6) < 0.1

# %% [markdown]
# **T1**: D is bounded (it lies between −1 and 1) and ρ > 0, so a solution exists, by Brouwer: no constant is needed.
# **T2**: J is a variance over σ² (E3), hence at least 0, so m ≥ ρ > 0 and there is one solution.
# **T3**: κ is about 40. Plain iteration does not arrive. A relaxed iteration does (T5), and so does everything built on it.

# %%
runs = {
    name: solve.solve(step.G, target, p, solver=name, limit=200, tol=1e-12, modulus=rho)
    for name in ("picard", "relaxed", "auto")
}
for name, run in runs.items():
    print(
        f"{name:8} {fpjax.Exit(int(run.exit)).name:22} residual {float(run.residual):.1e}  evaluations {int(run.evaluations)}"
    )
assert float(runs["picard"].residual) > 0.5
assert float(runs["relaxed"].residual) < 1e-9
assert float(runs["auto"].residual) < 1e-9


# %%
def residuals(omega, count=200):
    y, out = target, []
    for _ in range(count):
        r = step.G(y, p) - y
        out.append(float(jnp.linalg.norm(r)))
        y = y + omega * r
    return out


top = float(1 / sigma_t**2)  # J(0), the largest slope of this denoiser
best = 2 / (2 * rho + (1 - rho) * top)
figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
axes.semilogy(residuals(1.0), color=ORANGE, label="ω = 1, plain iteration")
axes.semilogy(residuals(best), color=BLUE, label=f"ω = {best:.3f} (T6)")
axes.set(xlabel="iteration", ylabel="residual", title="one solution, two iterations")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## At every step size
#
# For an exact denoiser m ≥ ρ whatever the step. So an ideal inversion is well posed with 1000 steps, or with 2; what changes is
# how hard it is. Two steps, three images that are nothing like the data:

# %%
two_steps = process.ddim(steps=2)
images = np.array([[0.3], [-0.8], [1.4]])
inversion = fpjax.invert(den, images, two_steps, tol=1e-10)
again = fpjax.generate(den, inversion.latent, two_steps)
print("rho", two_steps.rho, "round trip", np.asarray(again).ravel())
assert inversion.solved.all()
np.testing.assert_allclose(again, images, atol=1e-6)

# %% [markdown]
# ## Exercises
#
# 1. T6 says that ω = 2/(2ρ + (1 − ρ)Λ) contracts with q = (1 − ρ)Λ/(2ρ + (1 − ρ)Λ), Λ a bound on J. Check that no residual in the
#    blue curve is above `first·qᵏ`.
# 2. The paper assumes that J = k·σ·(something) with 0 < k < 1 (T4). Compute k(0) = √ᾱ/(1 − ᾱ)·Var at t = 20.
# 3. What goes wrong if the last level is σ = 0 (T10)? Ask for the preimage of 1.4 there.

# %% [markdown]
# ## Solutions

# %%
# 1. The factor is close to 1 here (the problem is ill-conditioned), but it is below 1 and it holds.
q = (1 - rho) * top / (2 * rho + (1 - rho) * top)
seen = np.array(residuals(best))
print(f"q = {q:.4f}, residual after 200 iterations {seen[-1]:.1e}")
assert q < 1
assert (seen <= seen[0] * q ** np.arange(200) * (1 + 1e-9) + 1e-12).all()

# %%
# 2. The variance of ±1 seen from 0 is 1.
k = float(np.sqrt(abar[20]) / (1 - abar[20]))
print(f"k(0) = {k:.1f}, where the paper's factor needs k < 1")
assert 50 < k < 56

# %%
# 3. With sigma_s = 0 the step is D itself, which never leaves [−1, 1]: there is nothing to find, and the exit code says so.
cut = process.from_sigmas([0.0, sigma_t])
nothing = fpjax.invert(den, np.array([[1.4]]), cut, limit=200)
print("exit", fpjax.Exit(int(nothing.exit[0, 0])).name, "residual", float(nothing.residual[0, 0]))
assert not nothing.solved.any()
assert float(nothing.residual[0, 0]) > 0.39
