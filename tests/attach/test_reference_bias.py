"""Less attention to the photo's tokens, against attention written out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import unleak
from tests.attach.guided import ALL, GUIDED, UNGUIDED
from unleak.attach.seams import seam_of
from unleak.attach.strategies import reference_bias
from unleak.attach.strategies.reference_bias import ReferenceBias, biased_attention, with_a_channel

pytestmark = pytest.mark.filterwarnings("ignore::unleak.attach.plan.UnleakWarning")
ATTENTION = F.scaled_dot_product_attention
GUIDANCE = GUIDED | {name: UNGUIDED[name] for name in UNGUIDED}
REFUSED = {"helios", "helios-pyramid", "helios-distilled", "ltx2-dfr"}
SERVED = sorted(name for name in ALL if name not in REFUSED and seam_of(ALL[name].build()).image_tokens is not None)


def written_out(q: Any, k: Any, v: Any, bias: Any, scale: float | None = None) -> torch.Tensor:
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return (q.double() @ k.double().transpose(-1, -2) * scale + bias.double()).softmax(-1) @ v.double()


@pytest.mark.parametrize("width", [8, 12, 16])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_mask_and_channel_are_the_formula(width: int, scale: float | None) -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 10, width, generator=g)
    bias = torch.zeros(2, 1, 1, 10)
    bias[1, ..., :3] = -0.6
    expected = written_out(q, k, v, bias, scale)
    masked = biased_attention(ATTENTION, bias, query=q, key=k, value=v, scale=scale)
    torch.testing.assert_close(masked.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        with_a_channel(ATTENTION, bias, q, k, v, scale, {}).double(), expected, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        biased_attention(ATTENTION, torch.zeros_like(bias), query=q, key=k, value=v, scale=scale),
        ATTENTION(q, k, v, scale=scale),
        rtol=1e-5,
        atol=1e-6,
    )
    hidden = torch.rand(2, 1, 1, 10, generator=g) < 0.7
    hidden[..., 0] = True
    with_mask = biased_attention(ATTENTION, bias, query=q, key=k, value=v, attn_mask=hidden, scale=scale)
    expected = written_out(q, k, v, bias.masked_fill(~hidden, -torch.inf), scale)
    torch.testing.assert_close(with_mask.double(), expected, rtol=1e-5, atol=1e-6)
    added = biased_attention(ATTENTION, bias, query=q, key=k, value=v, attn_mask=2 * bias, scale=scale)
    torch.testing.assert_close(added.double(), written_out(q, k, v, 3 * bias, scale), rtol=1e-5, atol=1e-6)


class Attentions:
    """Every attention of a call: the lengths of its queries and keys, and the bias that it got."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[list[Any]] = []

        def watched(query: Any, key: Any, value: Any, **options: Any) -> torch.Tensor:
            self.seen.append([query.shape[-2], key.shape[-2], None])
            return ATTENTION(query, key, value, **options)

        def noted(attention: Any, bias: Any, **given: Any) -> torch.Tensor:
            self.seen[-1][2] = bias
            return biased_attention(attention, bias, **given)

        monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
        monkeypatch.setattr(reference_bias, "biased_attention", noted)


def call(name: str, pipe: Any, **changes: Any) -> Any:
    if name == "hunyuan15":
        pipe.guider.guidance_scale = 3.0
    torch.manual_seed(0)
    return ALL[name].call(pipe, **GUIDANCE.get(name, {}) | changes)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return len(a) == len(b) and all(map(same, a, b))


def moved(name: str, pipe: Any) -> Any:
    """The same pipeline, with what is born as zero made random: else attention does not reach the output."""
    torch.manual_seed(1)
    for parameter in getattr(pipe, ALL[name].denoiser).parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return pipe


@pytest.mark.parametrize("name", SERVED)
def test_it_acts_in_the_first_steps_and_is_gone_afterwards(name: str, held: Callable[[str, Any, str], None]) -> None:
    pipe = moved(name, ALL[name].build())
    plain = call(name, pipe)
    assert not same(call(name, unleak.apply(pipe, strategies=[ReferenceBias(3.0)])), plain)
    assert same(call(name, unleak.apply(pipe, strategies=[ReferenceBias(0.0)])), plain)
    assert same(call(name, unleak.remove(pipe)), plain)
    held(name, pipe, "reference bias")


