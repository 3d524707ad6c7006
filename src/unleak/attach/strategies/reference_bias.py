"""Less attention to the photo's tokens in the first steps (DyMoS, arXiv 2605.19398)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from unleak.attach.seams import Seam
from unleak.attach.seams.tokens import Tokens
from unleak.attach.strategies.evaluations import Evaluation, evaluations
from unleak.attach.strategies.interval import acts
from unleak.core.numbers import within
from unleak.core.process import NoiseProcess

__all__ = ["ReferenceBias", "biased_attention"]

_attention = F.scaled_dot_product_attention

_REASONS = {
    "Cosmos3OmniPipeline": "it packs the tokens of text, video and sound into sequences without an axis of clips, so"
    " the place of the photo's keys cannot be told from the shapes",
    "Kandinsky6TI2VAPipeline": "its photo is a reference frame that the pipeline appends for some checkpoints only, and"
    " the sound attends to it too",
    "LTXI2VLongMultiPromptPipeline": "it makes the video window by window, and the photo is in the first one only",
    "MotifVideoImage2VideoPipeline": "its photo also enters through the tokens of a vision encoder, and no test of"
    " unleak has run the fix there",
    "SanaImageToVideoPipeline": "its attention is linear and has no logits to take anything from",
    "SanaWMPipeline": "the attention of most of its layers is linear and has no logits to take anything from",
}
"""Pipeline class -> why its attention is out of reach."""


@dataclass(frozen=True)
class ReferenceBias:
    """In the conditional branch, self-attention takes `gamma` from its logits for the photo's tokens.

    For video transformers that hold the photo as tokens of the first frame: each of those tokens weighs e^-gamma of
    what it weighed. gamma 0 changes nothing. until: share of the steps, from the first on, in which it acts.

    The denoiser must use PyTorch's attention (diffusers' default, `native`), not compiled.
    """

    gamma: float | int = 0.6
    until: float | int = 0.2

    def __post_init__(self) -> None:
        if not within(self.gamma, 0, 100):
            raise ValueError(f"ReferenceBias needs a gamma between 0 and 100, such as 0.6, not {self.gamma!r}.")
        if not within(self.until, 0, 1):
            raise ValueError(f"ReferenceBias needs until between 0 and 1, a share of the steps, not {self.until!r}.")

    def fits(self, pipeline: type, seam: Seam, process: NoiseProcess | None = None) -> None:
        """Raise ValueError if it is not known where the photo's tokens are in the attention of these pipelines."""
        del process  # at any level
        if seam.image_tokens is None:
            why = next((_REASONS[base.__name__] for base in pipeline.__mro__ if base.__name__ in _REASONS), None)
            usual = "its photo is no frame of tokens in a transformer's self-attention, or is not known to be"
            raise ValueError(
                f"ReferenceBias cannot be attached to {pipeline.__name__}: {why or usual}. A start works, and Compress."
            )

    def check(self, pipe: Any, seam: Seam) -> None:
        """Raise ValueError if it is not known where the photo's tokens are in this pipeline's attention."""
        self.fits(type(pipe), seam)

    @contextmanager
    def attached(self, pipe: Any, seam: Seam, arguments: dict[str, Any]) -> Iterator[None]:
        """Act in the body."""
        assert seam.image_tokens is not None
        find = seam.image_tokens

        def answer(evaluation: Evaluation) -> Any:
            active = self.gamma and acts((0.0, self.until), evaluation.progress)
            if not active or evaluation.branch not in ("both", "conditional"):
                return evaluation.run()
            tokens = find(evaluation.network, evaluation.arguments, arguments)
            _refuse_what_cannot_be_biased(evaluation, tokens)
            with _Biased(tokens, self.gamma, evaluation) as mode:
                output = evaluation.run()
            if not mode.found:
                raise ValueError(
                    "ReferenceBias found no self-attention over the video's tokens: it needs PyTorch's own attention"
                    " (for example pipe.transformer.set_attention_backend('native')) and dense attention."
                )
            return output

        with evaluations(pipe, seam, answer):
            yield


