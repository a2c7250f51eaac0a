"""From a photo to a `Portrait`: find the face, crop, fit the head model, separate person and background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from ..errors import InputError
from ..geometry.projection import PORTRAIT_FOCAL
from ..headmodel.fitting import camera_of, fit_landmarks, generic_landmark_model
from ..headmodel.landmarks import INNER_FACE, inter_ocular_distance
from ..headmodel.model import load_head_model
from ..headmodel.warp import warp_to_landmarks
from ..types import Portrait
from .background import begin_removing_person
from .beyond_photo import beyond_photo, going_on, with_crown
from .crop import crop_box_inside, cut_square
from .ears import with_ears
from .lip_contour import refine_lip_contour
from .loose_hair import with_loose_hair
from .matting import matte
from .parsing import SEEN_FACE, coarse_person_mask, face_share, one_person, refine_edges, with_face, without_veils
from .spectacles import take_off_spectacles
from .tracking import FaceTracker, TrackedFace, search_faces, search_small_faces

MIN_FACE_PIXELS = 24
"""Below this the landmarks are guesswork."""

SMALL_FACE_PIXELS = 120
"""Below this the result is visibly soft."""

HIGH_FIT_ERROR = 0.022
"""Mean landmark error, in inter-ocular distances, above which a face is unusual (human photos: median 0.010)."""

REFUSED_FIT_ERROR = 0.06
"""Above this the landmarks do not form a human face."""

MIRRORED_ERROR = 0.15
"""How much landmarks may differ, in inter-ocular distances, when the mirrored crop is tracked: faces give up to 0.03,
0.07 from the side; a hand that passed for a face 0.28, or it is not found at all."""

LARGE_YAW = 25.0
"""Degrees to the side from which on half of the face is a guess."""


def analyze_portrait(
    photo: np.ndarray,
    *,
    size: int = 512,
    face_index: int = 0,
    faces: Sequence[TrackedFace] | None = None,
    matting: nn.Module | None = None,
    spectacles: nn.Module | None = None,
) -> Portrait:
    """Analyse a photo (H, W, 3) float32 0..1 sRGB; the crop is (size, size).

    Args:
        face_index: chooses among several faces, largest first.
        faces: one or more faces of the photo, largest first, as another tracker found them; taken as they are.
        matting: the network (`MGGTalkModel.matting`) for the person's edge; None leaves it to the guided filter.
        spectacles: the network (`MGGTalkModel.spectacles`) that finds them; None takes them for skin.

    Raises:
        InputError: no face, no such face, a face too small, or something that is not a human face.
    """
    with FaceTracker() as tracker:
        photo, found, warnings = _upright_faces(tracker, photo) if faces is None else (photo, faces, [])
        if not 0 <= face_index < len(found):
            raise InputError(
                f"face index {face_index} asked for, but the photo has {len(found)} face(s); "
                f"use 0 to {len(found) - 1}, 0 is the largest"
            )
        if len(found) > 1:
            warnings.append(f"{len(found)} faces found; using number {face_index} (0 is the largest)")
        face = found[face_index]
        if face.size < MIN_FACE_PIXELS:
            raise InputError(
                f"the face is only {face.size:.0f} pixels large; at least {MIN_FACE_PIXELS} are needed, "
                f"{SMALL_FACE_PIXELS} or more look good"
            )
        if face.size < SMALL_FACE_PIXELS:
            warnings.append(f"the face is only {face.size:.0f} pixels large; the result will look soft")
        centre, side = crop_box_inside(face.landmarks, photo.shape[1], photo.shape[0])
        image, crop_to_photo = cut_square(photo, centre, side, size)
        face = _in_crop(face, crop_to_photo)
        if faces is None:
            face = _track_again(tracker, image, face)
        face = replace(face, landmarks=refine_lip_contour(image, face.landmarks))

    head = load_head_model()
    K = np.array([[PORTRAIT_FOCAL * size, 0, size / 2], [0, PORTRAIT_FOCAL * size, size / 2], [0, 0, 1]], np.float32)
    fit = fit_landmarks(face.landmarks, face.scores, generic_landmark_model(head), K)
    error = float(fit.error[INNER_FACE].mean())
    if error > REFUSED_FIT_ERROR:
        raise InputError(
            f"this does not look like a human face (landmark error {error:.3f}, at most {REFUSED_FIT_ERROR}); "
            "use a photo of one person's face"
        )
    if error > HIGH_FIT_ERROR:
        warnings.append(f"unusual face (landmark error {error:.3f}): an occlusion, a drawing or an animal?")
    yaw = np.degrees(np.arctan2(-fit.rotation[0, 2], fit.rotation[2, 2]))
    if abs(yaw) > LARGE_YAW:
        warnings.append(f"the head is turned {abs(yaw):.0f} degrees to the side; the far side is guessed")

    vertices = warp_to_landmarks(head, head.shape(fit.identity, fit.expression), fit, face.landmarks, K)
    camera = camera_of(fit, K, size)
    mask = coarse_person_mask(image)
    if (share := face_share(mask, face.landmarks)) < SEEN_FACE:
        warnings.append(
            f"only {100 * share:.0f} % of the face was recognised as a person (a robot, a mask, a doll?): "
            "what belongs to the head beyond the face may be missing"
        )
        mask = with_face(mask, face.landmarks)
    mask = with_ears(mask, image, face.landmarks, vertices, camera, head)
    alpha = refine_edges(image, mask)
    if matting is not None:
        alpha = matte(matting, image, mask, alpha)
    alpha = without_veils(one_person(alpha, face.landmarks))
    beyond = beyond_photo(crop_to_photo, photo.shape[:2], size)
    if beyond.any():
        alpha = with_crown(alpha, beyond, vertices, camera)
        image = going_on(image, alpha, beyond, face.landmarks)
    alpha = with_loose_hair(image, alpha)
    worn = None
    if spectacles is not None and (off := take_off_spectacles(spectacles, image, alpha, camera)):
        worn, image = off
    return Portrait(
        image=image,
        photo=photo,
        crop_to_photo=crop_to_photo,
        alpha=alpha,
        filling=begin_removing_person(image, alpha),
        landmarks=face.landmarks,
        scores=face.scores,
        fit=fit,
        vertices=vertices,
        camera=camera,
        spectacles=worn,
        warnings=tuple(warnings),
    )


def _upright_faces(tracker: FaceTracker, photo: np.ndarray) -> tuple[np.ndarray, list[TrackedFace], list[str]]:
    """Faces of the photo, turned by quarter turns if the largest face lies on its side or upside down."""
    for turns in (0, 1, 3, 2):  # the detector misses most faces that lie on their side or are upside down
        faces = search_faces(tracker, _to_uint8(np.rot90(photo, turns)))
        if faces:
            break
    else:
        turns = 0
        faces = search_small_faces(_to_uint8(photo))
    if not faces:
        raise InputError(
            "no face found in the photo; use a photo of a person whose face is visible, not covered and not tiny"
        )
    eyes = faces[0].landmarks[473] - faces[0].landmarks[468]
    lying = int(np.round(np.degrees(np.arctan2(eyes[1], eyes[0])) / 90)) % 4
    turns = (turns + lying) % 4
    upright = np.ascontiguousarray(np.rot90(photo, turns))
    if lying:
        faces = search_faces(tracker, _to_uint8(upright))
        if not faces:
            raise InputError(
                "the face lies on its side and was lost when turned upright; rotate the photo and try again"
            )
    return upright, faces, [f"the photo was turned by {90 * turns} degrees"] if turns else []


def _in_crop(face: TrackedFace, crop_to_photo: np.ndarray) -> TrackedFace:
    """A face of the photo in the crop's pixels."""
    scale, offset = crop_to_photo[0, 0], crop_to_photo[:, 2]
    return face.moved(1 / scale, -offset / scale)


def _track_again(tracker: FaceTracker, image: np.ndarray, expected: TrackedFace) -> TrackedFace:
    """Track the face in the crop, where it has the size the tracker knows best.

    Raises:
        InputError: what looked like a face does not when mirrored: a hand before it, an object, an animal.
    """
    found = tracker.detect(_to_uint8(image))
    if not found:
        return expected
    face = min(found, key=lambda other: np.linalg.norm(other.landmarks.mean(0) - expected.landmarks.mean(0)))
    mirrored = tracker.detect(_to_uint8(np.ascontiguousarray(image[:, ::-1])))
    back = [other.landmarks[load_head_model().mirror_landmarks()] * [-1, 1] + [image.shape[1], 0] for other in mirrored]
    errors = [np.linalg.norm(marks - face.landmarks, axis=1).mean() for marks in back]
    if min(errors, default=np.inf) > MIRRORED_ERROR * inter_ocular_distance(face.landmarks):
        raise InputError(
            "the face is covered, or this is not a human face; use a photo in which nothing hides eyes and mouth"
        )
    return face


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.round(image * 255).astype(np.uint8)
