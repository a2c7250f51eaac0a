"""Evaluation protocols: self-reenactment, cross-reenactment and lip sync, each beside baselines.

Self-reenactment follows the papers: the first frame of a clip is the source, the later frames drive it and are the
truth. Pictures are made as the product makes them (a crop of 512 pixels, pasted back into frames that are about square)
and compared at `size`. Clips, crops and trackers differ between papers: their figures are a direction, not a match.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from ..errors import InputError
from ..gaussians.head import GaussianHead
from ..gaussians.personalize import personalize
from ..gaussians.sgp import predict_invisible, predict_visible
from ..geometry.dsgr import build_points, estimate_depth
from ..media.audio import Audio, read_audio
from ..media.image import read_photo
from ..media.video_reader import VideoReader
from ..model import MGGTalkModel
from ..motion.audio.drive import drive_with_audio
from ..motion.audio.windows import loudness, to_mono_16k
from ..motion.onto_portrait import onto_portrait
from ..motion.video import DrivingPerson, track_video
from ..pipeline import build_head
from ..portrait.analysis import analyze_portrait
from ..portrait.parsing import coarse_person_mask
from ..portrait.tracking import FaceTracker, TrackedFace
from ..rendering.frames import render_frames
from ..types import Motion, Portrait
from ..weights import load_model
from . import lip_sync, masks
from . import motion_metrics as motion_metric
from .clips import Window, find_clips, resampled, sampled_frames
from .identity import MISSING, IdentityEncoder, cosine_similarity, identity_available
from .image_metrics import psnr, ssim
from .lip_tracking import track_lips, track_lips_of_frames
from .perceptual import NETWORKS, FrechetDistance, PerceptualDistance, why_missing
from .statistics import bootstrap_interval

Progress = Callable[[int, int], None]

HEAD_SIZE = 512
"""Side of the analysed crop, as `mggtalk animate` has it."""

BLUR_SIGMA = 1.0
"""Pixels of the blurred prior: blur alone raises PSNR, so a learned gain has to beat it."""

SOFT_SIGMA = 0.6
"""Pixels by which every variant's picture is blurred for the figures "at equal blur"."""

ABLATIONS = {
    "matting": "matting",
    "spectacles": "spectacles",
    "geo-refine": "geo_refine",
    "identity": "identity_encoder",
    "gaussian-decoder": "gaussian_decoder",
    "sym-decoder": "sym_gaussian_decoder",
    "mouth-tone": "mouth_tone",
    "densify": "densify",
    "deformation": "deformation",
    "inpainter": "inpainter",
    "symmetry": None,
    "filter": None,
    "light": None,
    "alignment": None,
}
"""Name -> the network of `MGGTalkModel` it takes away; None for stages without a network."""

OF_PHOTO = ("matting", "spectacles")
"""Those whose networks look at the photo itself."""

LANDMARKS_ALONE = "without alignment"


@dataclass(frozen=True)
class _Variant:
    """One way to make the pictures of a clip."""

    name: str
    head: GaussianHead | None  # None repeats the source frame
    inpainter: nn.Module | None = None
    expression: bool = True  # False keeps the source's expression: a rigid head
    blur: float = 0.0  # pixels of the compared picture
    landmarks_alone: bool = False  # the motion was not corrected by the frames' pictures

    @property
    def pictures(self) -> tuple[int, int, bool, bool]:
        """Equal for variants that are rendered alike."""
        return id(self.head), id(self.inpainter), self.expression, self.landmarks_alone


