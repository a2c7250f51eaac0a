"""Render Gaussians, Render to Video and Camera Orbit: a head and its motion become pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from comfy_api.latest import InputImpl, io

from ..mggtalk_core.errors import InputError
from ..mggtalk_core.gaussians.head import GaussianHead
from ..mggtalk_core.media.audio import Audio
from ..mggtalk_core.media.provenance import make_provenance, mp4_tags
from ..mggtalk_core.media.video_writer import VideoWriter
from ..mggtalk_core.types import Motion
from . import cameras, expressions, host, types

BYTES_PER_PIXEL = 4 * 4  # float32 of IMAGE and MASK


def _shared_inputs() -> list[io.Input]:
    """The widgets both render nodes have."""
    return [
        types.Head.Input("head", tooltip="From Predict Invisible Params or Load Head."),
        types.Motion.Input(
            "motion",
            optional=True,
            tooltip="From one of the drivers. Without it the photo's own face is rendered, once.",
        ),
        io.MultiType.Input(
            "camera",
            types=[types.Camera, io.Load3DCamera],
            optional=True,
            tooltip="From Camera Orbit, or ComfyUI's camera info. Without it the photo's camera is used.",
        ),
        types.Model.Input(
            "model",
            optional=True,
            tooltip="From Load MGGTalk: lets its network touch up mouth and eyes in the finished frames, where the "
            "checkpoint has one. Without it the frames are as rendered.",
        ),
        io.Int.Input(
            "size",
            default=512,
            min=64,
            max=2048,
            step=16,
            tooltip="Width and height of the picture in pixels: 256 is fast, 512 matches the portrait, above that only "
            "edges gain. With framing 'paste' the photo's own size is used instead.",
        ),
        io.DynamicCombo.Input(
            "background",
            options=[
                io.DynamicCombo.Option("photo", []),
                io.DynamicCombo.Option(
                    "color", [io.Color.Input("color", default="#808080", tooltip="Behind the head.")]
                ),
                io.DynamicCombo.Option("transparent", []),
                io.DynamicCombo.Option(
                    "image",
                    [
                        io.Image.Input(
                            "image",
                            tooltip="Your picture, scaled to fill; or one per frame.",
                        )
                    ],
                ),
            ],
            tooltip="What is behind the head: the photo's background with the person removed, one colour, nothing "
            "(black, with the mask telling where), or your own picture.",
        ),
        io.Combo.Input(
            "framing",
            options=["crop", "paste"],
            default="crop",
            tooltip="'crop' shows the square portrait. 'paste' puts the moving head back into the whole photo, at the "
            "photo's size; it needs the photo's camera and background.",
        ),
        io.Int.Input(
            "start_frame",
            default=0,
            min=0,
            max=10_000_000,
            advanced=True,
            tooltip="First frame of the motion to render; for rendering a long clip in parts.",
        ),
        io.Int.Input(
            "frame_count",
            default=0,
            min=0,
            max=10_000_000,
            advanced=True,
            tooltip="How many frames to render; 0 renders all that follow.",
        ),
    ]


def _count(node: str, motion: Motion, start_frame: int, frame_count: int) -> int:
    """Frames to render.

    Raises InputError when `start_frame` lies behind the motion's end.
    """
    if start_frame >= len(motion):
        raise InputError(
            f"{node}, input 'start_frame': frame {start_frame} does not exist, the motion has {len(motion)} frames "
            f"(0 to {len(motion) - 1})"
        )
    left = len(motion) - start_frame
    return min(frame_count, left) if frame_count else left


def _background(node: str, background: dict):
    """The core's background from the combo's choice."""
    kind = background["background"]
    if kind == "color":
        value = background["color"].lstrip("#")
        try:
            return tuple(int(value[i : i + 2], 16) / 255 for i in (0, 2, 4))
        except ValueError:
            raise InputError(f"{node}, input 'color': '{background['color']}' is not a colour like #808080") from None
    if kind == "image":
        pictures = background["image"][..., :3].mul(255).round().clamp(0, 255).byte().cpu().numpy()
        return pictures if len(pictures) > 1 else pictures[0]
    return kind


def _camera(camera, head: GaussianHead, motion: Motion, size: int, stop: int):
    """The core's camera: None for the photo's, one for all frames, or one per frame of the motion up to `stop`."""
    if isinstance(camera, cameras.CameraPath):
        return camera.cameras(head.camera.resized(size, size), np.arange(stop) / motion.fps)
    if isinstance(camera, dict):
        return cameras.from_camera_info(camera, size, size)
    return None


@dataclass(frozen=True)
class _Job:
    """What both render nodes do, read from their inputs."""

    motion: Motion
    count: int
    frames: Iterator[tuple[np.ndarray, np.ndarray]]  # rgb (H, W, 3) and alpha (H, W), uint8


def _job(node, head, motion, camera, model, size, background, framing, start_frame, frame_count) -> _Job:
    """Starts rendering, under the eyes of progress and Cancel."""
    from ..mggtalk_core.rendering.frames import render_frames  # compiles kernels: not while ComfyUI starts

    motion = expressions.for_head(motion, head)
    count = _count(node, motion, start_frame, frame_count)
    if framing == "paste" and (camera is not None or background["background"] != "photo"):
        raise InputError(
            f"{node}, input 'framing': 'paste' puts the head back into the photo, so disconnect the camera and choose "
            "background 'photo'"
        )
    frames = render_frames(
        head,
        motion,
        camera=_camera(camera, head, motion, size, start_frame + count),
        size=size,
        background=_background(node, background),
        framing=framing,
        start=start_frame,
        count=count,
        inpainter=None if model is None else model.on_device().inpainter,
    )
    return _Job(motion, count, host.watched(frames, count, picture=lambda frame: frame[0]))


class RenderGaussians(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkRender",
            display_name="Render Gaussians (MGGTalk)",
            category="MGGTalk/render",
            description="Renders the moving head as pictures. All frames are held in memory, as IMAGE always does; "
            "for more than a minute use Render to Video.",
            search_aliases=["gaussian splatting", "render head", "animate portrait", "mggtalk"],
            inputs=_shared_inputs(),
            outputs=[
                io.Image.Output(display_name="images", tooltip="One picture per frame, for Create Video."),
                io.Mask.Output(display_name="mask", tooltip="1 on the person, 0 on the background."),
            ],
        )

    @classmethod
    def execute(
        cls, head, size, background, framing, start_frame, frame_count, motion=None, camera=None, model=None
    ) -> io.NodeOutput:
        node = "Render Gaussians"
        job = _job(node, head, motion, camera, model, size, background, framing, start_frame, frame_count)
        for index, (rgb, alpha) in enumerate(job.frames):
            if index == 0:
                _check_memory(node, job.count * alpha.size * BYTES_PER_PIXEL)
                images = torch.empty(job.count, *rgb.shape)
                masks = torch.empty(job.count, *alpha.shape)
            images[index] = torch.from_numpy(rgb)
            masks[index] = torch.from_numpy(alpha)
        return io.NodeOutput(images.div_(255), masks.div_(255))


def _check_memory(node: str, needed: int) -> None:
    """Refuses a clip that would fill the memory half-way through."""
    import psutil

    available = psutil.virtual_memory().available
    if needed > 0.9 * available:
        raise InputError(
            f"{node}, input 'frame_count': these frames need {needed / 2**30:.1f} GB and {available / 2**30:.1f} GB "
            "are free; use Render to Video, which streams, or render parts with start_frame and frame_count"
        )


class RenderToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkRenderVideo",
            display_name="Render to Video (MGGTalk)",
            category="MGGTalk/render",
            description="Renders the moving head straight into an H.264 video with sound. Memory stays the same "
            "however long the clip is. Connect Save Video to keep the file.",
            search_aliases=["gaussian splatting", "talking video", "streaming render", "mggtalk"],
            inputs=[
                *_shared_inputs(),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The sound of the video, kept whole. Connect the speech that drives the head.",
                ),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="For Save Video.")],
        )

    @classmethod
    def execute(
        cls, head, size, background, framing, start_frame, frame_count, motion=None, camera=None, model=None, audio=None
    ) -> io.NodeOutput:
        node = "Render to Video"
        job = _job(node, head, motion, camera, model, size, background, framing, start_frame, frame_count)
        sound = None if audio is None else _sound(host.audio_from(audio, node), job, start_frame)
        path, _, _ = host.new_output("mggtalk/render", ".mp4", folder="temp")
        provenance = make_provenance(composite=background["background"] == "photo", sources={}, settings={})
        first, _ = next(job.frames)
        height, width = first.shape[:2]
        with VideoWriter(path, width, height, job.motion.fps, audio=sound, metadata=mp4_tags(provenance)) as video:
            video.write(first)
            for rgb, _ in job.frames:
                video.write(rgb)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)))


def _sound(audio: Audio, job: _Job, start: int) -> Audio | None:
    """The part of the sound that belongs to the rendered frames; to its end when they reach the motion's end."""
    samples_per_frame = audio.sample_rate / job.motion.fps
    stop = start + job.count
    end = audio.samples if stop == len(job.motion) else round(stop * samples_per_frame)
    waveform = audio.waveform[:, round(start * samples_per_frame) : end]
    return Audio(waveform, audio.sample_rate) if waveform.size else None


