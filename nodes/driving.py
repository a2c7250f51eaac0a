"""The drivers: speech, video or blendshapes become motion."""

from __future__ import annotations

import os

from comfy_api.latest import io

from . import expressions, host, types

FPS_TOOLTIP = (
    "Frames per second of the motion and of the video rendered from it: 25 is usual for speech, 1 to 120 work."
)


class DriveWithAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkDriveWithAudio",
            display_name="Drive with Audio (MGGTalk)",
            category="MGGTalk/drive",
            description="Turns speech into lip movement, blinks, glances and slight head motion.",
            search_aliases=["lip sync", "audio driven", "speech to face", "talking head", "mggtalk"],
            inputs=[
                io.Audio.Input("audio", tooltip="Speech of any length, rate and channel count. Music is no speech."),
                io.Float.Input("fps", default=25.0, min=1.0, max=120.0, step=0.001, tooltip=FPS_TOOLTIP),
                io.Float.Input(
                    "mouth_scale",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How far the mouth moves: 0 keeps it shut, 1 opens it as far as in real speech, 2 shouts.",
                ),
                io.Float.Input(
                    "expression_scale",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Brows and glances: 0 leaves them still, 1 is natural, 2 is lively.",
                ),
                io.Float.Input(
                    "head_motion_scale",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="Sway and nods of the head: 0 keeps it as in the photo, 1 is natural, 3 is restless.",
                ),
                io.Float.Input(
                    "blink_scale",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How far the lids close when blinking: 0 never blinks, 1 closes the eyes fully.",
                ),
                io.Boolean.Input(
                    "look_at_camera",
                    default=True,
                    advanced=True,
                    tooltip="On: the eyes make up for the head's motion and keep looking at the camera. Off: they "
                    "turn with the head.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="The same audio and seed give the same blinks and head motion; another seed another take.",
                ),
                io.Combo.Input(
                    "encoder",
                    options=["Whisper-tiny", *host.model_files(".safetensors")],
                    default="Whisper-tiny",
                    advanced=True,
                    tooltip="'Whisper-tiny' is the speech model that comes with the pack. A mouth head you trained "
                    "yourself appears here when it lies in ComfyUI/models/mggtalk.",
                ),
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="For the render nodes and the editor.")],
        )

    @classmethod
    def execute(
        cls,
        audio,
        fps,
        mouth_scale,
        expression_scale,
        head_motion_scale,
        blink_scale,
        look_at_camera,
        seed,
        encoder,
    ) -> io.NodeOutput:
        from ..mggtalk_core.motion.audio import drive_with_audio

        clip = host.audio_from(audio, "Drive with Audio")
        with host.errors_named("Drive with Audio", "audio"):
            motion = host.cancellable(
                drive_with_audio,
                clip.waveform,
                clip.sample_rate,
                fps,
                encoder=None if encoder == "Whisper-tiny" else host.model_path(encoder),
                mouth_scale=mouth_scale,
                expression_scale=expression_scale,
                head_motion_scale=head_motion_scale,
                blink_scale=blink_scale,
                look_at_camera=look_at_camera,
                seed=seed,
            )
        return io.NodeOutput(motion)


class DriveWithBlendshapes(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkDriveWithBlendshapes",
            display_name="Drive with Blendshapes (MGGTalk)",
            category="MGGTalk/drive",
            description="Motion from recorded or typed ARKit blendshapes.",
            search_aliases=["arkit", "live link face", "face capture", "keyframes", "expression timeline", "mggtalk"],
            inputs=[
                io.DynamicCombo.Input(
                    "source",
                    options=[
                        io.DynamicCombo.Option(
                            "file",
                            [
                                io.Combo.Input(
                                    "file",
                                    options=host.user_files(".csv"),
                                    tooltip="A Live Link Face recording, or any CSV with ARKit columns, in ComfyUI's "
                                    "input folder, or its output folder (marked [output]).",
                                )
                            ],
                        ),
                        io.DynamicCombo.Option(
                            "timeline",
                            [
                                io.String.Input(
                                    "timeline",
                                    multiline=True,
                                    default="0.0: jawOpen=0\n0.4: jawOpen=0.5, mouthSmile=0.3\n1.0: jawOpen=0, "
                                    "mouthSmile=0.6, headYaw=10",
                                    tooltip="One key per line: seconds, a colon, names with values. 52 ARKit shapes "
                                    "from 0 to 1 (a name without Left or Right means both), and headYaw, headPitch, "
                                    "headRoll in degrees. Values go in straight lines from key to key.",
                                )
                            ],
                        ),
                    ],
                    tooltip="'file' reads a recording, 'timeline' is typed here.",
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=120.0,
                    step=0.001,
                    tooltip="Frames per second of the motion. A recording of another rate is resampled.",
                ),
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="For the render nodes and the editor.")],
        )

    @classmethod
    def fingerprint_inputs(cls, source, fps):
        return os.stat(host.user_file(source["file"])).st_mtime_ns if source["source"] == "file" else None

    @classmethod
    def execute(cls, source, fps) -> io.NodeOutput:
        from ..mggtalk_core.motion.blendshape_csv import read_motion_csv
        from ..mggtalk_core.motion.tools import resample

        if source["source"] == "timeline":
            with host.errors_named("Drive with Blendshapes", "timeline"):
                return io.NodeOutput(expressions.parse_timeline(source["timeline"], fps))
        with host.errors_named("Drive with Blendshapes", "file"):
            motion = read_motion_csv(host.user_file(source["file"]))
        host.show_warnings(motion.warnings, cls.hidden.unique_id)
        return io.NodeOutput(resample(motion, fps))
