"""The data that flows through the pipeline, in the order it is made.

Frames and units (CONVENTIONS.md): every 3D value lives in the *canonical head frame* unless its name says otherwise:
metres, x to the right of an image that sees the face frontally, y down, z forward (away from the viewer, so the face
looks toward -z), origin at the mean eye centre of the fitted head, mirror plane x = 0. The photo's camera is the
`Camera` that sees this frame from where the photo was taken, so "source view" needs no other pose.

Up to `PointCloud` (DSGR) arrays are numpy; from `Gaussians` (SGP) on they are torch tensors, because that part learns.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import torch

VISIBLE, SYMMETRIC, INTERIOR, SUBSTITUTE, OBLIQUE, WORN = 0, 1, 2, 3, 4, 5
"""Where a point comes from: a pixel of the photo, a mirrored pixel, hidden head-model surface, or a mirrored pixel in
place of one that the photo shows too obliquely, and such a pixel itself (gaussians/far_half.py: which one is drawn);
or spectacles, before the face (geometry/worn.py)."""

SOLID_ALPHA = 0.95
"""Mask value from which on a pixel is the person's alone."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera, OpenCV convention (x right, y down, z forward; pixel centres at +0.5)."""

    viewmat: np.ndarray  # (4, 4) float32, canonical head frame -> camera frame, metres
    K: np.ndarray  # (3, 3) float32, pixels
    width: int
    height: int

    def resized(self, width: int, height: int) -> Camera:
        """The same view sampled on a (height, width) grid."""
        K = self.K.copy()
        K[0] *= width / self.width
        K[1] *= height / self.height
        return Camera(self.viewmat, K, width, height)


@dataclass(frozen=True)
class HeadFit:
    """The baked head model fitted to one set of landmarks (headmodel/fitting.py)."""

    identity: np.ndarray  # (I,) standard deviations
    expression: np.ndarray  # (52,) ARKit order, 0..1
    rotation: np.ndarray  # (3, 3) canonical -> camera
    translation: np.ndarray  # (3,) m, canonical -> camera
    landmarks: np.ndarray  # (478, 2) fitted landmarks, crop pixels
    error: np.ndarray  # (478,) distance to the observed landmarks in inter-ocular distances


@dataclass(frozen=True)
class Spectacles:
    """What the person wears before the eyes: rims, temples and dark lenses."""

    image: np.ndarray  # (S, S, 3) float32 0..1 sRGB, the crop with them
    colors: np.ndarray  # (S, S, 3) float32 0..1 sRGB, their own
    alpha: np.ndarray  # (S, S) float32 0..1, how much of each pixel is theirs
    temples: np.ndarray  # (S, S) bool, the pixels of what runs to the ears


@dataclass(frozen=True)
class Portrait:
    """The analysed photo: everything later stages need to know about the picture."""

    image: np.ndarray  # (S, S, 3) float32 0..1 sRGB, the square crop, without spectacles
    photo: np.ndarray  # (H, W, 3) float32 0..1 sRGB, the photo as given (upright)
    crop_to_photo: np.ndarray  # (2, 3) float64, affine from crop pixels to photo pixels
    alpha: np.ndarray  # (S, S) float32 0..1, person against background
    filling: Future[np.ndarray]  # `background`, on which a thread may still be at work
    landmarks: np.ndarray  # (478, 2) float32, crop pixels
    scores: np.ndarray  # (52,) float32, the tracker's ARKit scores
    fit: HeadFit
    vertices: np.ndarray  # (V, 3) float32, head model with the source expression, warped onto the landmarks
    camera: Camera  # the photo's camera over the crop
    spectacles: Spectacles | None = None
    warnings: tuple[str, ...] = ()

    @property
    def photographed(self) -> np.ndarray:
        """(S, S, 3) float32 0..1 sRGB, the crop as it is in the photo, spectacles and all."""
        return self.image if self.spectacles is None else self.spectacles.image

    @property
    def background(self) -> np.ndarray:
        """(S, S, 3) float32 0..1, the crop with the person removed (I_s^bg); waits until it is filled."""
        return self.filling.result()


