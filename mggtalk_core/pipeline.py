"""The whole way on one page: photo -> portrait -> points -> Gaussians -> head; speech or video -> motion -> frames."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image

from .errors import InputError
from .gaussians.head import GaussianHead
from .gaussians.personalize import frames_of_clip, personalize
from .gaussians.sgp import predict_invisible, predict_visible
from .geometry.dsgr import HEAD_PRIOR, build_points, estimate_depth
from .media.audio import read_audio
from .media.files import atomic_path, require_output
from .media.image import read_photo
from .media.provenance import hash_file, make_provenance, mp4_tags, png_metadata, write_sidecar
from .media.video_reader import VideoReader
from .media.video_writer import VideoWriter
from .model import MGGTalkModel
from .motion.audio.drive import drive_with_audio
from .motion.onto_portrait import onto_portrait
from .motion.video import MissingFace, track_video
from .portrait.analysis import analyze_portrait
from .rendering.camera import orbit
from .rendering.frames import Background, render_frames
from .types import Camera, Motion
from .weights import EMBEDDED, load_model

Progress = Callable[[int, int], None]

ORBIT_YAW, ORBIT_PITCH, ORBIT_SECONDS = 0.30, 0.06, 6.0
"""`camera="orbit"`: sways so far to both sides and up and down (radians), once around in so many seconds."""


def build_head(
    photo: np.ndarray,
    *,
    model: MGGTalkModel | None = None,
    size: int = 512,
    face_index: int = 0,
    further_photos: Sequence[np.ndarray] = (),
    depth_source: str = HEAD_PRIOR,
) -> GaussianHead:
    """A talking head from a photo (H, W, 3) float32 0..1 sRGB; `size` is the side of the analysed crop in pixels.

    `further_photos` of the same person, in other poses and expressions, correct what one photo leaves to guessing.
    `depth_source` is "head prior" or a transformers depth model (folder or hub id) for hair, ears and shoulders.

    Raises:
        InputError: there is no usable face in a photo.
    """
    model = model or MGGTalkModel()
    portrait = analyze_portrait(
        photo, size=size, face_index=face_index, matting=model.matting, spectacles=model.spectacles
    )
    depth_map = estimate_depth(portrait, source=depth_source, model=model)
    points = build_points(portrait, depth_map)
    visible = predict_visible(model, points)
    return personalize(predict_invisible(model, visible), portrait, list(further_photos))


def animate(
    image: str | os.PathLike,
    audio: str | os.PathLike,
    output: str | os.PathLike,
    *,
    fps: float = 25.0,
    seed: int = 0,
    **options,
) -> dict:
    """A photo speaks what is in a sound file: writes an MP4, returns a report. `options`: see `render_video`."""
    output = require_output(output, suffixes=(".mp4", ".mov"))
    seconds: dict[str, float] = {}
    with _timed(seconds, "drive"):
        speech = read_audio(audio, sample_rate=16_000, channels=1)
    report = render_video(
        image, lambda: drive_with_audio(speech.waveform, speech.sample_rate, fps, seed=seed), output, audio=audio,
        sources={"audio": audio}, settings={"seed": seed}, seconds=seconds, **options,
    )  # fmt: skip
    return {**report, "audio_s": speech.seconds}


def reenact(
    image: str | os.PathLike,
    video: str | os.PathLike,
    output: str | os.PathLike,
    *,
    missing: MissingFace = "interpolate",
    progress: Progress | None = None,
    **options,
) -> dict:
    """A photo moves as the person in a video does, with the video's sound: writes an MP4, returns a report."""
    output = require_output(output, suffixes=(".mp4", ".mov"))
    reader = VideoReader(video)

    def track() -> Motion:
        total = reader.frame_estimate or 0
        return track_video(
            (frame.rgb for frame in reader.frames(reader.fps)), float(reader.fps), missing=missing,
            progress=(lambda done: progress(done, max(done, total))) if progress else None,
        )  # fmt: skip

    return render_video(
        image, track, output, audio=video if reader.has_audio else None, audio_delay=reader.audio_delay,
        sources={"video": video}, settings={"missing": missing}, progress=progress, **options,
    )  # fmt: skip


