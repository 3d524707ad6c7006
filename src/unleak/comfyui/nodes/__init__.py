"""ComfyUI's view of unleak: what each node takes, gives and says. Needs ComfyUI (`comfy_api`) to be imported."""

from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, io

from unleak.comfyui.nodes.choices import FOLDER
from unleak.comfyui.nodes.fixes import (
    CompressNode,
    ConditionNoiseNode,
    GuidanceIntervalNode,
    LowPassNode,
    MotionAmplitudeNode,
    ReferenceBiasNode,
)
from unleak.comfyui.nodes.measure import MomentsNode, MotionScoreNode
from unleak.comfyui.nodes.start import Motion, Nano, StartNode, StartSigmas

__all__ = ["UnleakExtension"]


class UnleakExtension(ComfyExtension):
    """The nodes of unleak."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return them, in the order of the menu, and make models/unleak a folder that ComfyUI lists."""
        folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
        return [
            Motion,
            StartNode,
            StartSigmas,
            Nano,
            LowPassNode,
            ConditionNoiseNode,
            GuidanceIntervalNode,
            MotionAmplitudeNode,
            ReferenceBiasNode,
            CompressNode,
            MotionScoreNode,
            MomentsNode,
        ]
