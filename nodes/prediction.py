"""Predict Visible Params and Predict Invisible Params: points become Gaussians (SGP)."""

from __future__ import annotations

from comfy_api.latest import io

from . import host, types


class PredictVisibleParams(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkPredictVisible",
            display_name="Predict Visible Params (MGGTalk)",
            category="MGGTalk",
            description="Gives each point the photo shows its Gaussian: size, rotation, opacity and colour.",
            search_aliases=["gaussian decoder", "visible gaussians", "mggtalk"],
            inputs=[
                types.Model.Input("model", tooltip="From Load MGGTalk."),
                types.Points.Input("points", tooltip="From Build Symmetric Gaussians."),
            ],
            outputs=[types.Visible.Output(display_name="visible", tooltip="For Predict Invisible Params.")],
        )

    @classmethod
    def execute(cls, model, points) -> io.NodeOutput:
        from ..mggtalk_core.gaussians.sgp import predict_visible

        return io.NodeOutput(host.cancellable(predict_visible, model.on_device(), points))


class PredictInvisibleParams(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkPredictInvisible",
            display_name="Predict Invisible Params (MGGTalk)",
            category="MGGTalk",
            description="Completes the head with what the photo does not show, from the mirrored side and the head "
            "model. The result is the head: build it once, drive and render it as often as you like.",
            search_aliases=["symmetric gaussian decoder", "densify", "build head", "avatar", "mggtalk"],
            inputs=[
                types.Model.Input("model", tooltip="From Load MGGTalk, the same as for Predict Visible Params."),
                types.Visible.Input("visible", tooltip="From Predict Visible Params."),
            ],
            outputs=[
                types.Head.Output(
                    display_name="head",
                    tooltip="The finished head, for Render Gaussians, the drivers' range, Save Head and the exports.",
                )
            ],
        )

    @classmethod
    def execute(cls, model, visible) -> io.NodeOutput:
        from ..mggtalk_core.gaussians.sgp import predict_invisible

        return io.NodeOutput(host.cancellable(predict_invisible, model.on_device(), visible))


class PersonalizeHead(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkPersonalize",
            display_name="Personalize Head (MGGTalk)",
            category="MGGTalk",
            description="Corrects a head with further photos of the same person: what one photo leaves to guessing, "
            "another may show.",
            search_aliases=["several photos", "multi-view", "few-shot avatar", "mggtalk"],
            inputs=[
                types.Head.Input("head", tooltip="From Predict Invisible Params."),
                types.Portrait.Input("portrait", tooltip="From the Estimate Depth this head was built from."),
                io.Image.Input(
                    "images",
                    tooltip="One or more photos of the same person, from other sides or with another expression, "
                    "ideally in the same light.",
                ),
            ],
            outputs=[types.Head.Output(display_name="head", tooltip="The corrected head.")],
        )

    @classmethod
    def execute(cls, head, portrait, images) -> io.NodeOutput:
        from ..mggtalk_core.gaussians.personalize import personalize

        photos = [host.photo_from(image[None], "Personalize Head", "images") for image in images]
        with host.errors_named("Personalize Head", "images"):
            return io.NodeOutput(host.cancellable(personalize, head, portrait.portrait, photos))
