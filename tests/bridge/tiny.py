"""Tiny pipelines of every family with random weights, saved as diffusers saves them; nothing is downloaded."""

import string

import torch
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

SMALL = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}
BLOCKS = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
CROSS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}


def stirred(module, seed=0):
    """The module with every parameter moved a little, so that nothing that starts at zero hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def scheduler(**options):
    """Stable Diffusion's DDIM with a last level above zero (T10)."""
    usual = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    return DDIMScheduler(**usual, clip_sample=False, set_alpha_to_one=False, steps_offset=1, **options)


def flow():
    return FlowMatchEulerDiscreteScheduler()


def unet2d(seed=0, **options):
    torch.manual_seed(seed)
    return stirred(UNet2DModel(**{**SMALL, **BLOCKS, **options}), seed)


def vae():
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return stirred(
        AutoencoderKL(**blocks, block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, sample_size=16)
    )


def clip_tokenizer():
    vocab = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for character in string.ascii_lowercase + string.digits:
        vocab |= {character: len(vocab)} | {f"{character}</w>": len(vocab) + 1}
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
    for pair in merges:
        vocab["".join(pair)] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=8)


def clip(kind=CLIPTextModel, hidden=16):
    torch.manual_seed(1)
    sizes = {"hidden_size": hidden, "intermediate_size": 32, "projection_dim": hidden, "num_hidden_layers": 2}
    rest = {"num_attention_heads": 2, "vocab_size": 80, "max_position_embeddings": 8}
    return stirred(kind(CLIPTextConfig(**sizes, **rest, bos_token_id=0, eos_token_id=1, pad_token_id=1)), 1)


def t5(hidden=16):
    torch.manual_seed(2)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(c, -3.0) for c in string.ascii_lowercase]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=8)
    config = T5Config(
        vocab_size=40, d_model=hidden, d_kv=8, d_ff=32, num_layers=2, num_heads=2, is_encoder_decoder=False
    )
    return tokenizer, stirred(T5EncoderModel(config), 2)


def unconditional(folder):
    DDIMPipeline(unet2d(), scheduler()).save_pretrained(folder)


def class_conditional(folder):
    DDIMPipeline(unet2d(num_class_embeds=3), scheduler(prediction_type="v_prediction")).save_pretrained(folder)


def stable_diffusion(folder):
    torch.manual_seed(0)
    unet = stirred(UNet2DConditionModel(**{**SMALL, **CROSS}, cross_attention_dim=16))
    unet.conv_out.weight.data *= 0.3  # stirred alone it folds: whether two long steps are solved is then luck
    StableDiffusionPipeline(
        vae(), clip(), clip_tokenizer(), unet, scheduler(), None, None, None, requires_safety_checker=False
    ).save_pretrained(folder)


def stable_diffusion_xl(folder):
    torch.manual_seed(0)
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    unet = UNet2DConditionModel(
        **{**SMALL, **CROSS}, cross_attention_dim=32, **added, projection_class_embeddings_input_dim=16 + 6 * 4
    )
    second = clip(CLIPTextModelWithProjection)
    tokens = clip_tokenizer()
    StableDiffusionXLPipeline(vae(), clip(), second, tokens, tokens, stirred(unet), scheduler()).save_pretrained(folder)


def dit(folder):
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8, "norm_num_groups": 4}
    net = DiTTransformer2DModel(**sizes, in_channels=4, out_channels=8, num_embeds_ada_norm=5)
    DiTPipeline(stirred(net), vae(), scheduler()).save_pretrained(folder)


def pixart(folder):
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8, "norm_num_groups": 4}
    net = PixArtTransformer2DModel(**sizes, cross_attention_dim=16, caption_channels=16)
    tokenizer, encoder = t5()
    PixArtAlphaPipeline(tokenizer, encoder, vae(), stirred(net), scheduler()).save_pretrained(folder)


def stable_diffusion_3(folder):
    torch.manual_seed(0)
    sizes = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "num_layers": 2, "pos_embed_max_size": 8}
    heads = {"attention_head_dim": 8, "num_attention_heads": 2, "caption_projection_dim": 16}
    net = SD3Transformer2DModel(**sizes, **heads, joint_attention_dim=32, pooled_projection_dim=32)
    one, two = clip(CLIPTextModelWithProjection), clip(CLIPTextModelWithProjection)
    tokens = clip_tokenizer()
    tokenizer, encoder = t5(32)
    StableDiffusion3Pipeline(stirred(net), flow(), vae(), one, tokens, two, tokens, encoder, tokenizer).save_pretrained(
        folder
    )


def flux(folder):
    torch.manual_seed(0)
    heads = {"attention_head_dim": 8, "num_attention_heads": 2, "axes_dims_rope": (4, 2, 2)}
    texts = {"joint_attention_dim": 16, "pooled_projection_dim": 16}
    net = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, **heads, **texts, guidance_embeds=True
    )
    tokenizer, encoder = t5()
    FluxPipeline(flow(), vae(), clip(), clip_tokenizer(), encoder, tokenizer, stirred(net)).save_pretrained(folder)


PIPELINES = {
    "unconditional": unconditional,
    "class-conditional": class_conditional,
    "stable-diffusion": stable_diffusion,
    "stable-diffusion-xl": stable_diffusion_xl,
    "dit": dit,
    "pixart": pixart,
    "stable-diffusion-3": stable_diffusion_3,
    "flux": flux,
}
TEXT = ("stable-diffusion", "stable-diffusion-xl", "pixart", "stable-diffusion-3", "flux")