@dataclass(frozen=True)
class Outline:
    """The person's outline around the head in the photo, in directions of the image plane."""

    angles: np.ndarray  # (n,) rad, 0 towards the image's right, growing downward
    centre: np.ndarray  # (3,) m, camera frame
    middle: np.ndarray  # (2,) px, the centre in the photo
    pixel: float  # m, size of a pixel at the centre
    end: np.ndarray  # (n,) px from the middle to where the person ends
    hair: np.ndarray  # (n,) px, width of what is neither face nor ear there; 0 where none is
    thickness: np.ndarray  # (n,) m, of hair over the head model; above the ears measured, below them the nearest
    hangs: float  # m, how much farther down than short hair the photo's hangs beside the head
    bare: np.ndarray  # (S, S) bool, face and neck, and skin that goes on from there up to the hair


@dataclass(frozen=True)
class DepthMap:
    """Depth and normals of the person in the crop, and which head-model triangle each pixel lies on."""

    depth: np.ndarray  # (S, S) float32 m along the camera's z; NaN outside the person
    normals: np.ndarray  # (S, S, 3) float32 unit, camera frame
    on_head: np.ndarray  # (S, S) bool, True where the fitted head model gave the depth
    face: np.ndarray  # (S, S) int32, nearest head-model triangle of every person pixel, -1 outside
    barycentric: np.ndarray  # (S, S, 3) float32
    distance: np.ndarray  # (S, S) float32 pixels to the nearest head-model pixel (0 on the head model)
    outline: Outline
    source: str  # "head prior" or the depth model's name


@dataclass(frozen=True)
class PointCloud:
    """Surfels bound to the head model: [P_f ; P_f^s] plus hidden surface."""

    positions: np.ndarray  # (N, 3) float32 m
    axes: np.ndarray  # (N, 3, 3) float32 m; rows are the surfel's half axes (two tangents = pixel footprint, normal)
    colors: np.ndarray  # (N, 3) float32 0..1 sRGB
    opacities: np.ndarray  # (N,) float32 0..1
    faces: np.ndarray  # (N,) int32, bound head-model triangle
    barycentric: np.ndarray  # (N, 3) float32
    expression_weight: np.ndarray  # (N,) float32 0..1, how much the bound triangle's motion applies
    pose_weight: np.ndarray  # (N,) float32 0..1, 1 turns with the head, 0 stays with the torso
    origin: np.ndarray  # (N,) uint8 VISIBLE | SYMMETRIC | INTERIOR | SUBSTITUTE | OBLIQUE | WORN
    pixels: np.ndarray  # (N, 2) int32 (row, column) of the crop pixel a point came from; -1: of none
    steps: np.ndarray  # (N,) uint8, side in pixels of the block a point stands for, `pixels` being its top left
    portrait: Portrait
    depth_map: DepthMap

    def __len__(self) -> int:
        return len(self.positions)


def is_shown(origin: np.ndarray) -> np.ndarray:
    """Mask (N,) of the points that are pixels of the person without spectacles, by their origin (N,)."""
    return (origin == VISIBLE) | (origin == OBLIQUE)


def is_hidden(points: PointCloud) -> np.ndarray:
    """Mask (N,) of the points at places that the photo doesn't show."""
    return (points.origin == SYMMETRIC) | (points.origin == INTERIOR)


@dataclass(frozen=True)
class Gaussians:
    """3D Gaussians ready to render or export, gsplat's parametrisation."""

    means: torch.Tensor  # (N, 3) m
    quats: torch.Tensor  # (N, 4) wxyz, unit
    scales: torch.Tensor  # (N, 3) m, linear
    opacities: torch.Tensor  # (N,) 0..1
    colors: torch.Tensor  # (N, 3) sRGB 0..1


@dataclass(frozen=True)
class Motion:
    """T frames of facial expression and head pose, relative to the portrait's own pose."""

    expression: np.ndarray  # (T, 52) float32, ARKit order, 0..1: the target expression
    rotation: np.ndarray  # (T, 3) float32 rad, axis-angle of the head in the canonical frame, about the neck joint
    translation: np.ndarray  # (T, 3) float32 m, of the head in the canonical frame
    fps: float
    warnings: tuple[str, ...] = field(default=())
    missing_frames: int = 0  # driving frames without a face, whose motion is a guess

    def __len__(self) -> int:
        return len(self.expression)
