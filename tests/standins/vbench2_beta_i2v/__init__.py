"""Stands in for the I2V part of vbench 0.1.5: videos by their prompts, photos from the folder that it is run in."""

import json
import os

from vbench import VBench


class VBenchI2V(VBench):
    def evaluate(self, videos_path, name, dimension_list=None, local=False, read_frame=False, custom_prompt=False,
                 resolution="1-1", **kwargs):  # fmt: skip
        with open(self.full_info_dir) as file:
            info = json.load(file)
        files = {dimension: [] for dimension in dimension_list}
        for entry in info:
            for dimension in set(dimension_list) & set(entry["dimension"]):
                if dimension.startswith("i2v"):
                    assert os.path.isfile(f"vbench2_beta_i2v/data/crop/{resolution}/{entry['image_name']}")
                for k in range(5):
                    path = os.path.join(videos_path, f"{entry['prompt_en']}-{k}.mp4")
                    if os.path.exists(path):
                        files[dimension].append(path)
        self._write(name, files)
