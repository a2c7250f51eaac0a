"""Driving by video: fit the head model to every frame of a face and turn it into motion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from ..errors import InputError
from ..gaussians.head import GaussianHead
from ..gaussians.sgp import predict_invisible, predict_visible
from ..geometry.dsgr import build_points, estimate_depth
from ..geometry.projection import PORTRAIT_FOCAL, projection_jacobian
from ..headmodel.arkit import ARKIT_NAMES
from ..headmodel.fitting import (
    LANDMARK_SIGMA,
    LandmarkModel,
    fit_landmarks,
    generic_landmark_model,
    personal_landmark_model,
)
from ..headmodel.landmarks import LOWER_EDGES, UPPER_EDGES, inter_ocular_distance
from ..headmodel.model import HeadModel, load_head_model
from ..headmodel.warp import warp_to_landmarks
from ..model import MGGTalkModel
from ..portrait.analysis import analyze_portrait
from ..portrait.crop import face_crop_box
from ..portrait.tracking import FaceTracker, TrackedFace
from ..types import HeadFit, Motion, Portrait
from .audio.mouth import lip_gaps, mouth_rig
from .picture_alignment import PICTURE_SIZE, PictureAlignment

MissingFace = Literal["interpolate", "previous", "neutral", "error"]

FRAME_ITERATIONS = 6
FRAME_EXPRESSION_SIGMA = 0.15
"""For a known person the landmarks say more about expression than the tracker's scores: their prior is wider."""

ACQUAINTANCE_FRAMES = 100
"""The driving person's landmarks are refined on so many first frames; more add little, and must be held in memory."""

ACQUAINTANCE_ROUNDS = 2
ACQUAINTANCE_SIGMA = 0.001
"""How far a landmark may be from where the first frame and the head model put it, metres (one standard deviation)."""

SEARCH_MARGIN = 0.6
"""A face is looked for around where it was, with this margin in face sizes: there it is large enough to be found."""

OWN_LOOK = [
    index for index, name in enumerate(ARKIT_NAMES)
    if name.startswith(("eyeBlink", "eyeSquint", "brow", "cheekSquint", "noseSneer"))
]  # fmt: skip
REST_QUANTILE, MAX_REST = 0.2, 0.7
"""Narrow eyes and low brows that a person has all the time are how they look, not what they do: another face keeps its
own. What is below this quantile over the first frames counts as that, but never more than the maximum."""

REST_ROUNDS = 3
"""How often a person's landmarks are shifted towards the reference frame's fit being rest; then no action of it is
off by more than 0.05 (nine clips)."""


