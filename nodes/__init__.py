"""The nodes, one file per stage; each is a schema and a call into `mggtalk_core`."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import driving, editing, evaluation, export, geometry, host, model, prediction, rendering, viewer

NODES: list[type[io.ComfyNode]] = [
    model.LoadMGGTalk,
    geometry.EstimateDepth,
    geometry.BuildSymmetricGaussians,
    prediction.PredictVisibleParams,
    prediction.PredictInvisibleParams,
    prediction.PersonalizeHead,
    driving.DriveWithAudio,
    driving.DriveWithVideo,
    driving.DriveWithBlendshapes,
    editing.ExpressionEditor,
    rendering.CameraOrbit,
    rendering.RenderGaussians,
    rendering.RenderToVideo,
    editing.PreviewHead,
    export.HeadToSplat,
    export.SaveHead,
    export.LoadHead,
    export.SaveMotion,
    evaluation.EvaluateReenactment,
]


class MGGTalkExtension(ComfyExtension):
    async def on_load(self) -> None:
        host.register_models_folder()
        host.offer_demo_files()
        viewer.add_routes()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
