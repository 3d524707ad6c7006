"""Stands in for vbench 0.1.5: its signatures, the files it reads and writes; a video's number is its file's size."""

import json
import os
from pathlib import Path


class VBench:
    def __init__(self, device, full_info_dir, output_path):
        self.device, self.full_info_dir, self.output_path = device, full_info_dir, output_path
        os.makedirs(output_path, exist_ok=True)

    def evaluate(self, videos_path, name, prompt_list=[], dimension_list=None, local=False, read_frame=False,  # noqa: B006
                 mode="vbench_standard", **kwargs):  # fmt: skip
        print("what the package says on its own")
        assert mode == "custom_input"
        files = [os.path.join(videos_path, one) for one in sorted(os.listdir(videos_path))]
        self._write(name, dict.fromkeys(dimension_list, files))

    def _write(self, name, files):
        if "imaging_quality" in files:
            raise RuntimeError("no weights")
        found = {}
        for dimension, paths in files.items():
            each = [{"video_path": path, "video_results": os.path.getsize(path)} for path in paths]
            found[dimension] = [sum(one["video_results"] for one in each) / len(each), each]
        Path(self.output_path, f"{name}_eval_results.json").write_text(json.dumps(found))
