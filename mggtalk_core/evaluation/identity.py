"""CSIM: is it still the same person? Cosine similarity of dlib's face descriptors.

The network (King 2017, a 29-layer ResNet trained with a metric loss, weights CC0) is read from the pip package
`face-recognition-models`; dlib itself comes from `dlib-bin`. Both belong to the extra `eval`. Papers use ArcFace-like
networks whose weights are not for commercial use: values are comparable between rows of one table only.
"""

from __future__ import annotations

import importlib.util

import numpy as np
from PIL import Image

from ..model_files import MODEL_FILES, find_model_file, packaged_file

FACE_POINTS = (263, 362, 33, 133, 2)
"""MediaPipe landmarks at the outer and inner eye corners (subject's left, then right) and below the nose."""

MEAN_SHAPE = np.array(
    [(0.8595674595992, 0.2134981538014), (0.6460604764104, 0.2289674387677), (0.1205750620789, 0.2137274526848),
     (0.3340850613712, 0.2290642403242), (0.4901123135679, 0.6277975316475)]
)  # fmt: skip
"""Where dlib's `get_face_chip_details` puts them, in the face's unit square."""

CHIP_SIZE, CHIP_PADDING = 150, 0.25

MISSING = "csim needs dlib-bin and face-recognition-models (dlib_face_recognition_resnet_model_v1.dat)"


def identity_available() -> bool:
    """Whether the extra `eval` is installed."""
    return importlib.util.find_spec("dlib") is not None and packaged_file(MODEL_FILES["face-identity"]) is not None


def similarity_transform(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(2, 3) rotation, scale and shift that takes points (N, 2) closest to targets (N, 2) (Umeyama 1991)."""
    mean, target_mean = points.mean(0), targets.mean(0)
    centred, target_centred = points - mean, targets - target_mean
    u, singular, v = np.linalg.svd(target_centred.T @ centred)
    signs = np.array([1, np.sign(np.linalg.det(u @ v))])
    linear = (singular * signs).sum() / (centred**2).sum() * (u * signs) @ v
    return np.column_stack([linear, target_mean - linear @ mean])


def aligned_face(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The face of a picture (H, W, 3) uint8 as dlib wants it, (150, 150, 3) uint8, from landmarks (478, 2) px."""
    targets = (CHIP_PADDING + MEAN_SHAPE) / (2 * CHIP_PADDING + 1) * CHIP_SIZE
    to_picture = similarity_transform(targets, landmarks[list(FACE_POINTS)])
    chip = Image.fromarray(picture).transform(
        (CHIP_SIZE, CHIP_SIZE), Image.Transform.AFFINE, to_picture.ravel(), Image.Resampling.BICUBIC
    )
    return np.asarray(chip)


class IdentityEncoder:
    """dlib's face descriptor."""

    def __init__(self):
        import dlib

        self._network = dlib.face_recognition_model_v1(str(find_model_file("face-identity")))

    def __call__(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Descriptor (128,) of the face with landmarks (478, 2) px in a picture (H, W, 3) uint8."""
        return np.array(self._network.compute_face_descriptor(aligned_face(picture, landmarks)))


def cosine_similarity(descriptor: np.ndarray, reference: np.ndarray) -> float:
    """CSIM of two descriptors (128,)."""
    return float(descriptor @ reference / (np.linalg.norm(descriptor) * np.linalg.norm(reference)))
