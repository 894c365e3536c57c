"""Pipelines of every family: D is what diffusers' own network says, and each is audited, inverted and generated again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import torch
from diffusers import DiffusionPipeline, UNet2DModel

import fpjax
from fpjax.budget import Budget
from fpjax.diffusers import bridge, families
from fpjax.models import unet

FAMILIES = sorted(tiny.PIPELINES)
QUICK = Budget(points=1, lanczos=8, picard=30)


def reference(pipe, name, z, t, condition):
    """The prediction of a pipeline's own network on a batch of one, as its __call__ would ask for it."""
    prompt = ("cat", "a dog", "")[min(condition, 2)]
    at = torch.tensor([t])
    with torch.no_grad():
        if name == "unconditional":
            return pipe.unet(z, at).sample
        if name == "class-conditional":
            return pipe.unet(z, at, class_labels=torch.tensor([condition])).sample
        if name == "dit":
            return pipe.transformer(z, at, class_labels=torch.tensor([condition])).sample[:, :4]
        if name == "stable-diffusion":
            text, _ = pipe.encode_prompt(prompt, "cpu", 1, False)
            return pipe.unet(z, at, encoder_hidden_states=text).sample
        if name == "stable-diffusion-xl":
            text, null, pooled, null_pooled = pipe.encode_prompt(prompt or "cat", device="cpu", negative_prompt=None)
            text, pooled = (text, pooled) if prompt else (null, null_pooled)
            ids = torch.tensor([[16.0, 16.0, 0.0, 0.0, 16.0, 16.0]])
            added = {"text_embeds": pooled, "time_ids": ids}
            return pipe.unet(z, at, encoder_hidden_states=text, added_cond_kwargs=added).sample
        if name == "pixart":
            text, mask, _, _ = pipe.encode_prompt(prompt, False, device="cpu")
            added = {"resolution": None, "aspect_ratio": None}
            options = {"encoder_hidden_states": text, "encoder_attention_mask": mask, "added_cond_kwargs": added}
            return pipe.transformer(z, timestep=at, **options).sample[:, :4]
        if name == "stable-diffusion-3":
            text, _, pooled, _ = pipe.encode_prompt(prompt, None, None, do_classifier_free_guidance=False)
            options = {"encoder_hidden_states": text, "pooled_projections": pooled}
            return pipe.transformer(z, timestep=at, **options).sample
        text, pooled, ids = pipe.encode_prompt(prompt, None)
        packed = pipe._pack_latents(z, 1, 4, 8, 8)
        places = pipe._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32)
        options = {"encoder_hidden_states": text, "pooled_projections": pooled, "txt_ids": ids, "img_ids": places}
        out = pipe.transformer(packed, timestep=at / 1000, guidance=torch.tensor([3.5]), **options).sample
        return pipe._unpack_latents(out, 8 * 8, 8 * 8, 8)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_denoiser_is_the_pipelines_network(shelf, name):
    den = shelf.open(name).denoiser
    pipe = DiffusionPipeline.from_pretrained(shelf.folder(name), local_files_only=True)
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(1, *den.shape)).astype(np.float32))
    flow = name in ("flux", "stable-diffusion-3")
    t = 400.0
    if flow:
        sigma, scale = 0.4 / 0.6, 0.6
    else:
        abar = float(pipe.scheduler.alphas_cumprod[400])
        sigma, scale = ((1 - abar) / abar) ** 0.5, abar**0.5
    for condition in range(len(den.conditions) + 1):
        if name == "class-conditional" and condition == len(den.conditions):
            continue  # diffusers has no network without a class; see test_no_class
        out = reference(pipe, name, z, t, condition).numpy()[0]
        x = z.numpy()[0]
        if flow:
            want = x - 0.4 * out
        elif name == "class-conditional":
            want = scale * x - (1 - scale**2) ** 0.5 * out
        else:
            want = (x - (1 - scale**2) ** 0.5 * out) / scale
        choice = None if condition == den.null else condition
        got = den(jnp.asarray(x / np.float32(scale)), sigma, choice)
        assert float(np.abs(np.asarray(got) - want).max()) < 1e-5 * max(1, np.abs(want).max())


def test_conditions_differ(shelf):
    """The table's rows are in their prompts' order, and the empty prompt is the last."""
    den = shelf.open("stable-diffusion").denoiser
    y = jnp.ones(den.shape, jnp.float32)
    values = [np.asarray(den(y, 1.0, c)) for c in ("cat", "a dog", None)]
    assert all(np.abs(values[i] - values[j]).max() > 1e-4 for i in range(3) for j in range(i))


def test_no_class_leaves_the_embedding_of_time_alone(shelf):
    checkpoint = shelf.open("class-conditional")
    den = checkpoint.denoiser
    tensors = dict(den.params["network"])
    tensors["class_embedding.weight"] = jnp.zeros_like(tensors["class_embedding.weight"])
    zero = fpjax.Denoiser({"network": tensors, "conditions": {}}, den.fn, den.shape, conditions=den.conditions)
    y = jnp.ones(den.shape, jnp.float32)
    assert np.array_equal(den(y, 1.0), zero(y, 1.0, 1))
    assert not np.array_equal(den(y, 1.0), den(y, 1.0, 1))


@pytest.mark.parametrize("name", FAMILIES)
def test_audited_inverted_and_generated_again(shelf, name):
    checkpoint = shelf.open(name)
    den, grid = checkpoint.denoiser, checkpoint.process(2)
    x = fpjax.subject.random_images(den.shape, 1, 0)
    condition = 0 if den.conditions else None
    report = fpjax.audit(den, grid, images=x, condition=condition, budget=QUICK)
    questions = {row["question"] for row in report.table}
    assert {"existence", "uniqueness", "contraction", "convergence", "error"} <= questions
    assert all(row["value"] is None or np.isfinite(row["value"]) for row in report.table)
    trip = report.round_trip[0]
    print(f"{name}: existence {report.verdicts('existence')}, image again to {trip['max_error']:.1e}")
    assert trip["solved"] == 1
    assert trip["max_error_solved"] < 1e-4


