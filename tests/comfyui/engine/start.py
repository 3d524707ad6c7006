"""Start ComfyUI beside a torch for the CPU: `python start.py ENGINE [arguments of main.py]`.

torchvision on PyPI is built for CUDA, so its extension does not load here. To import it needs only that these operators
are defined, which no node of a video calls.
"""

import runpy
import sys

import torch

operators = torch.library.Library("torchvision", "DEF")
operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
engine = sys.argv[1]
sys.argv = [f"{engine}/main.py", *sys.argv[2:]]
sys.path.insert(0, engine)
runpy.run_path(sys.argv[0], run_name="__main__")