def self_reenactment(
    videos: Sequence[str | Path],
    *,
    every: int = 4,
    frames: int | None = None,
    size: int = 256,
    checkpoint: str | None = None,
    ablate: Sequence[str] = (),
    more_photos: int = 0,
    progress: Progress | None = None,
) -> dict:
    """Reproduces each clip from its first frame and compares; variants: full, prior, baselines, ablations.

    Args:
        videos: clips, or folders of clips.
        every, frames: use every n-th frame, at most so many.
        size: side of the compared pictures.
        ablate: names of `ABLATIONS`; each adds a variant without it.
        more_photos: adds a variant whose head knows so many more frames, spread over the clip; these do not count.

    Raises:
        InputError: unreadable clips, a first frame without a usable face, an unknown ablation.
    """
    check_ablations(ablate)
    model = load_model(checkpoint)
    absent = [name for name in ablate if ABLATIONS[name] and getattr(model, ABLATIONS[name]) is None]
    present = [name for name in ablate if name not in absent]
    clips, sets = [], defaultdict(FrechetDistance)
    for clip in find_clips(videos):
        source = next(sampled_frames(clip, every, frames))
        photo = source.astype(np.float32) / 255
        portrait = _portrait_of(photo, model)
        rate = float(VideoReader(clip).fps) / every
        variants = variants_of(portrait, model, present, partial(_portrait_of, photo))
        full = variants[0].head
        person = DrivingPerson.from_portrait(portrait, full)
        motions = {
            alone: track_video(
                sampled_frames(clip, every, frames), rate, missing="previous", smoothing=0,
                person=replace(person, alignment=None) if alone else person,
            )
            for alone in {variant.landmarks_alone for variant in variants}
        }  # fmt: skip
        known = {}
        if more_photos:
            chosen = set(np.linspace(1, len(motions[False]) - 1, more_photos + 2)[1:-1].round().astype(int).tolist())
            known = {n: frame for n, frame in enumerate(sampled_frames(clip, every, frames)) if n in chosen}
            photos = [frame.astype(np.float32) / 255 for frame in known.values()]
            taught = personalize(full, portrait, photos)
            variants.append(_Variant(f"with {more_photos} more photos", taught, model.inpainter))
        window = Window.of(portrait)
        truth = (window.view(frame) for frame in sampled_frames(clip, every, frames))
        rows = _compare(window, motions, variants, truth, size, sets, known.keys(), progress)
        clips.append({"clip": clip.name, "frames": len(motions[False]) - 1 - len(known), "variants": rows})
    settings = {"every": every, "size": size, "checkpoint": model.checkpoint}
    report = make_report("self-reenactment", clips, settings, sets)
    report["not_measured"] += [f"without {name}: the checkpoint has no such network" for name in absent]
    return report


def _head_of(portrait: Portrait, model: MGGTalkModel, **stages: bool) -> GaussianHead:
    """A portrait's head; `stages` switches parts of DSGR off."""
    points = build_points(portrait, estimate_depth(portrait, model=model), **stages)
    return predict_invisible(model, predict_visible(model, points))


def check_ablations(names: Sequence[str]) -> None:
    """Raises InputError for a name that is not one of `ABLATIONS`."""
    unknown = set(names) - set(ABLATIONS)
    if unknown:
        raise InputError(f"--ablate {sorted(unknown)[0]} is unknown; use one of {', '.join(ABLATIONS)}")


def variants_of(
    portrait: Portrait, model: MGGTalkModel, ablate: Sequence[str], analyzed: Callable[[MGGTalkModel], Portrait]
) -> list[_Variant]:
    """What is compared: the full pipeline, the prior alone where there are networks, baselines, ablations.

    `analyzed` makes the portrait that a model with fewer networks sees.
    """
    full = _head_of(portrait, model)
    variants = [_Variant("full", full, model.inpainter)]
    prior = full
    if any(isinstance(part, nn.Module) for part in vars(model).values()):
        bare = MGGTalkModel(device=model.device)
        prior = _head_of(analyzed(bare), bare)
        variants.append(_Variant("prior only", prior))
    variants += [
        _Variant("blurred prior", prior, blur=BLUR_SIGMA),
        _Variant("rigid head", full, model.inpainter, expression=False),
        _Variant("repeat first frame", None),
    ]
    for name in ablate:
        if name in ("symmetry", "filter"):
            stage = {"symmetry": "symmetry", "filter": "voxel_filter"}[name]
            changed, inpainter = _head_of(portrait, model, **{stage: False}), model.inpainter
        elif name == "light":
            flat = full.light * (torch.arange(len(full.light)) == 0)[:, None]
            changed, inpainter = replace(full, light=flat), model.inpainter
        elif name == "inpainter":
            changed, inpainter = full, None
        elif name == "alignment":
            variants.append(_Variant(LANDMARKS_ALONE, full, model.inpainter, landmarks_alone=True))
            continue
        else:
            without = replace(model, **{ABLATIONS[name]: None})
            seen = analyzed(without) if name in OF_PHOTO else portrait
            changed, inpainter = _head_of(seen, without), model.inpainter
        variants.append(_Variant(f"without {name}", changed, inpainter))
    return variants


def _portrait_of(photo: np.ndarray, model: MGGTalkModel) -> Portrait:
    return analyze_portrait(photo, size=HEAD_SIZE, matting=model.matting, spectacles=model.spectacles)


