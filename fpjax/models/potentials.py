"""Networks that are the gradient of a convex function of y (T6), at every noise level and under every condition.

    D(y) = k·y + sigma·sum_i grad_y Phi_i(c·y),   c = 1/sqrt(sigma² + data_std²),   0 < k < 1,

where c is that of Karras et al. 2022 and k, the logistic function of a number that depends on sigma and the condition, starts
as their c_skip. Each potential is, of a point x (the whole image, or a patch, below),

    z_1 = softplus(a_1 ∘ W_1 x + b_1),   z_l = softplus(a_l ∘ W_l x + U_l z_(l-1) + b_l),   U_l >= 0,
    Phi(x) = sum_l u_l·(g_l ∘ z_l) + t·log sum_j exp(a_0 ∘ W_0 x + b_0)_j,   u_l >= 0,

with gains a, g, t > 0 (exponentials) and free shifts b, all functions of sigma and the condition by a small network that does
not see y. One layer and the softmax that log-sum-exp has as its gradient: "wide", W diag(g) phi(diag(a) Wᵀ y + b) as in the
monotone gradient networks of Chaudhari, Pranav & Moura (arXiv 2301.10862). Several layers: "input-convex" (Amos, Xu & Kolter
2017), with a skip connection from x to each.

**Phi is convex, whatever is stored**, as U_l, u_l >= 0: an affine function of x is convex, a nonnegative combination of convex
functions too, and softplus, convex and rising, keeps convexity. So is Phi(c·A y) for a matrix A, and J_D is symmetric and
positive semidefinite as a sum of k·I and Hessians of such. **D is coercive** (T1): softplus and log-sum-exp are Lipschitz, so
D(y) - k·y is bounded.

"convolutional": the potential is a mean over all patches of the image (:mod:`fpjax.models.patches`), that is W_1 are
convolutions and the others act in each place. "multi-scale": several such, on patches of the image reduced by several factors
(A cuts a patch and takes means of s×s pixels; Aᵀ, in the gradient, enlarges again). Both know no place but the border, and
run at any size.

In this room: these networks and their programs for the certificate kernel. Not in this room: training (training), files (store).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fpjax.evidence import FpjaxError
from fpjax.models import patches
from fpjax.models.plain import Affine, Level, affine, elementwise

NONNEGATIVE = ("mix", "last")  # tensors without which a potential is not convex


class Layer(nnx.Module):
    """z -> softplus(a ∘ W x + U z + b) and its share u·(g ∘ z) of the potential; U and u are kept nonnegative by |·|."""

    def __init__(self, size: int, before: int, width: int, embedding: int, *, rngs: nnx.Rngs):
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (width, size)) / size**0.5)
        self.gain = Affine(embedding, width, gain=0.3, rngs=rngs)
        self.shift = Affine(embedding, width, rngs=rngs)
        self.out = Affine(embedding, width, gain=0.3, rngs=rngs)
        self.last = nnx.Param(jnp.full((1, width), 0.1))
        if before:
            self.mix = nnx.Param(jax.random.uniform(rngs.params(), (width, before)) / before)

    def conditioned(self, e):
        """a, b and u ∘ g of an embedding e."""
        return jnp.exp(self.gain(e)), self.shift(e), jnp.abs(self.last[...][0]) * jnp.exp(self.out(e))

    def __call__(self, x, z, gain, shift):
        """The next z (width,) from x (size,) and the z before, None at first."""
        entered = gain * (self.weight[...] @ x) + shift
        return jax.nn.softplus(entered if z is None else entered + jnp.abs(self.mix[...]) @ z)

    def program(self, at: str, tag: str, before: str | None) -> tuple[list[dict], list[dict]]:
        """The kernel's layers: what does not depend on y, and what does, to z{tag} and the share p{tag}."""
        mixed = [] if before is None else [{"op": "affine", "out": f"u{tag}", "in": before, "weight": f"{at}.mix"}]
        inner = [
            {"op": "affine", "out": f"w{tag}", "in": "x", "weight": f"{at}.weight"},
            {"op": "multiply", "out": f"v{tag}", "in": f"w{tag}", "by": f"a{tag}"},
            *mixed,
            {"op": "add", "out": f"s{tag}", "in": [f"v{tag}", f"b{tag}", *(m["out"] for m in mixed)]},
            elementwise(f"z{tag}", f"s{tag}", "softplus"),
            {"op": "multiply", "out": f"y{tag}", "in": f"z{tag}", "by": f"g{tag}"},
            {"op": "affine", "out": f"p{tag}", "in": f"y{tag}", "weight": f"{at}.last"},
        ]
        return _conditioned(at, tag, "out"), inner


