# %% [markdown]
# # 4. A proof by computer in 15 minutes
#
# A residual of 1e-12 proves nothing: floats round, and a small residual may belong to no solution at all. A *certificate* does
# prove: it encloses every rounding in an interval, and its last line is an inequality between intervals. Here is one by hand, in
# four steps that every proof of this kind has, and then the same from fpjax, on a network.
#
# ## By hand: T13 in one dimension
#
# **1. Formulation.** `F(y) = ρ·y + (1 − ρ)·tanh(y/σ²)`, wanted: y with `F(y) = y_s`. If `|A·(F(ȳ) − y_s)| ≤ Y` and
# `|1 − A·F′| ≤ Z` on the interval of radius r around ȳ, and `Y + Z·r ≤ r`, `Z < 1`, then exactly one solution lies within r of ȳ.

# %%
import json
import tempfile
from pathlib import Path

import numpy as np
from flint import arb, ctx

import fpjax

ctx.prec = 80
rho, sigma, target = arb("0.3"), arb("0.5"), arb("0.25")


def F(y):
    return rho * y + (1 - rho) * (y / sigma**2).tanh()


def slope(y):
    return rho + (1 - rho) / sigma**2 * (1 - (y / sigma**2).tanh() ** 2)


# %% [markdown]
# **2. Float approximation.** Newton in floats, trusted with nothing: if it were wrong, step 3 would fail.

# %%
y = 0.1
for _ in range(20):
    value = 0.3 * y + 0.7 * np.tanh(y / 0.25)
    y -= (value - 0.25) / (0.3 + 0.7 / 0.25 * (1 - np.tanh(y / 0.25) ** 2))
centre, A = arb(y), 1 / slope(arb(y)).mid()
print("approximation", y)

# %% [markdown]
# **3. Rigorous bounds.** The same formulas on intervals: `arb(m, r)` is the ball of all numbers within r of m, and every
# operation returns a ball that holds all results.

# %%
r = arb("1e-12")
Y = abs(A * (F(centre) - target)).upper()
Z = abs(1 - A * slope(arb(centre, r))).upper()
print("Y <=", Y.str(5), "  Z <=", Z.str(5), "  r =", r.str(5))

# %% [markdown]
# **4. Conclusion.** A comparison of balls is true only if it is true for all their points.

# %%
proved = bool(Y + Z * r <= r) and bool(Z < 1)
print("exactly one solution within 1e-12 of", y, ":", proved)
assert proved

# %% [markdown]
# ## The same for a network
#
# `propose` searches with JAX and is not trusted; `check` is a small kernel that re-derives the bound from the weights alone.

# %%
den = fpjax.load("digits-monotone")
x, c = fpjax.samples("digits", n=1)
process = fpjax.process.ddim(steps=5)
certificate = fpjax.certify.propose(den, x[0], process, condition=c[0])
folder = Path(tempfile.mkdtemp())
certificate.save(folder / "c.json")
verdict = fpjax.certify.check(folder / "c.json", model="digits-monotone")
print(verdict.name, "-", fpjax.certify.verify(folder / "c.json").statement)
assert verdict is fpjax.Verdict.CERTIFIED

# %% [markdown]
# **Make it decline.** Claim half the radius: the seal breaks. Seal it again, and the last inequality fails.

# %%
data = json.loads((folder / "c.json").read_text())
data["claim"]["radii"][-1] = (float.fromhex(data["claim"]["radii"][-1]) / 2).hex()
reasons = []
for changed in (data, fpjax.certify.check.seal(data)):
    (folder / "changed.json").write_text(json.dumps(changed))
    try:
        fpjax.certify.check(folder / "changed.json", model="digits-monotone")
    except fpjax.certify.CertificateError as error:
        reasons.append(str(error))
        print("refused:", error)
assert len(reasons) == 2

# %% [markdown]
# ## Exercises
#
# 1. In the proof by hand take r = 1e-18. Why is it refused, although the solution is the same?
# 2. Find, by halving, a large radius on which the proof by hand still works. What does a larger r say more, and what less?
# 3. Replace `arb` by floats in step 3 and take a wrong centre, y + 1e-12, with r = 1e-12. Does the float computation notice?

# %% [markdown]
# ## Solutions


# %%
def provable(radius, at=centre):
    Y = abs(A * (F(at) - target)).upper()
    Z = abs(1 - A * slope(arb(at, radius))).upper()
    return bool(Y + Z * radius <= radius) and bool(Z < 1)


# 1. A float is some 1e-17 away from the true solution: no ball that small around it holds one.
print("r = 1e-18:", provable(arb("1e-18")))
assert not provable(arb("1e-18"))

# %%
# 2. A larger ball excludes other solutions from more of the line, and locates this one less.
radius = 1.0
while not provable(arb(radius)):
    radius /= 2
print("proved unique within", radius)
assert radius > 0.01

# %%
# 3. The wrong centre is 1e-12 away: the interval proof refuses r = 0.9e-12. Sixteen digits can tell here;
# nothing warns you when they cannot.
wrong = arb(y + 1e-12)
print("wrong centre, smaller ball:", provable(arb("0.9e-12"), wrong))
assert not provable(arb("0.9e-12"), wrong)
assert provable(arb("1.1e-12"), wrong)