class CameraOrbit(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        angle = {"min": -90.0, "max": 90.0, "step": 1.0}
        return io.Schema(
            node_id="MGGTalkCameraOrbit",
            display_name="Camera Orbit (MGGTalk)",
            category="MGGTalk/render",
            description="A camera that looks at the head from elsewhere, or moves around it while it talks. Angles "
            "are counted from the photo's own camera.",
            search_aliases=["camera path", "turntable", "novel view", "mggtalk"],
            inputs=[
                io.DynamicCombo.Input(
                    "path",
                    options=[
                        io.DynamicCombo.Option(
                            "swing",
                            [
                                io.Float.Input(
                                    "yaw",
                                    default=20.0,
                                    **angle,
                                    tooltip="How far to each side, degrees: 0 stays in "
                                    "front, 20 is safe, beyond 45 the head's guessed side shows.",
                                ),
                                io.Float.Input(
                                    "pitch",
                                    default=4.0,
                                    **angle,
                                    tooltip="How far up and down, degrees: 0 stays "
                                    "level, 20 looks from above and below.",
                                ),
                                io.Float.Input(
                                    "seconds",
                                    default=6.0,
                                    min=0.5,
                                    max=600.0,
                                    step=0.1,
                                    tooltip="Duration of one swing to both sides and back: 2 is hectic, 6 calm.",
                                ),
                            ],
                        ),
                        io.DynamicCombo.Option(
                            "move",
                            [
                                io.Float.Input("from_yaw", default=-20.0, **angle, tooltip="Degrees to the right."),
                                io.Float.Input("from_pitch", default=0.0, **angle, tooltip="Degrees up."),
                                io.Float.Input("to_yaw", default=20.0, **angle, tooltip="Degrees to the right."),
                                io.Float.Input("to_pitch", default=0.0, **angle, tooltip="Degrees up."),
                                io.Float.Input(
                                    "seconds",
                                    default=5.0,
                                    min=0.1,
                                    max=600.0,
                                    step=0.1,
                                    tooltip="Duration of the move: 1 is quick, 10 slow; the camera rests after it.",
                                ),
                            ],
                        ),
                        io.DynamicCombo.Option(
                            "still",
                            [
                                io.Float.Input(
                                    "yaw", default=20.0, **angle, tooltip="Degrees to the right, negative to the left."
                                ),
                                io.Float.Input("pitch", default=0.0, **angle, tooltip="Degrees up, negative down."),
                            ],
                        ),
                    ],
                    tooltip="'swing' goes from side to side again and again, 'move' goes once from one place to "
                    "another, 'still' stays in one place.",
                ),
                io.Float.Input(
                    "distance",
                    default=1.0,
                    min=0.3,
                    max=4.0,
                    step=0.05,
                    tooltip="How far away, as a multiple of the photo's distance: 0.5 fills the picture with the face, "
                    "1 is as in the photo, 2 shows the head small.",
                ),
            ],
            outputs=[types.Camera.Output(display_name="camera", tooltip="For the render nodes.")],
        )

    @classmethod
    def execute(cls, path, distance) -> io.NodeOutput:
        kind = path["path"]
        if kind == "swing":
            times = np.linspace(0, path["seconds"], 121)
            phase = 2 * np.pi * times / path["seconds"]
            yaw, pitch = path["yaw"] * np.sin(phase), path["pitch"] * np.sin(2 * phase)
        elif kind == "move":
            times = np.linspace(0, path["seconds"], 61)
            ease = (1 - np.cos(np.pi * times / path["seconds"])) / 2
            yaw = path["from_yaw"] + (path["to_yaw"] - path["from_yaw"]) * ease
            pitch = path["from_pitch"] + (path["to_pitch"] - path["from_pitch"]) * ease
        else:
            times = np.array([0.0])
            yaw, pitch = np.array([path["yaw"]]), np.array([path["pitch"]])
        return io.NodeOutput(
            cameras.CameraPath(times, yaw, pitch, np.full(len(times), distance), repeat=kind == "swing")
        )
