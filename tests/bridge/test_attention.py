"""Attention control: shares of nothing change nothing, replaced maps are those of the source, and one step is torch's own."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor

import fpjax
from fpjax import editing
from fpjax.diffusers import attention, bridge, folder
from fpjax.evidence import FpjaxError
from fpjax.trajectory import generate

PROMPTS = ("cat", "dog", "a dog", "dog a dog")
TOKENS = 8  # of the tiny text encoder, padding included
EDIT = functools.partial(attention.edit_with_attention, solver="anderson", look=False)  # the least to compile
PLAIN = functools.partial(editing.edit, solver="anderson", look=False)


@pytest.fixture(scope="module")
def model(shelf):
    """The tiny Stable Diffusion with prompts of three and of more tokens."""
    return fpjax.diffusers.open_checkpoint(shelf.folder("stable-diffusion"), prompts=PROMPTS)


@pytest.fixture(scope="module")
def images(model):
    """Two, on the way of the process: generated, so that their inversion is solved."""
    z = np.random.default_rng(0).normal(size=(2, *model.denoiser.shape))
    return np.asarray(generate(model.denoiser, z, model.process(2), condition="cat"))


def off(a, b) -> float:
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def test_with_shares_of_nothing_it_is_the_ordinary_edit(model, images):
    ways = {"source": "cat", "target": "dog", "guidance": 3.0}
    plain = PLAIN(model.denoiser, images, model.process(2), **ways, look=True)
    ours = EDIT(model, images, model.process(2), **ways, cross=0, self_=0, reweight={"dog": 5.0}, look=True)
    assert ours.images.dtype == jnp.float64
    assert off(ours.images, plain.images) < 1e-10
    assert np.allclose(ours.back, plain.back, atol=1e-10)
    assert [f.verdict for f in ours.findings] == [f.verdict for f in plain.findings]
    assert (ours.evaluations == plain.evaluations + 2).all()  # the source's branch
    moved = EDIT(model, images, model.process(2), **ways)
    assert off(moved.images, plain.images) > 1e-6
    assert moved.back is None
    assert moved.findings == ()


@pytest.mark.parametrize("shares", [{"cross": 1, "self_": 1}, {"cross": 0.5, "self_": 0.0}, {"cross": 0, "self_": 0.7}])
def test_the_same_prompt_on_both_sides_gives_the_source(model, images, shares):
    w = 2.0
    done = EDIT(model, images, model.process(2), source="cat", target="cat", guidance=w, inversion_guidance=w, **shares)
    source = generate(model.denoiser, done.latent, model.process(2), condition="cat", guidance=w)
    assert off(done.images, source) < 1e-10


def torch_network(shelf, model):
    """diffusers' own in float64, with its plain processor; sines of time are computed in float32, so they are JAX's."""
    module = bridge.build(folder.read_part(shelf.folder("stable-diffusion") / "unet")).double()
    module.set_attn_processor(AttnProcessor())
    sines = bridge.Function(module.time_proj)
    module.time_proj.forward = lambda t: torch.from_numpy(np.array(_sines(sines, t)))
    return module


def _sines(function, t):
    inside = function.module.__class__(
        function.module.num_channels, function.module.flip_sin_to_cos, function.module.downscale_freq_shift
    )
    return bridge.Function(inside)({}, timesteps=jnp.asarray(t.numpy()))


def attentions(module):
    return {name: part for name, part in module.named_modules() if isinstance(part, Attention)}


def by_hand(module, z, t, texts, change):
    """What diffusers' network says of the source alone, then of the target alone with maps that ``change`` returns."""
    maps, out = {}, []
    for branch, (point, text) in enumerate(zip(z, texts, strict=True)):
        for name, part in attentions(module).items():

            def scores(query, key, mask=None, name=name, part=part, branch=branch):
                found = Attention.get_attention_scores(part, query, key, mask)
                found = found if branch == 0 else change(name, maps[name], found)
                if branch == 0:
                    maps[name] = found
                return found

            part.get_attention_scores = scores
        with torch.no_grad():
            out.append(module(point[None], torch.tensor([t]), encoder_hidden_states=text[None]).sample[0].numpy())
    return out