class Softmax(nnx.Module):
    """t·log sum_j exp(a ∘ W x + b)_j, whose gradient in x is t Wᵀ (a ∘ softmax)."""

    def __init__(self, size: int, components: int, embedding: int, *, rngs: nnx.Rngs):
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (components, size)) / size**0.5)
        self.gain = Affine(embedding, components, gain=0.3, rngs=rngs)
        self.shift = Affine(embedding, components, rngs=rngs)
        self.share = Affine(embedding, 1, gain=0.3, rngs=rngs)

    def conditioned(self, e):
        """a, b and t of an embedding e."""
        return jnp.exp(self.gain(e)), self.shift(e), jnp.exp(self.share(e))[0]

    def __call__(self, x, gain, shift, share):
        """Its share of the potential at x (size,)."""
        return share * jax.nn.logsumexp(gain * (self.weight[...] @ x) + shift)

    def program(self, at: str, tag: str) -> tuple[list[dict], list[dict]]:
        """The kernel's layers: what does not depend on y, and what does, to the share p{tag}."""
        inner = [
            {"op": "affine", "out": f"w{tag}", "in": "x", "weight": f"{at}.weight"},
            {"op": "multiply", "out": f"v{tag}", "in": f"w{tag}", "by": f"a{tag}"},
            {"op": "add", "out": f"s{tag}", "in": [f"v{tag}", f"b{tag}"]},
            {"op": "logsumexp", "out": f"z{tag}", "in": f"s{tag}"},
            {"op": "scale", "out": f"p{tag}", "in": f"z{tag}", "by": f"g{tag}"},
        ]
        return _conditioned(at, tag, "share"), inner


def _conditioned(at: str, tag: str, last: str) -> list[dict]:
    """The kernel's layers of gains a and g (exponentials) and shifts b of an embedding e."""
    return [
        affine(f"log_a{tag}", "e", f"{at}.gain"),
        elementwise(f"a{tag}", f"log_a{tag}", "exp"),
        affine(f"b{tag}", "e", f"{at}.shift"),
        affine(f"log_g{tag}", "e", f"{at}.{last}"),
        elementwise(f"g{tag}", f"log_g{tag}", "exp"),
    ]


class Potential(nnx.Module):
    """One convex potential of points of ``size`` values: layers of ``widths``, and a softmax of ``components``, if any."""

    def __init__(self, size: int, widths, components: int, embedding: int, *, rngs: nnx.Rngs):
        befores = (0, *widths[:-1])
        self.hidden = nnx.List(
            [Layer(size, before, width, embedding, rngs=rngs) for before, width in zip(befores, widths, strict=True)]
        )
        self.softmax = Softmax(size, components, embedding, rngs=rngs) if components else None

    def conditioned(self, e) -> list:
        """What of it depends on the embedding alone."""
        parts = [*self.hidden, *([self.softmax] if self.softmax else [])]
        return [part.conditioned(e) for part in parts]

    def __call__(self, x, conditioned):
        """Phi(x), a scalar."""
        total, z = jnp.zeros((), x.dtype), None
        for layer, (gain, shift, out) in zip(self.hidden, conditioned, strict=False):
            z = layer(x, z, gain, shift)
            total += out @ z
        return total + self.softmax(x, *conditioned[-1]) if self.softmax else total

    def program(self, at: str, tag: str) -> tuple[list[dict], list[dict]]:
        """The kernel's layers: what does not depend on y, and what does, from x to one number."""
        found = [
            layer.program(f"{at}.hidden.{k}", f"{tag}_{k}", f"z{tag}_{k - 1}" if k else None)
            for k, layer in enumerate(self.hidden)
        ]
        if self.softmax:
            found.append(self.softmax.program(f"{at}.softmax", f"{tag}_m"))
        shares = [inner[-1]["out"] for _, inner in found]
        total = {"op": "add", "out": f"phi{tag}", "in": shares}
        return [step for outer, _ in found for step in outer], [*(step for _, inner in found for step in inner), total]