def _compare(
    window: Window, motions: dict[bool, Motion], variants: Sequence[_Variant], truth: Iterator[np.ndarray], size: int,
    sets: dict[str, FrechetDistance], known: Collection[int], progress: Progress | None,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Mean metrics of each variant over the frames of a clip; the source frame and `known` ones do not count.

    `motions`: with the frames' pictures (False) and by landmarks alone (True).

    The frames are added to the `sets` of their variants, for measures of all clips together.
    """
    source = next(truth)
    streams = {
        variant.pictures: _pictures(variant, window, motions[variant.landmarks_alone], source) for variant in variants
    }
    for stream in streams.values():
        next(stream)
    scores: list[list[dict[str, float]]] = [[] for _ in variants]
    identity, perceptual = _Identity(), PerceptualDistance()
    with FaceTracker() as tracker:
        for index, frame in enumerate(truth, start=1):
            pictures = {key: next(stream) for key, stream in streams.items()}
            face = _tracked(tracker, frame, size)
            if face is None or index in known:
                continue
            true_picture = resampled(frame, size)
            regions = {
                "face": masks.face_mask(face.landmarks, size, size),
                "mouth": masks.mouth_mask(face.landmarks, size, size),
                "head": masks.head_mask(coarse_person_mask(true_picture), face.landmarks),
            }
            found = {key: _tracked(tracker, picture, size) for key, picture in pictures.items()}
            true_person = identity.of(frame, face, size)
            persons = {key: identity.of(picture, found[key], size) for key, picture in pictures.items()}
            for rows, variant in zip(scores, variants):
                compared = resampled(pictures[variant.pictures], size)
                if variant.blur:
                    compared = gaussian_filter(compared, (variant.blur, variant.blur, 0))
                rows.append({
                    **_frame_scores(compared, true_picture, regions, found[variant.pictures], face),
                    "csim": cosine_similarity(persons[variant.pictures], true_person),
                    "lpips": perceptual(compared, true_picture),
                })  # fmt: skip
                sets[variant.name].add(compared, true_picture)
            if progress:
                progress(index + 1, len(motions[False]))
    if not scores[0]:
        raise InputError("no later frame of the clip shows a face; use a longer clip or a smaller --every")
    return {variant.name: _clip_scores(rows, motions[False].fps) for variant, rows in zip(variants, scores)}


def _pictures(variant: _Variant, window: Window, motion: Motion, source: np.ndarray) -> Iterator[np.ndarray]:
    """A variant's frames (H, W, 3) uint8, the source's first."""
    if variant.head is None:
        while True:
            yield source
    if not variant.expression:
        still = variant.head.source_expression.numpy()
        motion = replace(motion, expression=np.broadcast_to(still, motion.expression.shape))
    for rgb, _ in render_frames(
        variant.head, motion, size=HEAD_SIZE, framing=window.framing, inpainter=variant.inpainter
    ):
        yield rgb


def _tracked(tracker: FaceTracker, picture: np.ndarray, size: int) -> TrackedFace | None:
    """The largest face of a picture (H, W, 3) uint8, landmarks in pixels of its version of side `size`."""
    faces = tracker.detect(picture)
    scale = np.array([size / picture.shape[1], size / picture.shape[0]])
    return replace(faces[0], landmarks=faces[0].landmarks * scale) if faces else None


class _Identity:
    """Face descriptors of tracked pictures; NaN without a face or without the network."""

    def __init__(self):
        self._encoder = IdentityEncoder() if identity_available() else None

    def of(self, picture: np.ndarray, face: TrackedFace | None, size: int) -> np.ndarray:
        """Descriptor (128,) of the face of a picture (H, W, 3) uint8, tracked in its version of side `size`."""
        if self._encoder is None or face is None:
            return np.full(128, np.nan)
        scale = np.array([picture.shape[1] / size, picture.shape[0] / size])
        return self._encoder(picture, face.landmarks * scale)


def _frame_scores(
    picture: np.ndarray, truth: np.ndarray, regions: dict[str, np.ndarray], found: TrackedFace | None, true: TrackedFace
) -> dict[str, float]:
    """All metrics of one frame; NaN where the result's face was not found again."""
    lost = float("nan")
    soft = gaussian_filter(picture, (SOFT_SIGMA, SOFT_SIGMA, 0))
    return {
        "psnr": psnr(picture, truth),
        "ssim": ssim(picture, truth),
        **{f"psnr_{name}": psnr(picture, truth, region) for name, region in regions.items()},
        **{f"psnr_{name}_soft": psnr(soft, truth, regions[name]) for name in ("face", "mouth")},
        "lmd": motion_metric.lip_landmark_distance(found.landmarks, true.landmarks) if found else lost,
        "akd": motion_metric.average_keypoint_distance(found.landmarks, true.landmarks) if found else lost,
        "aed": motion_metric.average_expression_distance(found.scores, true.scores) if found else lost,
        "apd": motion_metric.average_pose_distance(found.matrix, true.matrix) if found else lost,
        "lip": motion_metric.lip_opening(found.landmarks) if found else lost,
        "eye": motion_metric.eye_opening(found.landmarks) if found else lost,
        "true_lip": motion_metric.lip_opening(true.landmarks),
        "true_eye": motion_metric.eye_opening(true.landmarks),
        "found": float(found is not None),
    }


SERIES = ("lip", "eye", "true_lip", "true_eye")


def _clip_scores(rows: list[dict[str, float]], fps: float) -> dict[str, float]:
    """Means over a clip's frames, and correlations of its lip and eye openings."""
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    scores = {name: _mean(values) for name, values in columns.items() if name not in SERIES}
    scores["lip_corr"] = motion_metric.correlation(columns["lip"], columns["true_lip"])
    scores["eye_corr"] = motion_metric.correlation(columns["eye"], columns["true_eye"])
    scores["sync_ms"] = motion_metric.sync_offset(columns["lip"], columns["true_lip"], fps)
    return scores


def cross_reenactment(
    source: str | Path,
    videos: Sequence[str | Path],
    *,
    every: int = 4,
    frames: int | None = None,
    size: int = 256,
    checkpoint: str | None = None,
) -> dict:
    """Drives somebody else's photo with each clip; there is no true picture, so only motion is compared.

    Head pose is compared relative to each one's first frame, expression directly, identity with the photo, and the
    rendered frames as a set (FID) with the driving ones.

    Raises:
        InputError: as `self_reenactment`.
    """
    model = load_model(checkpoint)
    portrait = _portrait_of(read_photo(source), model)
    head = _head_of(portrait, model)
    identity = _Identity()
    photographed = np.round(portrait.photographed * 255).astype(np.uint8)
    with FaceTracker() as tracker:
        person = identity.of(photographed, _tracked(tracker, photographed, size), size)
    clips, sets = [], defaultdict(FrechetDistance)
    for clip in find_clips(videos):
        rate = float(VideoReader(clip).fps) / every
        tracked = track_video(sampled_frames(clip, every, frames), rate, missing="previous", smoothing=0)
        motion = onto_portrait(tracked, head)
        rigid = replace(motion, expression=np.broadcast_to(head.source_expression.numpy(), motion.expression.shape))
        rows: dict[str, list[dict[str, float]]] = {"full": [], "rigid head": []}
        with FaceTracker() as tracker:
            streams = {
                name: render_frames(head, moved, size=HEAD_SIZE, inpainter=model.inpainter)
                for name, moved in (("full", motion), ("rigid head", rigid))
            }
            first: dict[str, tuple[np.ndarray, np.ndarray]] = {}
            for frame in sampled_frames(clip, every, frames):
                faces = tracker.detect(frame)
                for name, stream in streams.items():
                    picture = next(stream)[0]
                    found = _tracked(tracker, picture, size)
                    if not faces or found is None:
                        continue
                    start = first.setdefault(name, (found.matrix, faces[0].matrix))
                    rows[name].append({
                        **_cross_scores(found, faces[0], *start),
                        "csim": cosine_similarity(identity.of(picture, found, size), person),
                    })  # fmt: skip
                    sets[name].add(resampled(picture, size), resampled(frame, size))
        clips.append({
            "clip": clip.name, "frames": len(motion),
            "variants": {name: _clip_scores(values, rate) for name, values in rows.items() if values},
        })  # fmt: skip
    return make_report("cross-reenactment", clips, {"source": Path(source).name, "every": every, "size": size}, sets)


def _cross_scores(found: TrackedFace, true: TrackedFace, first: np.ndarray, true_first: np.ndarray) -> dict[str, float]:
    turned = found.matrix[:3, :3] @ np.linalg.inv(first[:3, :3])
    true_turned = true.matrix[:3, :3] @ np.linalg.inv(true_first[:3, :3])
    return {
        "aed": motion_metric.average_expression_distance(found.scores, true.scores),
        "apd": motion_metric.average_pose_distance(turned, true_turned),
        "lip": motion_metric.lip_opening(found.landmarks),
        "eye": motion_metric.eye_opening(found.landmarks),
        "true_lip": motion_metric.lip_opening(true.landmarks),
        "true_eye": motion_metric.eye_opening(true.landmarks),
    }


SPEECH_FPS = 25.0
"""Frames per second of the rendered variant of `audio_driven`."""

FIRST_FRAME = "first-frame"
"""As source: each clip's own first frame, so that the rendered lips are the speaker's."""


def audio_driven(
    videos: Sequence[str | Path], *, source: str | Path | None = None, checkpoint: str | None = None
) -> dict:
    """Lip sync: each clip's sound drives a mouth, compared with the mouth tracked in the clip (`lip_sync.py`).

    Baselines: a mouth that follows loudness, and (with two clips or more) the mouth driven by another clip's sound.

    Args:
        source: a photo, or FIRST_FRAME: its head is driven too, rendered, and the lips are tracked in the frames.

    Raises:
        InputError: an unreadable clip, one without sound or without a face; an unusable photo.
    """
    paths = find_clips(videos)
    model = load_model(checkpoint) if source else None
    photo = read_photo(source) if source and source != FIRST_FRAME else None
    head = build_head(photo, size=HEAD_SIZE, model=model) if photo is not None else None
    driven, tracked, sounds = [], [], []
    for clip in paths:
        audio = read_audio(clip, sample_rate=16_000, channels=1)
        sounds.append(audio)
        driven.append(lip_sync.driven_curves(drive_with_audio(audio.waveform, audio.sample_rate, lip_sync.RATE)))
        tracked.append(track_lips(clip))
    clips = []
    for index, clip in enumerate(paths):
        waveform, rate = sounds[index].waveform, sounds[index].sample_rate
        curves = {"full": driven[index], "loudness": lip_sync.loudness_curves(waveform, rate)}
        if len(paths) > 1:
            curves["another clip's sound"] = driven[index - 1]
        if source == FIRST_FRAME:
            first = next(sampled_frames(clip, 1, None)).astype(np.float32) / 255
            head = build_head(first, size=HEAD_SIZE, model=model)
        if head:
            curves["rendered"] = _rendered_lips(head, sounds[index], clip.name)
        level = loudness(to_mono_16k(waveform, rate))
        variants = {
            name: {
                **vars(lip_sync.lip_scores(lips, tracked[index])),
                "silence_opening": lip_sync.silence_opening(lips.aperture, level),
            }
            for name, lips in curves.items()
        }
        clips.append({"clip": clip.name, "frames": len(tracked[index].aperture), "variants": variants})
    settings = {"rate": f"{lip_sync.RATE:g} Hz", **({"source": Path(source).name} if source else {})}
    return make_report("audio-driven lip sync", clips, settings, {})


def _rendered_lips(head: GaussianHead, sound: Audio, name: str) -> lip_sync.LipCurves:
    """The lips that the tracker sees in the rendered frames of a head that speaks a sound."""
    motion = drive_with_audio(sound.waveform, sound.sample_rate, SPEECH_FPS)
    pictures = render_frames(head, onto_portrait(motion, head), size=HEAD_SIZE)
    frames = ((index / SPEECH_FPS, rgb) for index, (rgb, _) in enumerate(pictures))
    return track_lips_of_frames(frames, 1 / SPEECH_FPS, f"{name}, rendered")


def make_report(protocol: str, clips: list[dict], settings: dict, sets: dict[str, FrechetDistance]) -> dict:
    """The result of a protocol: clips one by one, their mean with a 95 % interval over clips, and FID of all frames."""
    summary = {}
    for name in clips[0]["variants"]:
        rows = [clip["variants"][name] for clip in clips if name in clip["variants"]]
        summary[name] = {}
        for metric in rows[0]:
            values = np.array([row[metric] for row in rows])
            low, high = bootstrap_interval(values)
            summary[name][metric] = {"mean": _mean(values), "low": low, "high": high}
    for name, pictures in sets.items():
        summary[name]["fid"] = {"mean": pictures.value(), "low": float("nan"), "high": float("nan")}
    report = {"protocol": protocol, "settings": settings, "variants": summary, "clips": clips}
    return {**report, "not_measured": _not_measured()} if protocol.endswith("reenactment") else report


def _not_measured() -> list[str]:
    """Metrics of the papers that this install can't measure, and what they need."""
    missing = [reason for measure in NETWORKS if (reason := why_missing(measure))]
    return missing if identity_available() else [*missing, MISSING]


def _mean(values: np.ndarray) -> float:
    """Mean of the finite values; NaN when there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
