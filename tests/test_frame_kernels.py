"""The per-frame vector kernels against the plain torch and numpy code they replace, and frames made in parallel."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mggtalk_core.gaussians import deformation
from mggtalk_core.gaussians.deformation import HeadDeformer, deform_torch
from mggtalk_core.gaussians.light import MAX_CHANGE, MIN_LIGHT, Relighter, sh_basis, turned_light
from mggtalk_core.gaussians.mouth_light import MouthLight
from mggtalk_core.gaussians.turning_tone import FACING, TurningTone
from mggtalk_core.gaussians.unfolding_tone import UnfoldingTone
from mggtalk_core.geometry.pose_weights import smoothstep
from mggtalk_core.rendering.frames import _in_order


def small_head(n, seed=0):
    """A random head of n points on 40 triangles, one of them degenerate."""
    rng = np.random.default_rng(seed)
    vertices = rng.normal(0, 0.1, (30, 3)).astype(np.float32)
    triangles = np.stack([rng.permutation(30)[:3] for _ in range(40)]).astype(np.int32)
    triangles[7] = triangles[7, 0]
    axes = rng.normal(0, 0.002, (n, 3, 3))
    covars = np.einsum("nka,nkb->nab", axes, axes)[:, (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)]
    arrays = {
        "positions": rng.normal(0, 0.1, (n, 3)), "covars": covars, "faces": rng.integers(0, 40, n).astype(np.int32),
        "barycentric": rng.dirichlet([1, 1, 1], n), "expression_weight": rng.uniform(0, 1, n),
        "pose_weight": rng.uniform(0, 1, n), "vertices": vertices, "triangles": triangles,
        "expression_basis": rng.normal(0, 0.02, (52, 30, 3)), "source_expression": rng.uniform(0, 1, 52),
        "neck": np.array([0.0, 0.12, 0.05]),
    }  # fmt: skip

    class Head(SimpleNamespace):
        def __len__(self):
            return n

    return Head(**{k: torch.from_numpy(v if v.dtype == np.int32 else v.astype(np.float32)) for k, v in arrays.items()})


@pytest.mark.parametrize("n", [1, 8, 203])
def test_deform_is_the_torch_reference(n, monkeypatch):
    monkeypatch.setattr(deformation, "load_head_model", lambda: SimpleNamespace(around_lips=np.arange(3, 22)))
    head, rng = small_head(n), np.random.default_rng(1)
    expression, rotation, translation = rng.uniform(0, 1, 52), rng.normal(0, 0.3, 3), rng.normal(0, 0.02, 3)
    deformer = HeadDeformer(head)
    means, covars = deformer.deform(expression, rotation, translation)
    expected = deform_torch(head, *(torch.tensor(v, dtype=torch.float32) for v in (expression, rotation, translation)))
    assert means.shape == (n, 3) and covars.shape == (n, 6)
    np.testing.assert_allclose(means, expected[0], atol=2e-6)
    np.testing.assert_allclose(covars, expected[1], atol=2e-5 * float(expected[1].abs().max()))
    twin = deformer.twin()
    twin.deform(np.zeros(52), np.zeros(3), np.zeros(3))
    np.testing.assert_array_equal(means, deformer._means[:n])  # the twin has its own results
    np.testing.assert_array_equal(means, twin.deform(expression, rotation, translation)[0])


@pytest.mark.parametrize("n", [3, 100])
def test_relight_is_the_plain_formula(n):
    rng = np.random.default_rng(2)
    colors, pose_weight = rng.uniform(0, 1, (n, 3)).astype(np.float32), rng.uniform(0, 1, n).astype(np.float32)
    normals = rng.normal(size=(n, 3))
    normals = (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32)
    light = (rng.normal(0, 0.2, (9, 3))).astype(np.float32)
    light[0] += 0.6
    rotation = np.array([0.1, 0.5, -0.2])
    from scipy.spatial.transform import Rotation

    floor = MIN_LIGHT * np.maximum(light[0], 1e-3)
    turned = turned_light(light, Rotation.from_rotvec(rotation).as_matrix())
    change = np.maximum(sh_basis(normals) @ turned, floor) / np.maximum(sh_basis(normals) @ light, floor)
    change = change.clip(1 / MAX_CHANGE, MAX_CHANGE)
    expected = (colors * (1 + pose_weight[:, None] * (change - 1))).clip(0, 1)
    mouth = MouthLight(*[np.zeros(0, int)] * 3, np.ones(3), np.zeros((52, 3)), 1.0)
    tones = (mouth, UnfoldingTone.none(), TurningTone.none())
    got = Relighter(colors, normals, pose_weight, light, *tones).colors(np.zeros(52), rotation)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_colours_change_as_far_as_points_have_turned():
    rng = np.random.default_rng(3)
    colors, changes = rng.uniform(0, 1, (40, 3)).astype(np.float32), rng.normal(0, 0.3, (30, 3)).astype(np.float32)
    normals, pose_weight = rng.normal(size=(30, 3)).astype(np.float32), rng.uniform(0, 1, 30).astype(np.float32)
    points, towards, rotation = rng.permutation(40)[:30], np.array([0, 0.6, -0.8]), np.array([0.1, 0.5, -0.2])
    from scipy.spatial.transform import Rotation

    gain = pose_weight * (normals @ (towards @ Rotation.from_rotvec(rotation).as_matrix() - towards))
    amount = smoothstep((gain - FACING[0]) / (FACING[1] - FACING[0]))[:, None]
    assert 0 < (amount > 0).sum() < 30
    expected = colors.copy()
    expected[points] = (expected[points] + amount * changes).clip(0, 1)
    TurningTone(points, changes, normals, pose_weight, towards).shade(colors, rotation)
    np.testing.assert_allclose(colors, expected, atol=1e-6)


@pytest.mark.parametrize("workers", [1, 3])
def test_frames_come_in_order_and_errors_at_their_place(workers):
    assert list(_in_order(lambda k: k * k, range(5, 25), workers)) == [k * k for k in range(5, 25)]

    def paint(index):
        if index == 4:
            raise ValueError("frame 4")
        return index

    seen = []
    with pytest.raises(ValueError, match="frame 4"):
        for value in _in_order(paint, range(10), workers):
            seen.append(value)
    assert seen == [0, 1, 2, 3]


def test_an_abandoned_render_stops_soon():
    painted = []
    frames = _in_order(lambda k: painted.append(k), range(1000), 2)
    next(frames)
    frames.close()
    assert len(painted) < 8
