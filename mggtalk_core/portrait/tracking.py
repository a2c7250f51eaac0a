"""Faces in an image: MediaPipe FaceLandmarker (478 landmarks, 52 ARKit scores, head matrix)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..headmodel.arkit import ARKIT_INDEX
from ..model_files import find_model_file


@dataclass(frozen=True)
class TrackedFace:
    """One face as the tracker saw it."""

    landmarks: np.ndarray  # (478, 2) float32 pixels of the image it was found in
    scores: np.ndarray  # (52,) float32 0..1, ARKit order (tongueOut is not tracked and stays 0)
    matrix: np.ndarray  # (4, 4) float32, MediaPipe's canonical face to its camera (OpenGL axes, centimetres)

    @property
    def size(self) -> float:
        """Longer side of the landmarks' bounding box, pixels."""
        return float(np.ptp(self.landmarks, axis=0).max())

    def moved(self, scale: float, offset: np.ndarray) -> TrackedFace:
        """The same face in another image: landmarks * scale + offset (2,)."""
        return TrackedFace((self.landmarks * scale + offset).astype(np.float32), self.scores, self.matrix)


class FaceTracker:
    """Finds faces in single images; largest first.

    One tracker is one MediaPipe graph: cheap to call, expensive to make, not to be shared between threads.
    """

    def __init__(self, max_faces: int = 6, min_confidence: float = 0.5):
        from mediapipe.tasks.python import BaseOptions, vision

        # A buffer instead of a path: MediaPipe can't open paths with non-ASCII characters on Windows.
        model = find_model_file("face_landmarker.task").read_bytes()
        self._landmarker = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_buffer=model),
                output_face_blendshapes=True,
                output_facial_transformation_matrixes=True,
                num_faces=max_faces,
                min_face_detection_confidence=min_confidence,
            )
        )

    def detect(self, image: np.ndarray) -> list[TrackedFace]:
        """Faces of an image (H, W, 3) uint8, largest first."""
        import mediapipe

        height, width = image.shape[:2]
        result = self._landmarker.detect(
            mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        )
        faces = []
        for points, shapes, matrix in zip(
            result.face_landmarks, result.face_blendshapes, result.facial_transformation_matrixes
        ):
            scores = np.zeros(len(ARKIT_INDEX), np.float32)
            for shape in shapes:
                if shape.category_name in ARKIT_INDEX:  # "_neutral" is not an ARKit shape
                    scores[ARKIT_INDEX[shape.category_name]] = shape.score
            landmarks = np.array([(point.x * width, point.y * height) for point in points], np.float32)
            faces.append(TrackedFace(landmarks, scores, np.asarray(matrix, np.float32)))
        return sorted(faces, key=lambda face: -face.size)

    def close(self) -> None:
        """Free the MediaPipe graph."""
        self._landmarker.close()

    def __enter__(self) -> FaceTracker:
        return self

    def __exit__(self, *_) -> None:
        self.close()


STRICT_CONFIDENCE = 0.75
"""Detector confidence asked of faces found in enlarged tiles: there, cups and cats pass for faces at 0.5."""


def search_faces(tracker: FaceTracker, image: np.ndarray) -> list[TrackedFace]:
    """Faces of an image (H, W, 3) uint8, also those that fill it; largest first.

    The detector misses faces without a margin around them: when the picture gives nothing, look again with a grey one.
    """
    faces = tracker.detect(image)
    if faces:
        return faces
    margin = max(image.shape[:2]) // 2
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), constant_values=127)
    return [face.moved(1.0, np.array([-margin, -margin])) for face in tracker.detect(padded)]


def search_small_faces(image: np.ndarray) -> list[TrackedFace]:
    """Faces that are small in their image (H, W, 3) uint8, looked for in overlapping enlarged tiles; largest first.

    The detector sees a 128 px thumbnail, so a face needs to be about a tenth of what it is shown.
    """
    height, width = image.shape[:2]
    with FaceTracker(min_confidence=STRICT_CONFIDENCE) as tracker:
        for divisions in (2, 3, 5):
            side = int(np.ceil(max(height, width) / divisions))
            enlarge = max(1.0, 512 / side)
            found: list[TrackedFace] = []
            for top in _tile_starts(height, side):
                for left in _tile_starts(width, side):
                    tile = Image.fromarray(image[top : top + side, left : left + side])
                    tile = tile.resize((round(tile.width * enlarge), round(tile.height * enlarge)))
                    for face in tracker.detect(np.asarray(tile)):
                        found.append(face.moved(1 / enlarge, np.array([left, top])))
            if found:
                return _without_duplicates(found)
    return []


def _tile_starts(length: int, side: int) -> list[int]:
    """Starts of half-overlapping tiles that cover `length`."""
    if length <= side:
        return [0]
    count = int(np.ceil((length - side) / (side / 2))) + 1
    return [int(round(start)) for start in np.linspace(0, length - side, count)]


def _without_duplicates(faces: list[TrackedFace]) -> list[TrackedFace]:
    """Overlapping tiles find the same face more than once: keep the largest of each."""
    kept: list[TrackedFace] = []
    for face in sorted(faces, key=lambda face: -face.size):
        centre = face.landmarks.mean(0)
        if all(np.linalg.norm(centre - other.landmarks.mean(0)) > 0.5 * other.size for other in kept):
            kept.append(face)
    return kept