class _Biased(TorchFunctionMode):
    """While it is entered, in this thread, attention over the video's tokens has a bias on the image's keys."""

    def __init__(self, tokens: Tokens, gamma: float, evaluation: Evaluation) -> None:
        super().__init__()
        self.tokens, self.gamma, self.found = tokens, gamma, 0
        self.batch, self.text = len(evaluation.arguments["hidden_states"]), _text_length(evaluation)
        self.first = self.batch // 2 if evaluation.branch == "both" else 0
        """The first clip of the conditional branch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not _attention:
            return func(*args, **kwargs)
        names = ("query", "key", "value", "attn_mask")
        given = dict(zip(names, args, strict=False)) | kwargs
        if len(args) > len(names) or not self._of_the_video(given["query"], given["key"]):
            return func(*args, **kwargs)
        self.found += 1
        bias = torch.zeros(self.batch, 1, 1, given["key"].shape[-2], device=given["key"].device)
        bias[self.first :, ..., self.tokens.image] = -self.gamma
        return biased_attention(func, bias, **given)

    def _of_the_video(self, query: Tensor, key: Tensor) -> bool:
        length, count = key.shape[-2], self.tokens.count
        if query.shape[-2] != length or len(query) != self.batch:
            return False
        return count < length != self.text if self.tokens.joined else length == count


def biased_attention(
    attention: Callable[..., Tensor],
    bias: Float[Tensor, "b 1 1 n"],
    *,
    query: Float[Tensor, "b h m d"],
    key: Float[Tensor, "b h n d"],
    value: Float[Tensor, "b h n e"],
    attn_mask: Tensor | None = None,
    scale: float | None = None,
    **options: Any,
) -> Float[Tensor, "b h m e"]:
    """Return softmax(query key^T scale + bias) value, by the attention function that is given.

    Without a mask on a GPU, the bias enters as one more channel of the keys, which keeps the kernels that know no
    masks; elsewhere it is the mask.
    """
    if attn_mask is None and query.is_cuda and query.shape[-1] <= 248:
        return with_a_channel(attention, bias, query, key, value, scale, options)
    if attn_mask is None:
        mask = bias.to(query.dtype)
    elif attn_mask.dtype == torch.bool:
        mask = bias.to(query.dtype).masked_fill(~attn_mask, -torch.inf)
    else:
        mask = attn_mask + bias.to(attn_mask.dtype)
    return attention(query, key, value, attn_mask=mask, scale=scale, **options)


def with_a_channel(
    attention: Callable[..., Tensor],
    bias: Float[Tensor, "b 1 1 n"],
    query: Float[Tensor, "b h m d"],
    key: Float[Tensor, "b h n d"],
    value: Float[Tensor, "b h n e"],
    scale: float | None,
    options: dict[str, Any],
) -> Float[Tensor, "b h m e"]:
    """Return the same without a mask: a channel that is 1 in the queries and bias / scale in the keys."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    more = -query.shape[-1] % 8 or 8  # kernels want multiples of 8, and values as wide as keys
    wide = query.new_zeros(*query.shape[:-1], more)
    wide[..., 0] = 1
    extra = key.new_zeros(*key.shape[:-1], more)
    extra[..., 0] = (bias / scale).to(key.dtype).squeeze(2)
    padded = F.pad(value, (0, key.shape[-1] + more - value.shape[-1]))
    query, key = torch.cat([query, wide], -1), torch.cat([key, extra], -1)
    return attention(query, key, padded, scale=scale, **options)[..., : value.shape[-1]]


def _refuse_what_cannot_be_biased(evaluation: Evaluation, tokens: Tokens) -> None:
    network = evaluation.network
    modules = network.modules() if isinstance(network, nn.Module) else ()
    if hasattr(network, "_orig_mod") or any(getattr(one, "_compiled_call_impl", None) for one in modules):
        raise ValueError("ReferenceBias cannot act inside a compiled denoiser: leave torch.compile away for this call.")
    if not tokens.joined and _text_length(evaluation) == tokens.count:
        raise ValueError(
            f"ReferenceBias cannot tell the video's attention from the prompt's: both have {tokens.count} tokens."
            " Choose another size or number of frames."
        )


def _text_length(evaluation: Evaluation) -> int:
    text = evaluation.arguments.get("encoder_hidden_states")
    return text.shape[1] if isinstance(text, Tensor) else 0
