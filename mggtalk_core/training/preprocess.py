"""`mggtalk preprocess`: a folder of videos -> tracked, cropped, masked clips. Resumable; reports what it skipped."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageSequence

from ..errors import InputError
from ..headmodel.fitting import fit_landmarks, personal_landmark_model
from ..headmodel.landmarks import INNER_FACE
from ..headmodel.model import load_head_model
from ..media.video_reader import VideoReader
from ..portrait.analysis import analyze_portrait
from ..portrait.crop import cut_square
from ..portrait.parsing import SEEN_FACE, coarse_person_mask, face_share, person_mask
from ..portrait.tracking import FaceTracker
from ..types import Portrait
from .clips import Clip, read_clip, to_jpeg, write_clip

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".mpg", ".mov", ".webm", ".mkv", ".avi")
PICTURE_SUFFIXES = (".webp", ".gif")

TRACKING_SIZE = 512
"""Frames are tracked at this size, whatever size is stored."""

MAX_SOURCE_ERROR = 0.025
MAX_FRAME_ERROR = 0.03
"""Mean landmark error in inter-ocular distances above which a source, or a frame, is not used."""

MAX_TURN = 35.0
"""Degrees between a frame and the source."""

MAX_SHIFT = 0.2
"""Metres the head may move parallel to the picture: beyond, it leaves the crop."""

CUT_DIFFERENCE = 0.20
"""Mean absolute difference of two sampled frames above which the video was cut; the clip ends there."""

MIN_FRAMES = 8

MIN_FACE = 90.0
"""Pixels; smaller faces have nothing to teach at the size they are stored."""

SHEET_TILE, SHEET_COLUMNS, SHEET_LETTERS = 160, 8, 25
"""Side of a frame on the contact sheet in pixels, frames to a row, letters of a name that fit."""


@dataclass(frozen=True)
class TrackedFrame:
    """One accepted frame."""

    picture: np.ndarray  # (S, S, 3)
    landmarks: np.ndarray  # (478, 2) pixels of the tracking crop
    scores: np.ndarray  # (52,)
    expression: np.ndarray  # (52,)
    rotation: np.ndarray  # (3, 3)
    translation: np.ndarray  # (3,)


def preprocess(videos: str, output: str, *, size: int = 256, max_frames: int = 40) -> dict:
    """Track every video (or animated WebP/GIF) of a folder into `output`, at most `max_frames` frames of each.

    Videos whose clip exists already are left alone. Returns counts and the reasons for what was skipped; `clips.png`
    in `output` shows each clip's first frame, because not every face that tracks well is a person's: dogs' do, too.

    Raises:
        InputError: the folder does not exist or holds no video.
    """
    folder = Path(videos)
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES + PICTURE_SUFFIXES)
    if not paths:
        raise InputError(f"no videos in {folder}; expected files ending in {', '.join(VIDEO_SUFFIXES)}")
    target = Path(output)
    target.mkdir(parents=True, exist_ok=True)
    report: dict = {"videos": len(paths), "written": 0, "present": 0, "frames": 0, "skipped": {}}
    for path in paths:
        name = "_".join(path.relative_to(folder).with_suffix("").parts)
        if (target / f"{name}.safetensors").exists():
            report["present"] += 1
            continue
        try:
            clip = track_clip(name, read_frames(path, max_frames), size)
        except InputError as error:
            report["skipped"][name] = str(error)
            log.info("%s: %s", name, error)
            continue
        write_clip(clip, target / f"{name}.safetensors")
        report["written"] += 1
        report["frames"] += len(clip)
        log.info("%s: %d frames", name, len(clip))
    clips = sorted(target.glob("*.safetensors"))
    if clips:
        Image.fromarray(contact_sheet(clips)).save(target / "clips.png")
    return report


def contact_sheet(clips: list[Path]) -> np.ndarray:
    """First frames of clips, SHEET_COLUMNS to a row, with the files' names: (H, W, 3) uint8."""
    rows = -(-len(clips) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * SHEET_TILE, rows * SHEET_TILE))
    draw = ImageDraw.Draw(sheet)
    for number, path in enumerate(clips):
        corner = (number % SHEET_COLUMNS * SHEET_TILE, number // SHEET_COLUMNS * SHEET_TILE)
        first = Image.fromarray(np.round(read_clip(path).picture(0) * 255).astype(np.uint8))
        sheet.paste(first.resize((SHEET_TILE, SHEET_TILE)), corner)
        name = path.stem[:SHEET_LETTERS]
        draw.text((corner[0] + 2, corner[1] + 2), name, fill="white", stroke_width=1, stroke_fill="black")
    return np.asarray(sheet)


def read_frames(path: Path, max_frames: int) -> list[np.ndarray]:
    """At most `max_frames` frames (H, W, 3) uint8 spread over the whole video."""
    if path.suffix.lower() in PICTURE_SUFFIXES:
        with Image.open(path) as animation:
            wanted = _spread(animation.n_frames, max_frames)
            return [
                np.asarray(frame.convert("RGB"))
                for number, frame in enumerate(ImageSequence.Iterator(animation))
                if number in wanted
            ]
    count = sum(1 for _ in VideoReader(path))
    wanted = _spread(count, max_frames)
    return [frame.rgb for frame in VideoReader(path) if frame.index in wanted]


def _spread(count: int, wanted: int) -> set[int]:
    return set(np.linspace(0, count - 1, min(count, wanted)).round().astype(int).tolist())


def track_clip(name: str, frames: list[np.ndarray], size: int) -> Clip:
    """Track frames (H, W, 3) uint8 relative to the first one; the crop stays where it is.

    Raises:
        InputError: no usable face in the first frame, or too few usable frames.
    """
    _require_one_large_face(frames)
    source = analyze_portrait(frames[0].astype(np.float32) / 255, size=TRACKING_SIZE)
    error = float(source.fit.error[INNER_FACE].mean())
    if error > MAX_SOURCE_ERROR:
        raise InputError(f"the first frame's face fits badly (landmark error {error:.3f})")
    share = face_share(coarse_person_mask(source.image), source.landmarks)
    if share < SEEN_FACE:
        raise InputError(f"only {100 * share:.0f} % of the first frame's face is recognised as a person")
    head = load_head_model()
    model = personal_landmark_model(head, source.vertices, source.fit.expression)
    tracked = list(_track(frames, source, model))
    if len(tracked) < MIN_FRAMES:
        raise InputError(f"only {len(tracked)} of {len(frames)} frames are usable")
    scale = size / TRACKING_SIZE
    K = source.camera.K.copy()
    K[:2] *= scale
    pictures = [_shrink(frame.picture, size) for frame in tracked]
    return Clip(
        name=name,
        frames=tuple(to_jpeg(picture) for picture in pictures),
        alphas=tuple(to_jpeg(person_mask(picture)) for picture in pictures),
        landmarks=np.array([frame.landmarks * scale for frame in tracked], np.float32),
        scores=np.array([frame.scores for frame in tracked], np.float32),
        expression=np.array([frame.expression for frame in tracked], np.float32),
        rotation=np.array([frame.rotation for frame in tracked], np.float32),
        translation=np.array([frame.translation for frame in tracked], np.float32),
        neutral_landmarks=model.neutral.astype(np.float32),
        K=K.astype(np.float32),
    )


def _require_one_large_face(frames: list[np.ndarray]) -> None:
    """Raises InputError unless the first frame plainly shows one person; portraits get more patience than clips."""
    if len(frames) < MIN_FRAMES:
        raise InputError(f"only {len(frames)} frames")
    with FaceTracker(min_confidence=0.5) as tracker:
        faces = tracker.detect(frames[0])
    if len(faces) != 1 or faces[0].size < MIN_FACE:
        sizes = f" ({', '.join(f'{face.size:.0f}' for face in faces)} pixels)" if faces else ""
        raise InputError(f"{len(faces)} faces in the first frame{sizes}; one of {MIN_FACE:.0f} pixels or more needed")


def _track(frames: list[np.ndarray], source: Portrait, model) -> Iterator[TrackedFrame]:
    """Usable frames with expression and pose fitted by the person's own landmark model."""
    side = source.crop_to_photo[0, 0] * TRACKING_SIZE
    centre = source.crop_to_photo[:, 2] + side / 2
    first = previous = source.fit
    before = None
    with FaceTracker(max_faces=1) as tracker:
        for frame in frames:
            picture = cut_square(frame.astype(np.float32) / 255, centre, side, TRACKING_SIZE)[0]
            if before is not None and np.abs(picture - before).mean() > CUT_DIFFERENCE:
                return
            before = picture
            found = tracker.detect(np.round(picture * 255).astype(np.uint8))
            if not found:
                continue
            face = found[0]
            fit = fit_landmarks(
                face.landmarks, face.scores, model, source.camera.K, start=previous, expression_sigma=0.15
            )
            turn = np.degrees(np.arccos(np.clip((np.trace(fit.rotation @ first.rotation.T) - 1) / 2, -1, 1)))
            shift = np.abs(fit.translation - first.translation)[:2].max()
            if fit.error[INNER_FACE].mean() > MAX_FRAME_ERROR or turn > MAX_TURN or shift > MAX_SHIFT:
                previous = first
                continue
            previous = fit
            yield TrackedFrame(picture, face.landmarks, face.scores, fit.expression, fit.rotation, fit.translation)


def _shrink(picture: np.ndarray, size: int) -> np.ndarray:
    """Antialiased square picture (size, size, C)."""
    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(c, np.float32)).resize((size, size), Image.Resampling.BOX))
        for c in np.moveaxis(picture, -1, 0)
    ]
    return np.stack(channels, -1).clip(0, 1)
