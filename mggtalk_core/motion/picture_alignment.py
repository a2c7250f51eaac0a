"""Picture alignment: correct a tracked pose and expression until the driven head's rendering lies on the frame.

Landmarks are found to about a hundredth of the distance between the eyes, which at 256 pixels is half a pixel: enough
to lose a decibel. The frame itself says more. Lucas and Kanade's alignment (1981) compares it with the head rendered
where the landmarks put it, on the skin of the face: Gauss-Newton on 52 actions and the pose, with the mean of both
pictures' gradients (Benhimane and Malis 2004), held near the landmarks' answer by a Gaussian prior.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ..gaussians.head import GaussianHead
from ..geometry.mesh_raster import vertex_normals
from ..geometry.projection import project, projection_jacobian, rotation_derivative, to_camera
from ..headmodel.landmarks import INNER_LIP_LOWER, INNER_LIP_UPPER
from ..headmodel.model import HeadModel, load_head_model
from ..portrait.crop import cut_square
from ..rendering.frames import LiveRenderer

PICTURE_SIZE = 256
"""Side of the compared pictures."""

FINE_BLUR, COARSE_BLUR = 0.8, 10.0
"""Pixels: what is finer is noise, what is coarser is exposure and shading, not motion."""

CONTRAST_NOISE = 0.06
"""Expected difference of a point's logarithmic brightness; twice as much counts as something else, such as a hand."""

POINT_SHARE = 0.1
"""How many independent observations a mesh vertex is: neighbours err alike."""

EXPRESSION_SIGMA, ROTATION_SIGMA, TRANSLATION_SIGMA = 0.06, 0.02, 0.003
"""How far the landmarks' answer may be off (one standard deviation; rad, m)."""

LIP_GAP_SIGMA = 0.001
"""The same for the gap between a pair of lip landmarks, m: in it teeth come and go, which is not motion."""

ITERATIONS = 3

FACE_TOP, FACE_BOTTOM, FACE_DEPTH = -0.09, 0.12, 0.05
"""Skin between these y and before this z (metres, mean head) is compared."""

LIP_REACH, LIP_WEIGHT = 0.006, 2.0
"""Within so many metres of the lips' line a point counts up to this much more: speech is told by few points."""

GRAZING = (0.2, 0.5)
"""Cosines to the view between which a point begins to count, in the photo and in the frame."""


