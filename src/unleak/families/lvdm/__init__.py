"""What DynamiCrafter and VideoCrafter1 share."""

__all__ = ["PIXELS_AT_ONCE"]

PIXELS_AT_ONCE = 2**20
"""Pixels that the VAE decodes at once: a frame of 1024x576, six of 512x320. More gain no speed."""
