"""The model samplings of ComfyUI, as far as unleak reads them: names of classes, sigmas and noising."""

import math

import torch


def _class(*names):
    bases = tuple(type(name, (), {}) for name in names)
    return type("ModelSampling", bases, {})


def flow(shift):
    """Wan, HunyuanVideo."""
    model = _class("ModelSamplingDiscreteFlow", "CONST")()
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    model.shift, model.sigmas = shift, (shift * t / (1 + (shift - 1) * t)).float()
    model.noise_scaling = lambda sigma, noise, latent, full=False: sigma * noise + (1 - sigma) * latent
    return model


def flux(mu):
    """LTX: the shift is given as its logarithm."""
    model = _class("ModelSamplingFlux", "CONST")()
    t = torch.arange(1, 10001, dtype=torch.float64) / 10000
    model.shift, model.sigmas = mu, (math.exp(mu) / (math.exp(mu) + 1 / t - 1)).float()
    model.noise_scaling = flow(1.0).noise_scaling
    return model


def _noised(sigma, noise, latent, full=False):
    return noise * ((1 + sigma**2) ** 0.5 if full else sigma) + latent


def edm(low, high):
    """SVD."""
    model = type("ModelSampling", (type("ModelSamplingContinuousEDM", (), {}), type("V_PREDICTION", _eps(), {})), {})()
    model.sigmas = torch.linspace(math.log(low), math.log(high), 1000, dtype=torch.float64).exp()
    model.sigma_min, model.sigma_max = model.sigmas[0], model.sigmas[-1]
    model.noise_scaling = _noised
    return model


def discrete():
    """Stable Diffusion's betas."""
    model = type("ModelSampling", (type("ModelSamplingDiscrete", (), {}), type("EPS", (), {})), {})()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0)
    model.sigmas = ((1 - alphas) / alphas).sqrt().float()
    model.noise_scaling = _noised
    return model


def unknown(kind):
    """What unleak has never seen, or knows that it cannot start lower."""
    if kind == "StableCascadeSampling":
        bases = (type(kind, (type("ModelSamplingDiscrete", (), {}),), {}), type("EPS", (), {}))
    elif kind == "X0":
        bases = (type("ModelSamplingDiscrete", (), {}), type(kind, (type("EPS", (), {}),), {}))
    else:
        bases = (type(kind, (), {}),)
    return type("ModelSampling", bases, {})()


def _eps():
    return (type("EPS", (), {}),)
