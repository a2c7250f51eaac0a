"""Surface from normals, and depth models brought into the head's metres."""

import numpy as np
import pytest

from mggtalk_core.assets import DEMO_PORTRAIT
from mggtalk_core.errors import InputError
from mggtalk_core.geometry.bini import integrate_normals
from mggtalk_core.geometry.depth_models import align_to_head, model_depth
from mggtalk_core.geometry.dsgr import estimate_depth
from mggtalk_core.media.image import read_photo
from mggtalk_core.portrait.analysis import analyze_portrait

SIZE = 96
K = np.array([[400.0, 0, SIZE / 2], [0, 400.0, SIZE / 2], [0, 0, 1]])


def sphere(step=0.0):
    """Depth and normals of a sphere of 8 cm, 1 m away, seen perspectively; one half moved back by `step` metres."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    ray = np.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1], np.ones((SIZE, SIZE))], -1)
    centre, radius = np.array([0, 0, 1.0]), 0.08
    a, b, c = (ray**2).sum(-1), ray @ centre, centre @ centre - radius**2
    discriminant = b**2 - a * c
    mask = discriminant > 0.25 * discriminant.max()
    z = (b - np.sqrt(np.maximum(discriminant, 0))) / a
    normals = (ray * z[..., None] - centre) / radius
    z = np.where(columns > SIZE / 2, z + step, z)
    return z, normals, mask


def test_a_sphere_is_recovered_from_its_normals():
    z, normals, mask = sphere()
    anchor = np.zeros_like(z)
    anchor[SIZE // 2, SIZE // 2] = 1
    result = integrate_normals(normals, mask, K, z, anchor)
    assert np.isnan(result[~mask]).all()
    assert np.abs(result - z)[mask].max() < 4e-4  # of 80 mm


def test_an_occluding_edge_does_not_bend_what_lies_behind(monkeypatch):
    """A ball in front of a slanted wall: bilateral weights keep the wall straight, plain integration bends it."""
    from mggtalk_core.geometry import bini

    ball, normals, on_ball = sphere()
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    wall_normal = np.array([0.3, 0.1, -1.0]) / np.linalg.norm([0.3, 0.1, -1.0])
    ray = np.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1], np.ones((SIZE, SIZE))], -1)
    wall = 1.03 * wall_normal[2] / (ray @ wall_normal)
    truth = np.where(on_ball, ball, wall)
    normals = np.where(on_ball[..., None], normals, wall_normal)
    anchor = np.zeros_like(truth)
    anchor[:3] = anchor[-3:] = anchor[SIZE // 2 - 2 : SIZE // 2 + 2, SIZE // 2 - 2 : SIZE // 2 + 2] = 1000
    everywhere = np.ones_like(on_ball)
    bilateral = integrate_normals(normals, everywhere, K, truth, anchor)
    monkeypatch.setattr(bini, "ITERATIONS", 1)
    plain = integrate_normals(normals, everywhere, K, truth, anchor)
    errors = [np.abs(result - truth)[~on_ball].mean() for result in (bilateral, plain)]
    assert errors[0] < 0.3 * errors[1], errors


@pytest.fixture(scope="module")
def portrait():
    return analyze_portrait(read_photo(DEMO_PORTRAIT), size=128)


@pytest.mark.parametrize("inverse", [False, True])
def test_relative_depth_gets_the_heads_scale(portrait, inverse):
    """A known affine map of depth (or inverse depth), with outliers, is undone."""
    prior = estimate_depth(portrait)
    truth = np.where(np.isfinite(prior.depth), prior.depth, np.nanmax(prior.depth))
    relative = 37 * (1 / truth if inverse else -truth) + 5
    rng = np.random.default_rng(0)
    relative += rng.normal(0, 0.02, relative.shape) * (rng.random(relative.shape) < 0.1)
    aligned = align_to_head(relative, prior)
    assert np.median(np.abs(aligned - truth)[prior.on_head]) < 1e-3


def test_a_picture_without_the_head_is_refused(portrait):
    noise = np.random.default_rng(0).normal(size=(128, 128))
    with pytest.raises(InputError, match="does not resemble"):
        align_to_head(noise, estimate_depth(portrait))


def test_an_absent_model_gets_one_sentence(portrait, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="can't be loaded"):
        model_depth(portrait, estimate_depth(portrait), str(tmp_path))


def test_a_transformers_model_runs_end_to_end(portrait, tmp_path, monkeypatch):
    """A tiny random DPT gives nonsense, which the alignment refuses; its plumbing is what is tested."""
    transformers = pytest.importorskip("transformers")
    from mggtalk_core.geometry import depth_models

    config = transformers.DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=64, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, is_hybrid=False,
        readout_type="ignore", reassemble_factors=[4, 2, 1, 0.5],
    )  # fmt: skip
    transformers.DPTForDepthEstimation(config).save_pretrained(tmp_path)
    transformers.DPTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    prediction = depth_models._predict(str(tmp_path), portrait.image)
    assert prediction.shape == (128, 128) and np.isfinite(prediction).all()

    prior = estimate_depth(portrait)
    person = np.isfinite(prior.depth)
    shape = np.where(person, prior.depth, np.nanmax(prior.depth))
    hair = person & ~prior.on_head
    rounder = np.where(hair, shape - 0.01, shape)
    monkeypatch.setattr(depth_models, "_predict", lambda source, image: 3 - rounder)
    result = model_depth(portrait, prior, "stand-in")
    assert result.source == "stand-in" and (np.isfinite(result.depth) == person).all()
    assert np.median(np.abs(result.depth - prior.depth)[prior.on_head]) < 1e-3
    assert np.median((result.depth - prior.depth)[hair]) < 0