@pytest.mark.parametrize("name", ["stable-diffusion", "dit"])
def test_pixels_through_the_autoencoder(shelf, name):
    encoder = shelf.open(name).encoder
    pipe = DiffusionPipeline.from_pretrained(shelf.folder(name), local_files_only=True)
    pixels = fpjax.subject.random_images((3, 16, 16), 2, 0)
    latents = encoder.encode(pixels)
    with torch.no_grad():
        mean = pipe.vae.encode(torch.from_numpy(pixels)).latent_dist.mean * pipe.vae.config.scaling_factor
        back = pipe.vae.decode(mean / pipe.vae.config.scaling_factor).sample
    assert np.abs(np.asarray(latents) - mean.numpy()).max() < 1e-5
    assert np.abs(np.asarray(encoder.decode(latents)) - back.numpy()).max() < 1e-5
    with pytest.raises(fpjax.FpjaxError, match="takes images of shape"):
        encoder.encode(pixels[:, :1])


def test_products_with_the_jacobian_are_torch_funcs(shelf):
    """jvp and vjp through the bridge against torch.func; its own oracle needs attention that has derivatives."""
    from diffusers.models.attention_processor import AttnProcessor

    den = shelf.open("stable-diffusion").denoiser
    module = bridge.build(fpjax.diffusers.folder.read_part(shelf.folder("stable-diffusion") / "unet"))
    module.set_attn_processor(AttnProcessor())
    text = torch.from_numpy(np.array(den.params["conditions"]["text"][:1]))
    rng = np.random.default_rng(0)
    z, v = (torch.from_numpy(rng.normal(size=(1, *den.shape)).astype(np.float32)) for _ in range(2))

    def network(x):
        return module(x, torch.tensor([400.0]), encoder_hidden_states=text).sample

    params, predict = den.params["network"], den.fn.predict
    row = {"text": den.params["conditions"]["text"][0]}
    ours = lambda x: predict(params, x, jnp.float32(400), row)  # noqa: E731
    _, push = jax.jvp(ours, (jnp.asarray(z[0]),), (jnp.asarray(v[0]),))
    pull = jax.vjp(ours, jnp.asarray(z[0]))[1](jnp.asarray(v[0]))[0]
    assert np.abs(np.asarray(push) - torch.func.jvp(network, (z,), (v,))[1].numpy()[0]).max() < 1e-5
    assert np.abs(np.asarray(pull) - torch.func.vjp(network, z)[1](v)[0].numpy()[0]).max() < 1e-5


NATIVE = {
    "attention": {},
    "DDPM": {
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
        "attention_head_dim": None,
    },
    "ADM": {
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 4,
    },
    "Fourier": {"time_embedding_type": "fourier", "layers_per_block": 2, "center_input_sample": True},
    "classes": {"num_class_embeds": 3, "mid_block_scale_factor": 2**0.5, "add_attention": False},
    "scale and shift without norm": {"resnet_time_scale_shift": "scale_shift", "act_fn": "mish"},
    "no middle": {"mid_block_type": None, "act_fn": "gelu", "in_channels": 1, "out_channels": 2},
    "three levels": {
        "block_out_channels": (8, 12, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
}


@pytest.mark.parametrize("kind", sorted(NATIVE))
def test_the_native_network_is_diffusers_on_the_same_file(tmp_path, kind):
    module = tiny.unet2d(3, **NATIVE[kind])
    module.save_pretrained(tmp_path)
    part = fpjax.diffusers.folder.read_part(tmp_path)
    config = unet.Config.read(part.config)
    assert config.uncovered() is None
    tensors = fpjax.diffusers.folder.read_tensors(tmp_path)
    assert {k: v.shape for k, v in tensors.items()} == unet.shapes(config)
    module = UNet2DModel.from_pretrained(tmp_path).eval()
    x = np.random.default_rng(0).normal(size=(config.in_channels, 8, 8)).astype(np.float32)
    labels = [0, 2] if config.num_class_embeds else [None]
    for t in (0.5, 3.0, 700.0):
        for label in labels:
            with torch.no_grad():
                given = {} if label is None else {"class_labels": torch.tensor([label])}
                want = module(torch.from_numpy(x)[None], torch.tensor([t]), **given).sample.numpy()[0]
            got = unet.apply(
                {k: jnp.asarray(v) for k, v in tensors.items()}, config, jnp.asarray(x), jnp.float32(t), label
            )
            assert np.abs(np.asarray(got) - want).max() < 1e-5 * max(1, np.abs(want).max())


def test_what_the_native_network_does_not_have_goes_through_the_bridge(tmp_path):
    module = tiny.unet2d(0, class_embed_type="timestep")
    assert unet.Config.read(dict(fpjax.diffusers.folder.read_part(_saved(module, tmp_path)).config)).uncovered()


def _saved(module, folder):
    module.save_pretrained(folder)
    return folder


def test_flux_tokens_are_diffusers(shelf):
    from diffusers import FluxPipeline

    x = torch.arange(4 * 6 * 8, dtype=torch.float32).reshape(1, 4, 6, 8)
    want = FluxPipeline._pack_latents(x, 1, 4, 6, 8)[0].numpy()
    assert np.array_equal(families.pack(jnp.asarray(x[0].numpy())), want)
    assert np.array_equal(families.unpack(jnp.asarray(want), (4, 6, 8)), x[0].numpy())