class GradientNetwork(nnx.Module):
    """D(y) = k·y + sigma·sum_i grad_y Phi_i(c·y): see the head of this file.

    Args:
      shape: of a point; with ``side``, of an image (h, w) or (channels, h, w), of which only the channels count.
      conditions: how many; one more embedding means "none".
      widths: hidden units of each layer of a potential. components: of its softmax, 0 for none.
      side: of a reduced patch in pixels, even; 0 for potentials of the whole image.
      scales: one potential for each, of patches of the image reduced by this factor.
      embedding, frequencies: sizes of the network of sigma and condition. data_std: standard deviation of the clean images.
    """

    def __init__(
        self,
        shape,
        conditions: int,
        *,
        widths=(128,),
        components: int = 0,
        side: int = 0,
        scales=(1,),
        embedding: int = 24,
        frequencies: int = 16,
        data_std: float = 0.5,
        rngs: nnx.Rngs,
    ):
        self.shape, self.side, self.scales, self.data_std = tuple(shape), side, tuple(scales), float(data_std)
        self.channels = shape[0] if len(shape) == 3 else 1
        size = self.channels * side * side if side else math.prod(shape)
        self.level = Level(conditions, embedding, frequencies, rngs=rngs)
        self.skip = Affine(embedding, 1, gain=0.1, rngs=rngs)
        self.skip.bias[...] = jnp.full((1,), 2 * math.log(data_std))
        self.slope = nnx.Param(jnp.full((1, 1), -8.0))  # of ln(sigma)/4: k starts as data_std²/(sigma² + data_std²)
        self.parts = nnx.List([Potential(size, widths, components, embedding, rngs=rngs) for _ in self.scales])

    def __call__(self, y, sigma, condition):
        """D(y, sigma) under a condition index; with ``side``, y may be an image of any size that patches fit in."""
        e = self.level(sigma, condition)
        c = 1 / jnp.sqrt(sigma**2 + self.data_std**2)
        out = self.kept(sigma, e) * y
        for part, scale in zip(self.parts, self.scales, strict=True):
            out += sigma * self._gradient(part, scale, c, part.conditioned(e), y)
        return out

    def kept(self, sigma, e):
        """k, the share of y that D keeps: the least eigenvalue that J_D can have."""
        return jax.nn.sigmoid(self.skip(e)[0] + self.slope[...][0, 0] * jnp.log(sigma) / 4)

    def _gradient(self, part: Potential, scale: int, c, conditioned, y):
        """The gradient in y of one potential, or of its mean over patches."""

        def one(flat):
            def value(v):
                return part(c * (_reduced(v, self.channels, self.side, scale) if self.side else v), conditioned)

            return jax.grad(value)(flat)

        if not self.side:
            return one(y.reshape(-1)).reshape(y.shape)
        return patches.mean(one, y.reshape(-1, *y.shape[-2:]), self.side * scale).reshape(y.shape)

    @property
    def least(self) -> int:
        """The least side of an image that it takes; 0 if it takes one size only."""
        return self.side * max(self.scales)

    def constants(self) -> dict[str, tuple[tuple[int, int], int]]:
        """Shapes and scales of the matrices that reduce a patch, which the certificate kernel reads from the file."""
        n = self.channels * self.side**2
        return {f"reduce.{i}": ((n, n * s * s), s) for i, s in enumerate(self.scales)} if self.side else {}

    def constant(self, scale: int) -> np.ndarray:
        """The matrix that reduces a patch."""
        unit = np.eye(self.channels * (self.side * scale) ** 2, dtype=np.float32)
        return np.stack([_reduced(row, self.channels, self.side, scale) for row in unit], axis=1)

    def tensors(self) -> dict[str, jax.Array]:
        """What is stored: the parameters, where they must be nonnegative as that, and the constants."""
        flat = {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(self, nnx.Param))}
        stored = {name: jnp.abs(leaf) if nonnegative(name) else leaf for name, leaf in flat.items()}
        return stored | {name: jnp.asarray(self.constant(scale)) for name, (_, scale) in self.constants().items()}

    def layers(self) -> list[dict]:
        """The program for the certificate kernel (certify/format.md)."""
        program = [
            *({"op": "edm", "out": f"c_{w}", "which": w, "data_std": self.data_std} for w in ("in", "noise")),
            *self.level.layers("c_noise", "level", "e"),
            affine("skip_e", "e", "skip"),
            {"op": "affine", "out": "skip_noise", "in": "c_noise", "weight": "slope"},
            {"op": "add", "out": "skip_log", "in": ["skip_e", "skip_noise"]},
            elementwise("k", "skip_log", "sigmoid"),
            {"op": "scale", "out": "kept", "in": "y", "by": "k"},
        ]
        for i, (part, scale) in enumerate(zip(self.parts, self.scales, strict=True)):
            outer, inner = part.program(f"parts.{i}", str(i))
            program += [*outer, *self._program(i, scale, inner)]
            program.append({"op": "scale", "out": f"d{i}", "in": f"D{i}", "by": "sigma"})
        return [*program, {"op": "add", "out": "D", "in": ["kept", *(f"d{i}" for i in range(len(self.parts)))]}]

    def _program(self, i: int, scale: int, inner: list[dict]) -> list[dict]:
        """The operation that makes D{i} from y: a gradient, or the mean of a gradient over patches."""
        scaled = {"op": "scale", "out": "x", "in": "y", "by": "c_in"}
        if not self.side:
            return [{"op": "gradient", "out": f"D{i}", "in": "y", "layers": [scaled, *inner]}]
        reduced = {"op": "affine", "out": "small", "in": "y", "weight": f"reduce.{i}"}
        potential = [reduced, scaled | {"in": "small"}, *inner]
        n, (down, across) = self.side * scale, patches.strides(self.side * scale, *self.shape[-2:])
        cut = {"image": [self.channels, *self.shape[-2:]], "patch": [n, n], "stride": [down, across]}
        gradient = {"op": "gradient", "out": "D", "in": "y", "layers": potential}
        return [{"op": "patches", "out": f"D{i}", "in": "y", **cut, "border": "reflect", "layers": [gradient]}]


def nonnegative(name: str) -> bool:
    """Whether the tensor of this name must be nonnegative for the potential to be convex."""
    return name.rpartition(".")[2] in NONNEGATIVE


def parameters_of(network: GradientNetwork, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters among stored tensors, after looking at signs and at the constants.

    Raises:
      FpjaxError: if a weight that must not be negative is, or a constant is missing or another.
    """
    for name, tensor in tensors.items():
        if nonnegative(name) and (tensor < 0).any():
            raise FpjaxError(f"tensor {name!r} has a negative weight, so its potential is not convex; train it again")
    constants = network.constants()
    for name, (size, scale) in constants.items():
        if name not in tensors or tensors[name].shape != size or (tensors[name] != network.constant(scale)).any():
            raise FpjaxError(
                f"tensor {name!r} is not the matrix of means of {scale}×{scale} pixels; train the model again"
            )
    return {name: tensor for name, tensor in tensors.items() if name not in constants}


def _reduced(patch, channels: int, side: int, scale: int):
    """Means of scale×scale pixels of a flat patch, flat."""
    return patch.reshape(channels, side, scale, side, scale).mean(axis=(2, 4)).reshape(-1)
