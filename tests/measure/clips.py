"""Clips of known motion of an analytic texture, evaluated where each pixel came from: exact at any sub-pixel step."""

import numpy as np

__all__ = ["as_rgb", "clip", "texture"]


def texture(seed, x, y):
    rng = np.random.default_rng(seed)
    frequency = np.exp(rng.uniform(np.log(0.01), np.log(0.2), 40))  # cycles per pixel
    wave = 2 * np.pi * frequency * np.exp(1j * rng.uniform(0, 2 * np.pi, 40))
    phase, amplitude = rng.uniform(0, 2 * np.pi, 40), frequency**-0.7
    amplitude *= 40 / np.sqrt((amplitude**2).sum() / 2)
    return 128 + sum(a * np.cos(k.real * x + k.imag * y + p) for a, k, p in zip(amplitude, wave, phase, strict=True))


def clip(size, num_frames, *, dx=0.0, dy=0.0, log_zoom=0.0, rotation=0.0, seed=0):
    height, width = size
    y, x = np.mgrid[:height, :width]
    p = (x - (width - 1) / 2) + 1j * (y - (height - 1) / 2)
    frames = []
    for _ in range(num_frames):
        frames.append(texture(seed, p.real, p.imag))
        p = (p - (dx + 1j * dy)) * np.exp(-(log_zoom + 1j * rotation))  # where this pixel was one frame before
    return as_rgb(np.stack(frames))


def as_rgb(gray):
    return np.repeat(np.clip(np.round(gray), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)