def render_video(
    image: str | os.PathLike,
    make_motion: Callable[[], Motion],
    output: str | os.PathLike,
    *,
    audio: str | os.PathLike | None = None,
    audio_delay: float = 0.0,
    size: int = 512,
    camera: str | Camera | Sequence[Camera] | None = None,
    framing: str = "crop",
    background: Background = "photo",
    face_index: int = 0,
    further_images: Sequence[str | os.PathLike] = (),
    video_source: str | os.PathLike | None = None,
    depth_source: str = HEAD_PRIOR,
    checkpoint: str | None = None,
    provenance: bool = True,
    progress: Progress | None = None,
    sources: dict[str, str | os.PathLike] | None = None,
    settings: dict | None = None,
    seconds: dict[str, float] | None = None,
) -> dict:
    """Build the head of a photo, move it, and stream the frames into an MP4 with the given sound.

    Args:
        make_motion: called once the head is built, so that a bad photo is refused before an hour of sound is heard.
        audio_delay: seconds the sound starts after the picture.
        camera: None for the photo's view, "orbit" to sway around the head, or cameras.
        further_images, video_source: more photos, or a short clip, of the same person.
        seconds: stages already done; the report adds build, drive, render and encode.

    Raises:
        InputError: unusable photo, output, size or checkpoint.
    """
    if not 64 <= size <= 2048:
        raise InputError(f"size {size} is not usable; give 64 to 2048 pixels (512 is the default)")
    seconds = {} if seconds is None else seconds
    with _timed(seconds, "build"):
        further = [read_photo(path) for path in further_images] + (frames_of_clip(video_source) if video_source else [])
        model = load_model(checkpoint)
        head = build_head(
            read_photo(image), model=model, size=size, face_index=face_index, further_photos=further,
            depth_source=depth_source,
        )  # fmt: skip
    with _timed(seconds, "drive"):
        motion = onto_portrait(make_motion(), head)
    if camera == "orbit":
        camera = orbit_cameras(head.camera.resized(size, size), len(motion), motion.fps)
    record = make_provenance(
        composite=isinstance(background, str) and background == "photo",
        sources={
            "image": image, **{f"further_image_{index}": path for index, path in enumerate(further_images, 1)},
            **({"video_source": video_source} if video_source else {}), **(sources or {}),
        },
        checkpoint_sha256=_checkpoint_sha256(checkpoint),
        settings={"size": size, "fps": motion.fps, "framing": framing, **(settings or {})},
    )  # fmt: skip
    frames = render_frames(
        head, motion, camera=camera, size=size, background=background, framing=framing, inpainter=model.inpainter
    )
    seconds["encode"] = 0.0
    begin = time.perf_counter()
    first, _ = next(frames)
    height, width = first.shape[:2]
    with VideoWriter(
        output, width, height, motion.fps, audio=audio, audio_delay=audio_delay,
        metadata=mp4_tags(record) if provenance else None,
    ) as video:
        for done, rgb in enumerate(_with_first(first, frames), start=1):
            with _timed(seconds, "encode"):
                video.write(rgb)
            if progress:
                progress(done, len(motion))
    seconds["render"] = time.perf_counter() - begin - seconds["encode"]
    if provenance:
        write_sidecar(output, record)
    return {
        "output": str(output),
        "frames": len(motion),
        "fps": motion.fps,
        "duration_s": len(motion) / motion.fps,
        "width": width + width % 2,  # 4:2:0 video has no odd sizes
        "height": height + height % 2,
        "gaussians": len(head),
        "missing_frames": motion.missing_frames,
        "seconds": seconds,
        "render_fps": len(motion) / seconds["render"],
        "peak_rss_mb": peak_memory_mb(),
        "warnings": [*head.warnings, *motion.warnings],
    }


def write_still(
    head: GaussianHead, output: str | os.PathLike, *, image: str | os.PathLike, checkpoint: str | None = None
) -> None:
    """The head at rest, seen as in its photo, as a PNG with a transparent background that says it is generated.

    Args:
        image, checkpoint: what the head was built from, for the provenance.

    Raises:
        InputError: the file can't be written.
    """
    none = np.zeros((1, 3), np.float32)
    rest = Motion(head.source_expression.numpy()[None], none, none, 25.0)
    rgb, alpha = next(render_frames(head, rest, size=head.crop_size, background="transparent"))
    straight = (rgb * (255 / np.maximum(alpha, 1)[..., None])).clip(0, 255)  # PNG does not hold premultiplied colours
    picture = Image.fromarray(np.dstack([straight.round().astype(np.uint8), alpha]))
    record = make_provenance(
        composite=False, sources={"image": image}, settings={"size": head.crop_size},
        checkpoint_sha256=_checkpoint_sha256(checkpoint),
    )  # fmt: skip
    with atomic_path(output, (".png",)) as temporary:
        picture.save(temporary, pnginfo=png_metadata(record))
    write_sidecar(output, record)


def _checkpoint_sha256(checkpoint: str | None) -> str | None:
    """Hash of the checkpoint used, None when there is none and the priors ran alone."""
    weights = checkpoint or EMBEDDED
    return hash_file(weights) if os.path.exists(weights) else None


def orbit_cameras(camera: Camera, count: int, fps: float) -> list[Camera]:
    """`count` cameras that sway around the head, starting from `camera`."""
    angles = 2 * np.pi * np.arange(count) / (fps * ORBIT_SECONDS)
    return [orbit(camera, ORBIT_YAW * np.sin(angle), ORBIT_PITCH * np.sin(2 * angle)) for angle in angles]


def peak_memory_mb() -> float | None:
    """The process's peak resident memory in MB; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def _with_first(first: np.ndarray, rest: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
    yield first
    for rgb, _ in rest:
        yield rgb


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - begin