@dataclass(frozen=True)
class DrivingPerson:
    """A person at rest, as seen by one camera: what the frames of a video are compared with."""

    landmark_model: LandmarkModel
    K: np.ndarray  # (3, 3) pixels of the video frames
    rest_face: TrackedFace  # the reference frame, in the same pixels
    rest: HeadFit  # the reference frame fitted with the person's own model
    score_offset: np.ndarray  # (52,) the reference frame's expression less its scores: scores are biased by person
    neck: np.ndarray  # (3,) m
    alignment: PictureAlignment | None = None  # corrects each frame's motion by its picture; None: landmarks alone

    @staticmethod
    def from_portrait(portrait: Portrait, head: GaussianHead | None = None) -> DrivingPerson:
        """The person of a portrait, for video frames aligned with its photo; by its head frames are aligned too."""
        scale, left, top = portrait.crop_to_photo[0, 0], portrait.crop_to_photo[0, 2], portrait.crop_to_photo[1, 2]
        K = np.diag([scale, scale, 1.0]) @ portrait.camera.K
        K[:2, 2] += left, top
        landmarks = portrait.landmarks * scale + [left, top]
        person = DrivingPerson._known(
            load_head_model(), portrait.vertices, portrait.fit, TrackedFace(landmarks, portrait.scores, np.eye(4)), K
        )
        return replace(person, alignment=PictureAlignment(head)) if head is not None else person

    @staticmethod
    def from_face(face: TrackedFace) -> DrivingPerson:
        """An unknown person, from one frame in which the face was tracked."""
        head = load_head_model()
        centre, side = face_crop_box(face.landmarks)
        K = np.array([[PORTRAIT_FOCAL * side, 0, centre[0]], [0, PORTRAIT_FOCAL * side, centre[1]], [0, 0, 1]])
        fit = fit_landmarks(face.landmarks, face.scores, generic_landmark_model(head), K)
        vertices = warp_to_landmarks(head, head.shape(fit.identity, fit.expression), fit, face.landmarks, K)
        return DrivingPerson._known(head, vertices, fit, face, K)

    @staticmethod
    def _known(head: HeadModel, vertices: np.ndarray, fit: HeadFit, face: TrackedFace, K: np.ndarray) -> DrivingPerson:
        model = personal_landmark_model(head, vertices, fit.expression)
        person = DrivingPerson(model, K, face, fit, fit.expression - face.scores, head.neck)
        return person._with_landmarks(model.neutral)

    def _with_landmarks(self, neutral: np.ndarray) -> DrivingPerson:
        """The same person with other neutral landmarks (478, 3) m, shifted to fit the reference frame at rest.

        The shift takes what the actions can explain from the landmarks: otherwise all frames' expressions would be off
        by so much, and bent where they reach 0 or 1. Lips that touch would not touch.
        """
        model = replace(self.landmark_model, neutral=neutral)
        for _ in range(REST_ROUNDS):
            rest = replace(self, landmark_model=model).fit(self.rest_face, self.rest)
            explained = np.tensordot(self.rest.expression - rest.expression, model.expression_basis, 1)
            model = replace(model, neutral=model.neutral - explained)
        return replace(self, landmark_model=model, rest=replace(rest, expression=self.rest.expression))

    def fit(self, face: TrackedFace, previous: HeadFit | None) -> HeadFit:
        """Expression and pose of a frame's face, starting from the previous frame's."""
        scores = np.clip(face.scores + self.score_offset, 0, 1)
        return fit_landmarks(
            face.landmarks, scores, self.landmark_model, self.K, start=previous or self.rest,
            iterations=FRAME_ITERATIONS, expression_sigma=FRAME_EXPRESSION_SIGMA,
        )  # fmt: skip

    def acquainted(self, faces: Sequence[TrackedFace]) -> DrivingPerson:
        """The same person with landmarks refined over several frames: one view leaves their depth a guess.

        Alternates fitting all frames and moving each neutral landmark to where its residuals, seen from all poses, want
        it, held back by a Gaussian prior.
        """
        person = self
        for _ in range(ACQUAINTANCE_ROUNDS):
            person = person._with_landmarks(person.landmark_model.neutral + person._landmark_offsets(faces))
        return person

    def _landmark_offsets(self, faces: Sequence[TrackedFace]) -> np.ndarray:
        """Most probable shift (478, 3) m of each neutral landmark, given the frames' residuals (least squares)."""
        model, focal = self.landmark_model, self.K[0, 0]
        precision = np.tile(np.eye(3) / ACQUAINTANCE_SIGMA**2, (478, 1, 1))
        pull = np.zeros((478, 3))
        fit = None
        for face in faces:
            fit = self.fit(face, fit)
            shape = model.neutral + np.tensordot(fit.expression, model.expression_basis, 1)
            jacobian = projection_jacobian(shape @ fit.rotation.T + fit.translation, focal) @ fit.rotation
            residual = face.landmarks - fit.landmarks
            # Neighbouring frames err alike: each counts a quarter.
            sigma = 2 * LANDMARK_SIGMA * inter_ocular_distance(face.landmarks)
            weight = 1 / (1 + (np.linalg.norm(residual, axis=1) / (3 * sigma)) ** 2) / sigma**2
            precision += np.einsum("p,pki,pkj->pij", weight, jacobian, jacobian)
            pull += np.einsum("p,pki,pk->pi", weight, jacobian, residual)
        offsets = np.linalg.solve(precision, pull[..., None])[..., 0]
        # How far lips and lids are open is for the expression to say: the head that will be drawn has no such offsets.
        upper, lower = list(UPPER_EDGES), list(LOWER_EDGES)
        offsets[upper] = offsets[lower] = 0.5 * (offsets[upper] + offsets[lower])
        return offsets

    def relative(self, fit: HeadFit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Expression (52,), rotation (3,) rad and translation (3,) m of a fit against the person at rest."""
        turn = self.rest.rotation.T @ fit.rotation
        shift = self.rest.rotation.T @ (fit.translation - self.rest.translation) + turn @ self.neck - self.neck
        return fit.expression, Rotation.from_matrix(turn).as_rotvec(), shift


def track_video(
    frames: Iterable[np.ndarray],
    fps: float,
    *,
    person: DrivingPerson | None = None,
    missing: MissingFace = "interpolate",
    smoothing: float = 0.02,
    progress: Callable[[int], None] | None = None,
) -> Motion:
    """Motion of the largest face in frames (H, W, 3) uint8, pose relative to the first frame that shows it.

    Args:
        person: who is seen, when known from a portrait, and whose own expression is wanted; otherwise the person is
            learnt from the first face, and the lips of the average head are as far apart as theirs.
        missing: what frames without a face get: interpolated, the previous frame's, the neutral face, or an error.
        smoothing: standard deviation of a Gaussian over time, seconds; 0 keeps every tracker jitter, 0.1 blurs speech.
        progress: called with the number of frames done.

    Raises:
        InputError: no face in any frame, or in some frame with missing "error".
    """
    options = {"for_anybody": person is None, "missing": missing, "smoothing": smoothing, "progress": progress}
    with FaceTracker(max_faces=3) as tracker:
        tracked, warnings = _tracked(tracker, frames), ()
        if person is None:
            person, tracked, warnings = _introduced(tracked)
        motion = _motion_of_sights((_sight(person, *pair) for pair in tracked), fps, person, **options)
    return replace(motion, warnings=warnings + motion.warnings)


@dataclass(frozen=True)
class _Sight:
    """What a frame says of the driving person."""

    face: TrackedFace
    picture: np.ndarray | None  # what `PictureAlignment.align` compares


def _sight(person: DrivingPerson | None, frame: np.ndarray, face: TrackedFace | None) -> _Sight | None:
    if face is None:
        return None
    return _Sight(face, person.alignment.picture_of(frame) if person.alignment else None)


_Tracked = tuple[np.ndarray, TrackedFace | None]
"""A frame (H, W, 3) uint8 and its face."""


def _tracked(tracker: FaceTracker, frames: Iterable[np.ndarray]) -> Iterator[_Tracked]:
    """The same face in each frame."""
    face = None
    for frame in frames:
        found = track_around(tracker, frame, face)
        face = found or face
        yield frame, found


def _introduced(tracked: Iterator[_Tracked]) -> tuple[DrivingPerson | None, Iterator[_Tracked], tuple[str, ...]]:
    """The person of the first face, None where there is none; all the frames again; and warnings."""
    before = 0
    for frame, face in tracked:
        if face is not None:
            person, warnings = _person_seen_in(frame, face)
            return person, chain(repeat((frame, None), before), [(frame, face)], tracked), warnings
        before += 1
    return None, repeat((None, None), before), ()


def _person_seen_in(frame: np.ndarray, face: TrackedFace) -> tuple[DrivingPerson, tuple[str, ...]]:
    """An unknown person with a head to align frames with, or without one where the frame doesn't give it."""
    try:
        portrait = analyze_portrait(frame.astype(np.float32) / 255, size=PICTURE_SIZE, faces=[face])
    except InputError as error:
        return DrivingPerson.from_face(face), (f"driving by landmarks alone, which is less exact: {error}",)
    prior = MGGTalkModel()
    points = build_points(portrait, estimate_depth(portrait, model=prior))
    return DrivingPerson.from_portrait(portrait, predict_invisible(prior, predict_visible(prior, points))), ()


def motion_of_faces(
    faces: Iterable[TrackedFace | None],
    fps: float,
    *,
    person: DrivingPerson | None = None,
    missing: MissingFace = "interpolate",
    smoothing: float = 0.02,
    progress: Callable[[int], None] | None = None,
) -> Motion:
    """`track_video` for a face that was tracked already: one face or None per frame, in pixels of the frames.

    Without the frames' pictures it is less exact.
    """
    sights = (face and _Sight(face, None) for face in faces)
    return _motion_of_sights(
        sights, fps, person, for_anybody=person is None, missing=missing, smoothing=smoothing, progress=progress
    )


def _motion_of_sights(
    sights: Iterable[_Sight | None],
    fps: float,
    person: DrivingPerson | None,
    *,
    for_anybody: bool,
    missing: MissingFace,
    smoothing: float,
    progress: Callable[[int], None] | None,
) -> Motion:
    expressions, rotations, translations, seen = [], [], [], []
    previous_fit = None
    sights = iter(sights)
    first = list(islice(sights, ACQUAINTANCE_FRAMES))
    known = [sight.face for sight in first if sight is not None]
    if known:
        person = (person or DrivingPerson.from_face(known[0])).acquainted(known)
    for index, sight in enumerate(chain(first, sights)):
        seen.append(sight is not None)
        if sight is None:
            if missing == "error":
                raise InputError(
                    f"no face in frame {index} ({index / fps:.2f} s) of the driving video; cut it out, "
                    "or let missing faces be interpolated"
                )
            previous_fit = None
        else:
            person = person or DrivingPerson.from_face(sight.face)
            previous_fit = person.fit(sight.face, previous_fit)
            expression, rotation, translation = person.relative(previous_fit)
            if sight.picture is not None:
                expression, rotation, translation = person.alignment.align(
                    sight.picture, expression, rotation, translation
                )
            expressions.append(expression)
            rotations.append(rotation)
            translations.append(translation)
        if progress:
            progress(index + 1)
    if not seen:
        raise InputError("the driving video has no frames")
    if not any(seen):
        raise InputError("no face found in any frame of the driving video; use a video of a visible face")
    curves = np.concatenate([np.array(expressions), np.array(rotations), np.array(translations)], axis=1)
    if for_anybody:
        # A coefficient opens everybody's lips by another amount, and lips of some show teeth at rest.
        gap, change = lip_gaps(person.landmark_model.neutral, person.landmark_model.expression_basis)
        curves[:, :52] = mouth_rig().opened(curves[:, :52], gap + curves[:, :52] @ change)
        rest = np.quantile(curves[:ACQUAINTANCE_FRAMES, OWN_LOOK], REST_QUANTILE, axis=0).clip(0, MAX_REST)
        curves[:, OWN_LOOK] = (curves[:, OWN_LOOK] - rest) / (1 - rest)
    seen = np.array(seen)
    curves = _fill_missing(curves, seen, missing)
    if smoothing > 0:
        curves = gaussian_filter1d(curves, smoothing * fps, axis=0, mode="nearest")
    warnings = ()
    if not seen.all():
        lost = np.flatnonzero(~seen)
        shown = ", ".join(map(str, lost[:10])) + (" ..." if len(lost) > 10 else "")
        warnings = (f"no face in {len(lost)} of {len(seen)} driving frames ({missing}): {shown}",)
    curves = curves.astype(np.float32)
    return Motion(
        curves[:, :52].clip(0, 1), curves[:, 52:55], curves[:, 55:58], float(fps), warnings,
        missing_frames=int((~seen).sum()),
    )  # fmt: skip


def track_around(tracker: FaceTracker, frame: np.ndarray, previous: TrackedFace | None) -> TrackedFace | None:
    """The face of a frame nearest to where it was before, or the largest; None if there is none."""
    if previous is not None:
        low, high = previous.landmarks.min(0), previous.landmarks.max(0)
        margin = SEARCH_MARGIN * previous.size
        left, top = np.maximum(np.floor(low - margin), 0).astype(int)
        right, bottom = np.ceil(high + margin).astype(int)
        around = [
            face.moved(1.0, np.array([left, top])) for face in tracker.detect(frame[top:bottom, left:right])
        ]
        if around:
            centre = previous.landmarks.mean(0)
            return min(around, key=lambda face: np.linalg.norm(face.landmarks.mean(0) - centre))
    faces = tracker.detect(frame)
    return faces[0] if faces else None


def _fill_missing(curves: np.ndarray, seen: np.ndarray, missing: MissingFace) -> np.ndarray:
    """Curves (n, C) of the frames in which a face was seen (T,) bool as curves (T, C) of all frames."""
    known = np.flatnonzero(seen)
    times = np.arange(len(seen))
    if missing == "interpolate":
        return np.stack([np.interp(times, known, curve) for curve in curves.T], axis=1)
    last = np.searchsorted(known, times, side="right") - 1
    filled = curves[last.clip(0)]
    if missing == "neutral":
        filled = np.where(seen[:, None], filled, 0.0)
    return filled