class PictureAlignment:
    """Corrects motion of one head, seen by its photo's camera, frame by frame. Not to be shared between threads."""

    def __init__(self, head: GaussianHead):
        self._own_camera = head.camera
        self.camera = head.camera.resized(PICTURE_SIZE, PICTURE_SIZE)
        crop_to_photo = head.crop_to_photo.numpy()
        self._side = crop_to_photo[0, 0] * head.crop_size  # of the crop in the photo, pixels
        self._centre = crop_to_photo[:, 2] + self._side / 2
        self._renderer = LiveRenderer(head, backend="cpu")
        model = load_head_model()
        vertices, self._faces = _compared_skin(model)
        self._rest = head.vertices.numpy()[vertices]
        self._basis = head.expression_basis.numpy()[:, vertices]
        self._source_expression, self._neck = head.source_expression.numpy(), head.neck.numpy()
        lips = model.landmarks_of(model.mean)[list(INNER_LIP_UPPER + INNER_LIP_LOWER)]
        distance, _ = cKDTree(lips).query(model.mean[vertices])
        trust = 1 + LIP_WEIGHT * np.exp(-0.5 * (distance / LIP_REACH) ** 2)
        self._weight = trust * self._facing(self._rest)

        actions = model.landmarks_of(head.expression_basis.numpy())
        gaps = actions[:, list(INNER_LIP_LOWER), 1] - actions[:, list(INNER_LIP_UPPER), 1]  # (52, pairs) m
        sigmas = np.repeat([EXPRESSION_SIGMA, ROTATION_SIGMA, TRANSLATION_SIGMA], [52, 3, 3])
        self._prior = np.diag(1 / sigmas**2)
        self._prior[:52, :52] += gaps @ gaps.T / LIP_GAP_SIGMA**2

    def picture_of(self, frame: np.ndarray) -> np.ndarray:
        """The head's crop of a frame (H, W, 3) uint8 aligned with its photo, as `align` wants it."""
        return contrast(cut_square(frame.astype(np.float32) / 255, self._centre, self._side, PICTURE_SIZE)[0])

    def align(
        self, picture: np.ndarray, expression: np.ndarray, rotation: np.ndarray, translation: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Expression (52,) 0..1, rotation (3,) rad and translation (3,) m that lay the head on the picture.

        Args:
            picture: `contrast` of the crop, (256, 256).
            expression, rotation, translation: as tracked, relative to rest like a `Motion`'s.
        """
        camera, focal = self.camera, self.camera.K[0, 0]
        to_view = camera.viewmat[:3, :3]
        drawn = contrast(self._drawn(expression, rotation, translation))
        turn = Rotation.from_rotvec(rotation)
        moved, turned = self._moved(expression, turn, translation)
        pixels = project(to_camera(moved, camera), camera)[:, :2]
        weight = self._weight * self._facing(moved)
        expected, drawn_slope = _sampled(drawn, pixels), _slope(drawn, pixels)
        change = np.zeros(58)
        for _ in range(ITERATIONS):
            slope = 0.5 * (drawn_slope + _slope(picture, pixels))
            by_place = np.einsum("ni,nij->nj", slope, projection_jacobian(to_camera(moved, camera), focal) @ to_view)
            by_action = np.einsum("nj,enj->ne", by_place @ turn.as_matrix(), self._basis, optimize=True)
            by_turn = np.einsum("nj,njk->nk", by_place, rotation_derivative(turned))
            jacobian = np.concatenate([by_action, by_turn, by_place], 1)
            residual = expected - _sampled(picture, pixels)
            robust = weight / (1 + (residual / (2 * CONTRAST_NOISE)) ** 2) * (POINT_SHARE / CONTRAST_NOISE**2)
            weighted = jacobian * robust[:, None]
            step = np.linalg.solve(
                weighted.T @ jacobian + self._prior, weighted.T @ residual - self._prior @ change
            )
            step[:52] = np.clip(expression + step[:52], 0, 1) - expression
            change += step
            expression = expression + step[:52]
            turn = Rotation.from_rotvec(step[52:55]) * turn
            translation = translation + step[55:]
            moved, turned = self._moved(expression, turn, translation)
            pixels = project(to_camera(moved, camera), camera)[:, :2]
        return tuple(value.astype(np.float32) for value in (expression, turn.as_rotvec(), translation))

    def _drawn(self, expression, rotation, translation) -> np.ndarray:
        """The head as the camera sees it, (256, 256, 3) float32 0..1.

        Drawn at the size the head was built for: drawn smaller, its Gaussians spread and the face comes out larger.
        """
        rendered, _ = self._renderer.frame(expression, rotation, translation, self._own_camera)
        if self._own_camera.width != PICTURE_SIZE:
            rendered = Image.fromarray(rendered).resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.BICUBIC)
        return np.asarray(rendered, np.float32) / 255

    def _moved(self, expression, turn: Rotation, translation) -> tuple[np.ndarray, np.ndarray]:
        """Compared vertices (n, 3) m, canonical, and the same relative to the neck before translation."""
        shape = self._rest + np.tensordot(expression - self._source_expression, self._basis, 1)
        turned = (shape - self._neck) @ turn.as_matrix().T
        return turned + self._neck + translation, turned


    def _facing(self, vertices: np.ndarray) -> np.ndarray:
        """0..1 (n,): how well the camera sees compared vertices (n, 3)."""
        points = to_camera(vertices, self.camera)
        normals = vertex_normals(vertices, self._faces) @ self.camera.viewmat[:3, :3].T
        cosine = -(normals * points).sum(1) / np.linalg.norm(points, axis=1)
        return np.clip((cosine - GRAZING[0]) / (GRAZING[1] - GRAZING[0]), 0, 1)


def contrast(picture: np.ndarray) -> np.ndarray:
    """Logarithm of the brightness of a picture (H, W, 3) float32 0..1 between two blurs, (H, W)."""
    brightness = np.log(picture.mean(-1) + 0.05)
    return gaussian_filter(brightness, FINE_BLUR) - gaussian_filter(brightness, COARSE_BLUR)


def _compared_skin(model: HeadModel) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (n,) of the face's skin, and its triangles (m, 3) as indices into them."""
    x, y, z = model.mean.T
    inside = (y > FACE_TOP) & (y < FACE_BOTTOM) & (z < FACE_DEPTH)
    skin = model.outer_skin & inside[model.faces].all(1)
    vertices, faces = np.unique(model.faces[skin], return_inverse=True)
    return vertices, faces.reshape(-1, 3)


def _sampled(picture: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Values (n,) of a picture (H, W) at (column, row) pixels (n, 2), linear."""
    return map_coordinates(picture, pixels[:, ::-1].T - 0.5, order=1, mode="nearest")


def _slope(picture: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Gradient (n, 2) by column and row, per pixel."""
    by_row, by_column = np.gradient(picture)
    return np.stack([_sampled(by_column, pixels), _sampled(by_row, pixels)], 1)