CASES = {
    "swap": ("cat", "dog", {}, [0, 1, 2, 3, 4, 5, 6, 7], np.ones(TOKENS)),
    # <start> dog <end> and <start> a dog <end>: "a" is new
    "refinement": ("dog", "a dog", {"align": "shared"}, [0, -1, 1, 2, 4, 5, 6, 7], np.ones(TOKENS)),
    "factors": ("cat", "dog", {"reweight": {"dog": 3.0, 2: 0.5}}, range(8), np.array([1, 3.0, 0.5, 1, 1, 1, 1, 1])),
}


@pytest.mark.parametrize("self_", [0.0, 1.0])
@pytest.mark.parametrize("case", sorted(CASES))
def test_one_step_is_torchs_with_its_maps_replaced_by_hand(shelf, model, images, case, self_):
    source, target, options, takes, factors = CASES[case]
    grid, w = model.process(1), 3.0
    done = EDIT(model, images, grid, source=source, target=target, guidance=w, cross=1, self_=self_, **options)
    module, table = torch_network(shelf, model), np.asarray(model.denoiser.params["conditions"]["text"], np.float64)
    texts = torch.from_numpy(table[[PROMPTS.index(source), PROMPTS.index(target)]])

    def change(name, theirs, own):
        if "attn2" not in name:
            return theirs if self_ else own
        columns = [own[..., i] if j < 0 else theirs[..., j] for i, j in enumerate(takes)]
        return torch.stack([c * f for c, f in zip(columns, factors, strict=True)], dim=-1)

    noisy, clean = (1 / np.sqrt(1 + s**2) for s in grid.sigmas[::-1])  # sqrt of alpha bar
    seen = model.denoiser.fn.seen
    t = float(seen.c_noise(jnp.float64(grid.sigmas[1])))
    for latent, image in zip(np.asarray(done.latent), np.asarray(done.images), strict=True):
        z = torch.from_numpy(np.stack([latent, latent]))
        _, controlled = by_hand(module, z, t, texts, change)
        null = by_hand(module, z[:1], t, torch.from_numpy(table[-1:]), None)[0]
        eps = null + w * (controlled - null)
        x0 = (latent - np.sqrt(1 - noisy**2) * eps) / noisy
        assert off(image, clean * x0 + np.sqrt(1 - clean**2) * eps) < 1e-10 * max(1, np.abs(image).max())


@pytest.mark.parametrize(("cross", "self_"), [(1, 1), (1, 0), (0, 1), (0.5, 0)])
def test_the_targets_maps_are_the_sources_for_the_first_share_of_the_steps(model, monkeypatch, cross, self_):
    """Recorded as the network computes them, inside and outside the share."""
    kept = []
    honest = attention.replaced

    def recording(maps, control, crossed):
        both = honest(maps, control, crossed)
        kept.append((crossed, *(m.detach().numpy() for m in both)))
        return both

    monkeypatch.setattr(attention, "replaced", recording)
    function = attention.controlled(model.denoiser.fn.predict).function
    text = torch.from_numpy(np.array(model.denoiser.params["conditions"]["text"][:2]))
    controls = attention.control(2, np.arange(TOKENS), np.ones(TOKENS), cross, self_)
    rng = torch.Generator().manual_seed(0)
    z = torch.randn((2, *model.denoiser.shape), generator=rng)
    for step in range(2):
        kept.clear()
        now = {
            k: torch.as_tensor(np.float32(v[step]) if k != "index" else v[step]) for k, v in controls._asdict().items()
        }
        with torch.no_grad():
            function.module(z, torch.tensor(400.0), encoder_hidden_states=text, cross_attention_kwargs={"control": now})
        assert {crossed for crossed, *_ in kept} == {True, False}
        for crossed, source, target in kept:
            inside = step < round(2 * (cross if crossed else self_))
            assert np.array_equal(source, target) == inside
            assert np.allclose(target.sum(axis=-1), 1, atol=1e-5)


def test_large_self_attention_is_left_alone(model, images, monkeypatch):
    options = {"source": "cat", "target": "dog", "cross": 0}
    attention.controlled.cache_clear()  # the size is read while the program is traced
    monkeypatch.setattr(attention, "SELF_TOKENS", 3)
    alone = EDIT(model, images, model.process(2), self_=1, **options).images
    assert off(alone, EDIT(model, images, model.process(2), self_=0, **options).images) < 1e-12
    monkeypatch.undo()
    attention.controlled.cache_clear()
    assert off(alone, EDIT(model, images, model.process(2), self_=1, **options).images) > 1e-6


