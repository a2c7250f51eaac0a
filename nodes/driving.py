"""The drivers: speech, video or blendshapes become motion."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction

import numpy as np
import torch
from comfy_api.latest import io

from ..mggtalk_core.errors import InputError
from ..mggtalk_core.media.timing import exact_fps
from ..mggtalk_core.media.video_reader import VideoReader
from . import host, types

USUAL_FPS = 25.0

WHISPER_TINY = "Whisper-tiny"

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
                    options=[WHISPER_TINY, *host.model_files(".safetensors")],
                    default=WHISPER_TINY,
                    advanced=True,
                    tooltip="'Whisper-tiny' is the speech model that comes with the pack. A mouth head you trained "
                    "yourself appears here when it lies in ComfyUI/models/mggtalk.",
                ),
                io.AudioEncoderOutput.Input(
                    "encoded_audio",
                    optional=True,
                    tooltip="From ComfyUI's AudioEncoderEncode on the same audio: saves encoding it again. Choose as "
                    "'encoder' the mouth head that was trained on that encoder.",
                ),
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="For the render nodes and the editor.")],
            hidden=[io.Hidden.unique_id],
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
        encoded_audio=None,
    ) -> io.NodeOutput:
        from ..mggtalk_core.motion.audio.drive import Style, drive_with_audio, drive_with_encoded_audio

        clip = host.audio_from(audio, "Drive with Audio")
        head_file = None if encoder == WHISPER_TINY else host.model_path(encoder)
        style = Style(mouth_scale, expression_scale, head_motion_scale, blink_scale, look_at_camera, seed)
        if encoded_audio is None:
            with host.errors_named("Drive with Audio", "audio"):
                motion = host.cancellable(
                    drive_with_audio, clip.waveform, clip.sample_rate, fps, encoder=head_file, **asdict(style),
                    progress=host.progress_bar(cls.hidden.unique_id),
                )  # fmt: skip
        else:
            with host.errors_named("Drive with Audio", "encoded_audio"):
                if head_file is None:
                    raise InputError(
                        f"'encoder' is {WHISPER_TINY}, which ComfyUI can't encode with; choose there the mouth head "
                        "that was trained on the connected encoder"
                    )
                motion = host.cancellable(
                    drive_with_encoded_audio, encoded_audio, clip.waveform, clip.sample_rate, fps, head_file, style
                )
        return io.NodeOutput(motion)


class DriveWithVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkDriveWithVideo",
            display_name="Drive with Video (MGGTalk)",
            category="MGGTalk/drive",
            description="Turns the face of a video into motion: expression as it is, head pose relative to the first "
            "frame that shows the face.",
            search_aliases=["reenactment", "video driven", "face tracking", "motion capture", "mggtalk"],
            inputs=[
                io.MultiType.Input(
                    "driving",
                    types=[io.Video, io.Image, types.FaceLandmarks],
                    tooltip="A VIDEO, a batch of frames, or the FACE_LANDMARKS of ComfyUI's Detect Face Landmarks. "
                    "The largest face of the first frame is followed.",
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=120.0,
                    step=0.001,
                    tooltip="Frames per second: 0 takes the video's own rate, and 25 for frames and landmarks, which "
                    "have none. Another number resamples a video, and is taken as the rate of frames and landmarks.",
                ),
                io.Combo.Input(
                    "missing_face",
                    options=["interpolate", "previous", "neutral", "error"],
                    default="interpolate",
                    tooltip="For frames without a face: go smoothly from the last to the next one seen, keep the last "
                    "one, relax to the neutral face, or stop with an error that names the frame.",
                ),
                io.Float.Input(
                    "smoothing",
                    default=0.02,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    advanced=True,
                    tooltip="Seconds over which the motion is averaged: 0 keeps every jitter of the tracker, 0.02 "
                    "calms it, 0.1 and more blurs speech.",
                ),
            ],
            outputs=[
                types.Motion.Output(display_name="motion", tooltip="For the render nodes and the editor."),
                io.Float.Output(display_name="fps", tooltip="The motion's frames per second, for Create Video."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, driving, fps, missing_face, smoothing) -> io.NodeOutput:
        from ..mggtalk_core.motion.video import motion_of_faces, track_video

        options = {"missing": missing_face, "smoothing": smoothing}
        with host.errors_named("Drive with Video", "driving"):
            if isinstance(driving, dict):
                faces = [max(found, key=lambda face: face.size, default=None) for found in host.faces_from(driving)]
                motion = motion_of_faces(host.watched(faces, len(faces)), fps or USUAL_FPS, **options)
            else:
                clip = video_clip(driving, fps)
                frames = host.watched(clip.frames, clip.count, picture=lambda frame: frame)
                motion = track_video(frames, float(clip.fps), **options)
        host.show_warnings(motion.warnings, cls.hidden.unique_id)
        return io.NodeOutput(motion, motion.fps)


@dataclass(frozen=True)
class Clip:
    """Frames of a driving video, decoded as they are asked for."""

    frames: Iterator[np.ndarray]  # (H, W, 3) uint8
    count: int  # expected
    fps: Fraction | float


def video_clip(driving, fps: float) -> Clip:
    """The frames of ComfyUI's VIDEO or IMAGE at `fps`, or at their own rate when it is 0."""
    if isinstance(driving, torch.Tensor):
        return Clip(map(_uint8, driving), len(driving), fps or USUAL_FPS)
    source = driving.get_stream_source()
    if not isinstance(source, str):  # a video that only exists in memory
        components = driving.get_components()
        rate = fps or float(components.frame_rate)
        count = max(1, round(len(components.images) / float(components.frame_rate) * rate))
        chosen = (min(int(k / rate * components.frame_rate), len(components.images) - 1) for k in range(count))
        return Clip((_uint8(components.images[index]) for index in chosen), count, rate)
    reader = VideoReader(source)
    rate = exact_fps(fps) if fps else reader.fps
    start, duration = driving.get_active_trim_window()
    end = start + duration if duration else float("inf")
    frames = itertools.takewhile(lambda frame: frame.time < end - 1e-6, reader.frames(rate))
    seconds = min(reader.seconds or 0.0, end) - start
    return Clip((frame.rgb for frame in frames if frame.time >= start - 1e-6), max(1, round(seconds * rate)), rate)


