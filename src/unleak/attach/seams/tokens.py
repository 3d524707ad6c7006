"""Where the image's tokens are in the self-attention of a video transformer, read off each transformer's forward."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ImageTokens", "Tokens", "channels_last", "framepack", "in_grid", "joined_with_text", "packed", "text_first"]


@dataclass(frozen=True)
class Tokens:
    """The tokens that a self-attention sees."""

    count: int
    """How many are of the video."""
    image: slice
    """Which of them are the conditioning image's."""
    joined: bool = False
    """Whether the text's tokens are in the same attention."""


ImageTokens = Callable[[Any, Mapping[str, Any], Mapping[str, Any]], Tokens]
"""(denoiser, arguments of its forward, arguments of the pipeline's call) -> its tokens."""


def in_grid(network: Any, given: Mapping[str, Any], call: Mapping[str, Any]) -> Tokens:
    """Return the tokens of latents `b c f h w` in patches, frame by frame, the image first (Wan, SkyReels, Cosmos)."""
    del call
    return _frames(network, given["hidden_states"].shape[2:])


def channels_last(network: Any, given: Mapping[str, Any], call: Mapping[str, Any]) -> Tokens:
    """Return the same for latents `b f h w c` (Kandinsky)."""
    del call
    return _frames(network, given["hidden_states"].shape[1:4])


def joined_with_text(network: Any, given: Mapping[str, Any], call: Mapping[str, Any]) -> Tokens:
    """Return the same with the text's tokens behind (HunyuanVideo)."""
    tokens = in_grid(network, given, call)
    return Tokens(tokens.count, tokens.image, joined=True)


def text_first(network: Any, given: Mapping[str, Any], call: Mapping[str, Any]) -> Tokens:
    """Return the tokens of latents `b f c h w` in patches behind the text's tokens (CogVideoX)."""
    del call
    f, _, h, w = given["hidden_states"].shape[1:]
    tokens, text = _frames(network, (f, h, w)), given["encoder_hidden_states"].shape[1]
    return Tokens(tokens.count, slice(text, text + tokens.image.stop), joined=True)


def packed(network: Any, given: Mapping[str, Any], call: Mapping[str, Any]) -> Tokens:
    """Latents packed by the pipeline: one token a place (LTX). LTX puts later conditions in front, LTX-2 behind."""
    del network
    count = given["hidden_states"].shape[1]
    if given.get("num_frames") is not None:
        frame = given["height"] * given["width"]
        return Tokens(count, slice(0, frame))
    coordinates = given["video_coords"][0, 0]  # of time, one for each token; the same in a frame
    del call
    return Tokens(count, _first_frame(coordinates))


def framepack(network: Any, given: Mapping[str, Any], call: Mapping[str, Any]) -> Tokens:
    """History at a quarter and at half the resolution, then the image, then the rest of the history and the section."""
    before = 0
    for name, (time, space) in {"latents_history_4x": (4, 8), "latents_history_2x": (2, 4)}.items():
        if given.get(name) is not None:
            f, h, w = given[name].shape[2:]
            before += -(-f // time) * -(-h // space) * -(-w // space)
    section = in_grid(network, given, call)
    clean = in_grid(network, {"hidden_states": given["latents_clean"]}, call)
    image = slice(before, before + clean.image.stop)
    return Tokens(before + clean.count + section.count, image, joined=True)


def _frames(network: Any, shape: Any) -> Tokens:
    f, h, w = shape
    patch = network.config.patch_size
    if isinstance(patch, int):
        patch = (network.config.get("patch_size_t") or 1, patch, patch)
    time, height, width = patch
    frame = (h // height) * (w // width)
    return Tokens((f // time) * frame, slice(0, frame))


def _first_frame(times: Any) -> slice:
    """Return the tokens of the earliest time, which follow each other."""
    earliest = (times == times.min()).nonzero().flatten()
    return slice(int(earliest[0]), int(earliest[-1]) + 1)