def test_the_checkpoints_own_network_stays_as_it_was(model):
    own = model.denoiser.fn.predict.function.module
    twin = attention.controlled(model.denoiser.fn.predict).function.module
    assert not any(isinstance(p, attention.Processor) for p in own.attn_processors.values())
    assert all(a is b for a, b in zip(own.parameters(), twin.parameters(), strict=True))


def test_tokens_align():
    assert attention.aligned([0, 5, 6, 1], [0, 5, 7, 6, 1], 7).tolist() == [0, 1, -1, 2, 3, 5, 6]
    assert attention.aligned([0, 5, 7, 6, 1], [0, 6, 1], 6).tolist() == [0, 3, 4, 3, 4, 5]


def test_sdxl(shelf):
    model = fpjax.diffusers.open_checkpoint(shelf.folder("stable-diffusion-xl"), prompts=PROMPTS)
    x, ways = fpjax.subject.random_images(model.denoiser.shape, 1, 0), {"source": "dog", "target": "a dog"}
    plain = PLAIN(model.denoiser, x, model.process(2), **ways)
    ours = EDIT(model, x, model.process(2), **ways, align="shared", cross=0, self_=0)
    assert off(ours.images, plain.images) < 1e-4  # float32
    assert off(EDIT(model, x, model.process(2), **ways, align="shared").images, plain.images) > 1e-4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cross": 1.1}, "cross, a share of the steps, must lie between 0 and 1, got 1.1"),
        ({"self_": -0.1}, "self_, a share of the steps, must lie between 0 and 1"),
        ({"cross": float("nan")}, "between 0 and 1, got nan"),
        ({"target": "a dog"}, 'have 3 and 4 tokens, so their maps do not correspond; use align="shared"'),
        ({"target": "horse"}, "unknown condition 'horse'"),
        ({"align": "best"}, 'align= must be "same", "shared" or 8 integers'),
        ({"align": [0, 1]}, "align= takes 8 integers"),
        ({"align": [0, 1, 2, 3, 4, 5, 6, 8]}, "align= takes 8 integers"),
        ({"reweight": {"cat": 2.0}}, "reweight= names 'cat', which is no word of the target's prompt"),
        ({"reweight": {"": 2.0}}, "reweight= names ''"),
        ({"reweight": {8: 2.0}}, "reweight= names 8"),
        ({"reweight": {"dog": float("inf")}}, "must be a finite number"),
    ],
)
def test_bad_input_gets_one_sentence(model, images, options, sentence):
    with pytest.raises(FpjaxError) as error:
        EDIT(model, images, model.process(2), **{"source": "cat", "target": "dog", **options})
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["unconditional", "class-conditional", "dit", "flux"])
def test_a_network_without_cross_attention_is_refused(shelf, name):
    checkpoint = shelf.open(name)
    x = fpjax.subject.random_images(checkpoint.denoiser.shape, 1, 0)
    with pytest.raises(FpjaxError, match="needs the cross-attention of a UNet2DConditionModel"):
        EDIT(checkpoint, x, checkpoint.process(2), source=None, target=None)


def test_a_network_alone_takes_indices(shelf, model, images):
    """Without a tokenizer nothing is guessed; with indices it is the same edit."""
    rows = {
        name: {"text": row}
        for name, row in zip((*PROMPTS, ""), model.denoiser.params["conditions"]["text"], strict=True)
    }
    root = shelf.folder("stable-diffusion")
    alone = fpjax.diffusers.open_checkpoint(root / "unet", embeddings=rows, scheduler=root / "scheduler")
    ways = {"source": "cat", "target": "dog"}
    with pytest.raises(FpjaxError, match="has no tokenizer"):
        EDIT(alone, images, alone.process(2), **ways)
    done = EDIT(alone, images, alone.process(2), **ways, align=range(TOKENS))
    assert off(done.images, EDIT(model, images, model.process(2), **ways).images) < 1e-12