@pytest.mark.parametrize("name", SERVED)
def test_an_evaluation_is_the_network_with_biased_attention(name: str) -> None:
    """The first evaluation again, with attention written out: the bias is where an independent count puts the photo."""
    pipe = moved(name, ALL[name].build())
    network = getattr(pipe, ALL[name].denoiser)
    outputs: list[torch.Tensor] = []
    calls: list[Any] = []

    class Stop(Exception):  # noqa: N818
        pass

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        calls.append((args, {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}))

    def stop(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output.sample)
        raise Stop

    handles = [network.register_forward_pre_hook(keep, with_kwargs=True)]
    handles += [network.register_forward_hook(stop, with_kwargs=True)]
    with pytest.raises(Stop):
        call(name, unleak.apply(pipe, strategies=[ReferenceBias(1.5)]))
    for handle in handles:
        handle.remove()
    unleak.remove(pipe)
    args, kwargs = calls[0]
    first, count, text, batched = expected_tokens(name, network, args, kwargs)

    def biased(query: Any, key: Any, value: Any, attn_mask: Any = None, scale: Any = None, **options: Any) -> Any:
        length = key.shape[-2]
        if query.shape[-2] != length or (length != count if text is None else not count < length != text):
            return ATTENTION(query, key, value, attn_mask=attn_mask, scale=scale, **options)
        bias = torch.zeros(len(query), 1, 1, length)
        bias[len(query) // 2 if batched else 0 :, ..., first] = -1.5
        if attn_mask is not None:
            bias = bias.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else bias + attn_mask
        return written_out(query, key, value, bias, scale).to(value.dtype)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(F, "scaled_dot_product_attention", biased)
        again = network(*args, **kwargs)
    again = again[0] if isinstance(again, tuple) else again.sample
    torch.testing.assert_close(outputs[0], again, rtol=1e-3, atol=1e-4)


def expected_tokens(name: str, network: Any, args: Any, kwargs: Any) -> tuple[slice, int, int | None, bool]:
    """(the photo's tokens, all of the video, how many of text in the same attention or None, whether batched)."""
    hidden = kwargs.get("hidden_states", args[0] if args else None)
    if name.startswith("ltx"):
        if kwargs.get("num_frames") is not None:
            frame = kwargs["height"] * kwargs["width"]
        else:
            time = kwargs["video_coords"][0, 0]
            frame = int((time == time.min()).sum())
        return slice(0, frame), hidden.shape[1], None, len(hidden) > 1
    if name == "kandinsky5":
        f, h, w = hidden.shape[1:4]
        return slice(0, h * w // 4), f * h * w // 4, None, False
    if name.startswith(("cogvideox", "consisid")):
        f, _, h, w = hidden.shape[1:]
        text, p, pt = (
            kwargs["encoder_hidden_states"].shape[1],
            network.config.patch_size,
            network.config.get("patch_size_t"),
        )
        frame = (h // p) * (w // p)
        return slice(text, text + frame), f // (pt or 1) * frame, text, True
    f, h, w = hidden.shape[2:]
    patch = network.config.patch_size
    p = patch if isinstance(patch, int) else patch[1]
    frame = (h // p) * (w // p)
    if name == "framepack":
        before = 0
        for key, (pt, ps) in {"latents_history_4x": (4, 8), "latents_history_2x": (2, 4)}.items():
            t, y, x = kwargs[key].shape[2:]
            before += -(-t // pt) * -(-y // ps) * -(-x // ps)
        clean = kwargs["latents_clean"].shape[2]
        return (
            slice(before, before + frame),
            before + (clean + f) * frame,
            kwargs["encoder_hidden_states"].shape[1],
            False,
        )
    text = kwargs["encoder_hidden_states"].shape[1] if name.startswith("hunyuan") else None
    return slice(0, frame), f * frame, text, False


def test_the_unconditional_branch_and_later_steps_have_no_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    attentions, pipe = Attentions(monkeypatch), ALL["wan21"].build()
    call("wan21", unleak.apply(pipe, strategies=[ReferenceBias(0.6, until=0.4)]), num_inference_steps=4)
    layers = pipe.transformer.config.num_layers
    length = next(keys for _, keys, bias in attentions.seen if bias is not None)
    own = [bias for queries, keys, bias in attentions.seen if queries == keys == length]
    biased = [mask is not None for mask in own]
    per_step = [True] * layers + [False] * layers
    assert biased == per_step * 2 + [False] * 2 * layers * 2  # 4 steps: shares 0, 1/3, 2/3, 1
    (mask,) = {tuple(mask.flatten().tolist()) for mask in own if mask is not None}
    assert sorted(set(mask)) == pytest.approx([-0.6, 0.0])


def test_what_cannot_be_biased_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="ReferenceBias cannot be attached to StableVideoDiffusionPipeline"):
        unleak.apply(ALL["svd"].build(), strategies=[ReferenceBias()])
    pipe = unleak.apply(ALL["wan21"].build(), strategies=[ReferenceBias()])
    monkeypatch.setattr(reference_bias, "_attention", None)  # as with another attention backend
    with pytest.raises(ValueError, match=r"found no self-attention over the video's tokens.*set_attention_backend"):
        call("wan21", pipe)
    monkeypatch.undo()
    pipe.transformer.compile(backend="eager")
    with pytest.raises(ValueError, match="cannot act inside a compiled denoiser"):
        call("wan21", pipe)
    for gamma in (-1, 101, float("nan")):
        with pytest.raises(ValueError, match="gamma between 0 and 100"):
            ReferenceBias(gamma)
    with pytest.raises(ValueError, match="until between"):
        ReferenceBias(0.6, until=2)


def test_a_prompt_as_long_as_the_video_is_refused() -> None:
    from tests.tiny.model import embeds

    pipe = ALL["wan21"].build()
    count = []
    handle = pipe.transformer.register_forward_pre_hook(
        lambda m, args, kwargs: count.append(seam_of(pipe).image_tokens(m, kwargs, {}).count), with_kwargs=True
    )
    call("wan21", pipe)
    handle.remove()
    unleak.apply(pipe, strategies=[ReferenceBias()])
    with pytest.raises(ValueError, match=f"both have {count[0]} tokens"):
        call("wan21", pipe, prompt_embeds=embeds(1, count[0], 32), negative_prompt_embeds=embeds(1, count[0], 32))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("motif", "enters through the tokens of a vision encoder"),
        ("kandinsky6", "a reference frame that the pipeline appends"),
        ("cosmos3", "without an axis of clips"),
        ("ltx-long", "window by window"),
        ("sana-video", "its attention is linear"),
        ("svd", "no frame of tokens in a transformer's self-attention"),
    ],
)
def test_where_it_cannot_act_it_says_why(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"ReferenceBias cannot be attached to .*{why}.*A start works, and Compress"):
        unleak.apply(ALL[name].build(), strategies=unleak.ReferenceBias())
