"""What is wrong with the arguments is said before torch is imported, which takes seconds."""

import json
import subprocess
import sys

PHOTO = "photo.png"
BAD = [
    ["generate"],
    ["generate", "none.jpg"],
    ["generate", PHOTO, "--start", "0.94"],
    ["generate", PHOTO, "--model", "nanoo"],
    ["generate", PHOTO, "--size", "20x21"],
    ["generate", PHOTO, "--fix", "low-pass=2"],
    ["generate", PHOTO, "--guidance", "much"],
    ["generate", PHOTO, "--lora", "none.safetensors"],
    ["generate", PHOTO, "--device", "gpu"],
    ["generate", PHOTO, "--dtype", "int8"],
    ["generate", PHOTO, "--motion", "low", "--start", "0.9T"],
    ["generate", PHOTO, "--model", "wan2.1-i2v-480p", "--num-frames", "8"],
    ["sweep", PHOTO, "--start", ","],
    ["sweep", PHOTO, "--size", "20x21"],
    ["tune", "none.jpg"],
    ["tune", PHOTO, "--fidelity", "high"],
    ["try", "none.jpg"],
    ["try"],
    ["compare", "none.jpg"],
    ["compare", PHOTO, "--model", "nanoo"],
    ["diagnose"],
    ["diagnose", "--photos", PHOTO, "--videos", "clips"],
    ["diagnose", "--photos", PHOTO, "--model", "nanoo"],
    ["diagnose", "--photos", PHOTO, "--size", "20x21"],
]
RUN = """
import contextlib, io, json, sys
from unleak.cli import main
found = []
for arguments in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = main(arguments)
    found.append([status, said.getvalue(), "torch" in sys.modules])
print(json.dumps(found))
"""


def test_bad_arguments_are_answered_before_torch_is_imported(photo):
    run = [sys.executable, "-c", RUN, json.dumps(BAD)]
    done = subprocess.run(run, cwd=photo.parent, capture_output=True, text=True, check=True)
    for arguments, (status, said, loaded) in zip(BAD, json.loads(done.stdout), strict=True):
        assert status == 2, (arguments, said)
        assert said.startswith("error: "), arguments
        assert said.count("\n") == 1, arguments
        assert not loaded, arguments
