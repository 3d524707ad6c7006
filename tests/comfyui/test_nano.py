"""nano in the real ComfyUI."""

from tests.comfyui.engine.client import Graph


def graph(name, *, attach=None, steps=6, patch=None):
    g = Graph()
    nano = g("UnleakNano")
    image = g("TestImages", shape="[1, 64, 64, 3]", seed=3)
    parts = g(
        "SVD_img2vid_Conditioning", clip_vision=nano[1], init_image=image, vae=nano[2], width=64, height=64,
        video_frames=12, motion_bucket_id=127, fps=7, augmentation_level=0.0,
    )  # fmt: skip
    model = nano[0]
    if patch:
        model = g("ModelSamplingDiscrete", model=model, sampling=patch, zsnr=False)[0]
    if attach:
        model = attach(g, model)
    model = g("TestRecord", model=model, name=name)[0]
    latents = g(
        "KSampler", model=model, positive=parts[0], negative=parts[1], latent_image=nano[3], seed=5, steps=steps,
        cfg=2.0, sampler_name="euler", scheduler="karras", denoise=1.0,
    )  # fmt: skip
    g("TestSave", latent=latents, name=f"{name}/latents/1")
    g("TestSaveImage", image=g("VAEDecode", samples=latents, vae=nano[2]), name=f"{name}/frames/1")
    return g


def test_it_runs(engine):
    engine.run(graph("nano"))
    calls = engine.calls("nano")
    print(calls[0]["sigma"], calls[0]["x"].shape, calls[0]["concat"].shape, calls[0]["sigmas"], len(calls))
    print(engine.saved("nano/frames/1")["image"].shape)
