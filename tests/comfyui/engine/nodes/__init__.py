"""Nodes for the tests: conditioning without a text encoder, latents with masks, and what the denoiser was given."""

import copy
import json
from pathlib import Path

import comfy.conds
import comfy.model_management
import comfy.nested_tensor
import folder_paths
import torch
from comfy.patcher_extension import WrappersMP
from safetensors.torch import save_file

from .models import write, write_named

write(folder_paths.models_dir)


def drawn(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def path(name):
    file = Path(folder_paths.get_output_directory()) / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def node(inputs, outputs, run, *, output_node=False):
    return {
        "INPUT_TYPES": classmethod(lambda cls: {"required": inputs}),
        "RETURN_TYPES": outputs,
        "FUNCTION": "run",
        "CATEGORY": "test",
        "OUTPUT_NODE": output_node,
        "run": lambda self, **given: run(**given),
    }


INT = ("INT", {"default": 0, "max": 2**31})
TEXT = ("STRING", {"default": ""})


def text(width, pooled, seed, mask):
    about = {"pooled_output": drawn((1, pooled), seed + 1)}
    if mask:
        about["attention_mask"] = torch.ones(1, 3, dtype=torch.int64)
    return ([[drawn((1, 3, width), seed), about]],)


def image(positive, negative, shape, shown, seed):
    """Latents beside the noise, of [c, f, h, w]; `shown` lists the frames that hold an image."""
    shape, shown = json.loads(shape), json.loads(shown)
    latents = drawn((1, *shape), seed)
    mask = torch.ones(1, 1, *shape[1:])
    mask[:, :, shown] = 0
    more = {"concat_latent_image": latents, "concat_mask": mask}
    return tuple([[t, {**about, **more}] for t, about in side] for side in (positive, negative))


def latent(shape, seed, mask):
    """An empty video; with `mask`, a list with one number per frame, a video under a noise mask."""
    samples = drawn(json.loads(shape), seed) if seed else torch.zeros(json.loads(shape))
    result = {"samples": samples}
    if mask:
        values = torch.tensor(json.loads(mask), dtype=torch.float32)
        result["noise_mask"] = values.view(1, 1, -1, 1, 1).expand(len(samples), 1, -1, *samples.shape[-2:])
    return (result,)


def sound_latent(shape, sound, mask):
    """An empty video with sound, as LTX-2 has; with `mask` (a number per frame) a noise mask that leaves the sound."""
    shape, sound = json.loads(shape), json.loads(sound)
    result = {"samples": comfy.nested_tensor.NestedTensor([torch.zeros(shape), torch.zeros(sound)])}
    if mask:
        held = torch.tensor(json.loads(mask), dtype=torch.float32).view(1, 1, -1, 1, 1).expand(shape)
        result["noise_mask"] = torch.cat([held.reshape(1, 1, -1), torch.ones(sound).reshape(1, 1, -1)], -1)
    return (result,)


def with_sound(model):
    """Let a model of LTX make a sound beside the video, as LTX-2 does: ComfyUI packs both into one latent."""
    plain = model.model.extra_conds

    def extra_conds(latent_shapes, noise, **given):
        del given["denoise_mask"]
        known = plain(noise=noise.new_zeros(latent_shapes[0]), **given)
        return known | {"latent_shapes": comfy.conds.CONDConstant(latent_shapes)}

    def both(executor, x, *args, **kwargs):
        video, sound = x
        return [executor(video, *args, **kwargs), 0.1 * sound]

    model = model.clone()
    model.add_object_patch("extra_conds", extra_conds)
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test.sound", both)
    return (model,)


def full_memory(vae):
    """Let a VAE find no memory, so that ComfyUI cuts what it encodes and decodes into tiles."""

    def full(*args):
        raise comfy.model_management.OOM_EXCEPTION("no memory is left")

    vae = copy.copy(vae)
    vae.memory_used_encode = vae.memory_used_decode = full
    return (vae,)


def masked_attention(model, video, photo, joined, gamma):
    """The attention of ReferenceBias written out, in every step: `photo` of `video` tokens are the image's."""

    def attend(func, q, k, v, heads, *args, skip_reshape=False, skip_output_reshape=False, **kwargs):
        length = {x.shape[2 if skip_reshape else 1] for x in (q, k)}
        own = min(length) > video and 3 not in length if joined else length == {video}
        if not own:
            return func(
                q, k, v, heads, *args, skip_reshape=skip_reshape, skip_output_reshape=skip_output_reshape, **kwargs
            )
        if not skip_reshape:
            q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        logits = q @ k.mT / q.shape[-1] ** 0.5
        if kwargs.get("mask") is not None:
            logits = logits + kwargs["mask"]
        branches = kwargs["transformer_options"]["cond_or_uncond"]
        for branch, part in zip(branches, logits.chunk(len(branches)), strict=True):
            if branch == 0:
                part[..., :photo] -= gamma
        out = logits.softmax(-1) @ v
        return out if skip_output_reshape else out.transpose(1, 2).flatten(2)

    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = attend
    return (model,)


def record(model, name):
    """Save what the denoiser is given in each evaluation: sigma, x, the latents beside it, and the branches."""
    calls = []

    def wrapper(executor, x, t, c_concat=None, *args, **kwargs):
        options = args[2] if len(args) > 2 else kwargs["transformer_options"]
        found = {"sigma": t.clone(), "x": x.clone(), "branches": torch.tensor(options["cond_or_uncond"])}
        found["sigmas"] = options["sample_sigmas"].clone()
        found["overridden"] = torch.tensor("optimized_attention_override" in options)
        if c_concat is not None:
            found["concat"] = c_concat.clone()
        output = executor(x, t, c_concat, *args, **kwargs)
        save_file(found | {"output": output.clone()}, path(f"{name}/{len(calls)}"))
        calls.append(None)
        return output

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", wrapper)
    return (model,)


def save(latent, name):
    samples = latent["samples"]
    held = (
        {"samples": samples}
        if torch.is_tensor(samples)
        else dict(zip(("samples", "sound"), samples.unbind(), strict=True))
    )
    save_file({key: value.contiguous() for key, value in held.items()}, path(name))
    return {"ui": {}, "result": ()}


def save_image(image, name):
    save_file({"image": image.contiguous()}, path(name))
    return {"ui": {}, "result": ()}


def write_model(name):
    write_named(folder_paths.models_dir, name)
    return {"ui": {}, "result": ()}


def vision(width, seed):
    """What an image encoder of this width returns, whatever the image."""

    class Vision:
        def encode_image(self, image, crop=True):
            del image, crop
            return type("Output", (), {"image_embeds": drawn((1, width), seed)})()

    return (Vision(),)


def sigmas(values):
    return (torch.tensor(json.loads(values), dtype=torch.float32),)


def save_sigmas(sigmas, name):
    save_file({"sigmas": sigmas.contiguous()}, path(name))
    return {"ui": {}, "result": ()}


def images(shape, seed):
    return (drawn(json.loads(shape), seed).sigmoid(),)


def load_image_tensor(file):
    from safetensors.torch import load_file

    return (load_file(file)["image"],)


def show(text):
    return {"ui": {"text": [str(text)]}, "result": ()}


NODES = {
    "TestText": node({"width": INT, "pooled": INT, "seed": INT, "mask": ("BOOLEAN", {})}, ("CONDITIONING",), text),
    "TestImage": node(
        {"positive": ("CONDITIONING",), "negative": ("CONDITIONING",), "shape": TEXT, "shown": TEXT, "seed": INT},
        ("CONDITIONING", "CONDITIONING"),
        image,
    ),
    "TestLatent": node({"shape": TEXT, "seed": INT, "mask": TEXT}, ("LATENT",), latent),
    "TestSoundLatent": node({"shape": TEXT, "sound": TEXT, "mask": TEXT}, ("LATENT",), sound_latent),
    "TestWithSound": node({"model": ("MODEL",)}, ("MODEL",), with_sound),
    "TestFullMemory": node({"vae": ("VAE",)}, ("VAE",), full_memory),
    "TestMaskedAttention": node(
        {"model": ("MODEL",), "video": INT, "photo": INT, "joined": ("BOOLEAN", {}), "gamma": ("FLOAT", {})},
        ("MODEL",),
        masked_attention,
    ),
    "TestRecord": node({"model": ("MODEL",), "name": TEXT}, ("MODEL",), record),
    "TestSave": node({"latent": ("LATENT",), "name": TEXT}, (), save, output_node=True),
    "TestSaveImage": node({"image": ("IMAGE",), "name": TEXT}, (), save_image, output_node=True),
    "TestSigmas": node({"values": TEXT}, ("SIGMAS",), sigmas),
    "TestSaveSigmas": node({"sigmas": ("SIGMAS",), "name": TEXT}, (), save_sigmas, output_node=True),
    "TestImages": node({"shape": TEXT, "seed": INT}, ("IMAGE",), images),
    "TestLoadImage": node({"file": TEXT}, ("IMAGE",), load_image_tensor),
    "TestWrite": node({"name": TEXT}, (), write_model, output_node=True),
    "TestVision": node({"width": INT, "seed": INT}, ("CLIP_VISION",), vision),
    "TestShow": node({"text": ("*",)}, (), show, output_node=True),
}
NODE_CLASS_MAPPINGS = {name: type(name, (), methods) for name, methods in NODES.items()}
