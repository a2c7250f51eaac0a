"""Expression Editor and Preview Head: change a motion by hand, and look at the head live in the page."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..mggtalk_core.errors import InputError
from . import cameras, expressions, host, types, viewer


class ExpressionEditor(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkExpressionEditor",
            display_name="Expression Editor (MGGTalk)",
            category="MGGTalk/drive",
            description="Sets or changes expression, gaze and head pose with sliders, on a still face or on a whole "
            "motion. With a head connected the picture follows the sliders once the workflow has run.",
            search_aliases=["expression sliders", "pose", "gaze", "blink", "smile", "arkit", "mggtalk"],
            inputs=[
                types.Head.Input(
                    "head",
                    optional=True,
                    tooltip="Shows the live view, and makes the sliders exact for this head: without a motion they "
                    "start from the photo's own expression.",
                ),
                types.Motion.Input(
                    "motion",
                    optional=True,
                    tooltip="The motion to change in every frame. Without it the result is one still frame.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(expressions.MODES),
                    default="add",
                    tooltip="'add' puts the sliders on top of the motion, 'replace' puts them in its place, "
                    "'multiply' scales it (0 stops a shape, 1 leaves it, 2 doubles it). Untouched sliders do nothing.",
                ),
                io.String.Input(
                    "expression",
                    default="{}",
                    tooltip='The sliders as text, e.g. {"jawOpen": 0.4, "mouthSmile": 0.5, "headYaw": 10} or '
                    "jawOpen=0.4, eyeBlink=1: 52 ARKit shapes from 0 to 1, and headYaw, headPitch, headRoll in "
                    "degrees. A name without Left or Right means both.",
                ),
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="For the render nodes and Save Motion.")],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    def validate_inputs(cls, expression):
        try:
            expressions.parse_edit(expression)
        except InputError as error:
            return f"Expression Editor, input 'expression': {error}"
        return True

    @classmethod
    def execute(cls, mode, expression, head=None, motion=None) -> io.NodeOutput:
        edit = expressions.parse_edit(expression)
        if head is None:
            return io.NodeOutput(expressions.apply_edit(motion or expressions.still(), edit, mode))
        motion = expressions.for_head(motion, head)
        view = viewer.publish(cls.hidden.unique_id, head, motion)
        return io.NodeOutput(expressions.apply_edit(motion, edit, mode), ui=view)


class PreviewHead(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkPreviewHead",
            display_name="Preview Head (MGGTalk)",
            category="MGGTalk/render",
            description="A live view of the talking head in the page: drag to orbit, play with sound, stop anywhere. "
            "The frame and view you stop at are rendered as a still picture.",
            search_aliases=["viewer", "3d preview", "player", "novel view", "mggtalk"],
            inputs=[
                types.Head.Input("head", tooltip="From Predict Invisible Params or Load Head."),
                types.Motion.Input(
                    "motion", optional=True, tooltip="What to play. Without it the head is still, as in the photo."
                ),
                io.Audio.Input("audio", optional=True, tooltip="The sound to play with the motion."),
                io.Int.Input(
                    "frame",
                    default=0,
                    min=0,
                    max=10_000_000,
                    tooltip="Frame of the still picture: 0 is the first. Scrubbing in the view sets it.",
                ),
                io.Float.Input(
                    "yaw",
                    default=0.0,
                    min=-90.0,
                    max=90.0,
                    step=0.1,
                    tooltip="Degrees the camera stands to the right of the photo's (negative: left). Dragging sets it.",
                ),
                io.Float.Input(
                    "pitch",
                    default=0.0,
                    min=-90.0,
                    max=90.0,
                    step=0.1,
                    tooltip="Degrees the camera stands above the photo's (negative: below). Dragging sets it.",
                ),
                io.Float.Input(
                    "distance",
                    default=1.0,
                    min=0.3,
                    max=4.0,
                    step=0.01,
                    tooltip="Times the photo's distance: 0.5 is close, 2 far away. The mouse wheel sets it.",
                ),
                io.Int.Input(
                    "size",
                    default=512,
                    min=64,
                    max=2048,
                    step=16,
                    tooltip="Width and height of the still picture in pixels: 256 is small, 2048 large. The live view "
                    "has its own size.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="still", tooltip="The chosen frame from the chosen view."),
                io.Mask.Output(display_name="mask", tooltip="1 on the person, 0 on the background."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, head, frame, yaw, pitch, distance, size, motion=None, audio=None) -> io.NodeOutput:
        from ..mggtalk_core.rendering.frames import render_frames

        motion = expressions.for_head(motion, head)
        if frame >= len(motion):
            raise InputError(
                f"Preview Head, input 'frame': frame {frame} does not exist, the motion has {len(motion)} frames "
                f"(0 to {len(motion) - 1})"
            )
        sound = None if audio is None else viewer.sound_address(ui.PreviewAudio(audio, cls=cls))
        view = viewer.publish(cls.hidden.unique_id, head, motion, sound)
        camera = cameras.around_head(head.camera.resized(size, size), yaw, pitch, distance)
        rgb, alpha = next(render_frames(head, motion, camera=camera, size=size, start=frame, count=1))
        return io.NodeOutput(host.image_from(rgb), host.mask_from(alpha), ui=view)