def _uint8(image: torch.Tensor) -> np.ndarray:
    """A picture (H, W, 3|4) 0..1 as (H, W, 3) uint8."""
    return image[..., :3].mul(255).round().clamp(0, 255).byte().cpu().numpy()


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
                                    default="0.0 rest\n0.5 jawOpen=0.5 mouthSmile=0.3\n1.2 smile yaw=10\n"
                                    "1.6 smile yaw=10 blink\n2.4 rest",
                                    tooltip="One key per line: seconds, then what the face does. Poses (rest, smile, "
                                    "laugh, sad, angry, surprise, blink, aa, ee, oo), any of the 52 ARKit shapes from "
                                    "0 to 1 (a name without Left or Right means both), and yaw, pitch, roll in "
                                    "degrees. What a line does not name goes back to 0.",
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
                    tooltip=FPS_TOOLTIP + " A recording of another rate is resampled.",
                ),
            ],
            outputs=[types.Motion.Output(display_name="motion", tooltip="For the render nodes and the editor.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, source, fps):
        return os.stat(host.user_file(source["file"])).st_mtime_ns if source["source"] == "file" else None

    @classmethod
    def execute(cls, source, fps) -> io.NodeOutput:
        from ..mggtalk_core.motion.blendshape_csv import read_motion_csv
        from ..mggtalk_core.motion.timeline import read_timeline
        from ..mggtalk_core.motion.tools import resample

        if source["source"] == "timeline":
            with host.errors_named("Drive with Blendshapes", "timeline"):
                return io.NodeOutput(read_timeline(source["timeline"], fps))
        with host.errors_named("Drive with Blendshapes", "file"):
            motion = read_motion_csv(host.user_file(source["file"]))
        host.show_warnings(motion.warnings, cls.hidden.unique_id)
        return io.NodeOutput(resample(motion, fps))
