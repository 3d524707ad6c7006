"""Nodes for ComfyUI, and the pack that holds them: torch, numpy and safetensors only, never diffusers."""
