"""The nodes, one file per stage; each is a schema and a call into `mggtalk_core`."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import driving, geometry, host, model, prediction, rendering

NODES: list[type[io.ComfyNode]] = [
    model.LoadMGGTalk,
    geometry.EstimateDepth,
    geometry.BuildSymmetricGaussians,
    prediction.PredictVisibleParams,
    prediction.PredictInvisibleParams,
    driving.DriveWithAudio,
    rendering.CameraOrbit,
    rendering.RenderGaussians,
    rendering.RenderToVideo,
]


class MGGTalkExtension(ComfyExtension):
    async def on_load(self) -> None:
        host.register_models_folder()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
