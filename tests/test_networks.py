"""The learned parts: zero-initialised they change nothing; light and feature plumbing do what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from scipy.spatial.transform import Rotation

from mggtalk_core.assets import DEMO_PORTRAIT
from mggtalk_core.gaussians.clamp import clamp_from_bounds
from mggtalk_core.gaussians.decoders import (
    GaussianDecoder,
    MouthTone,
    Residual,
    SymGaussianDecoder,
    apply_residual,
    mouth_part,
)
from mggtalk_core.gaussians.deformation_network import DeformationNetwork
from mggtalk_core.gaussians.densify import Densify
from mggtalk_core.gaussians.head_map import MAP_SIZE, directions, head_map
from mggtalk_core.gaussians.identity_encoder import IdentityEncoder, sample_features
from mggtalk_core.gaussians.light import Relighter, fit_light, sh_basis, turned_light
from mggtalk_core.gaussians.sgp import predict_invisible, predict_visible
from mggtalk_core.geometry.dsgr import build_points, estimate_depth
from mggtalk_core.geometry.refine import STEEPEST, GeoRefineUNet, refine_depth
from mggtalk_core.headmodel.model import load_head_model
from mggtalk_core.media.image import read_photo
from mggtalk_core.model import MGGTalkModel
from mggtalk_core.portrait.analysis import analyze_portrait
from mggtalk_core.rendering.inpainter import Inpainter, crop_boxes, inpaint

SIZE = 128


@pytest.fixture(scope="module")
def portrait():
    return analyze_portrait(read_photo(DEMO_PORTRAIT), size=SIZE)


@pytest.fixture(scope="module")
def points(portrait):
    return build_points(portrait, estimate_depth(portrait))


def head_of(model, points):
    return predict_invisible(model, predict_visible(model, points))


@pytest.fixture(scope="module")
def prior(points):
    return head_of(MGGTalkModel(), points)


def test_untrained_decoders_leave_the_prior_untouched(points, prior):
    torch.manual_seed(0)
    model = MGGTalkModel(
        identity_encoder=IdentityEncoder(), gaussian_decoder=GaussianDecoder(),
        sym_gaussian_decoder=SymGaussianDecoder(), densify=Densify(), deformation=DeformationNetwork(),
        mouth_tone=MouthTone(),
    )  # fmt: skip
    decoded = head_of(model, points)
    assert len(decoded) == len(prior)
    for name in ("positions", "covars", "colors", "opacities", "expression_basis"):
        torch.testing.assert_close(getattr(decoded, name), getattr(prior, name), rtol=0, atol=0)


def test_a_trained_sym_decoder_changes_hidden_points_only(points, prior):
    torch.manual_seed(0)
    decoder = SymGaussianDecoder()
    torch.nn.init.normal_(decoder.head.weight, 0, 0.5)
    decoded = head_of(MGGTalkModel(identity_encoder=IdentityEncoder(), sym_gaussian_decoder=decoder), points)
    visible = prior.origin == 0
    torch.testing.assert_close(decoded.colors[visible], prior.colors[visible], rtol=0, atol=0)
    assert (decoded.colors[~visible] - prior.colors[~visible]).abs().mean() > 0.01


def test_clamping_from_bounds_passes_the_gradient_at_a_bound():
    values = torch.tensor([-0.5, 0.0, 0.3, 1.0, 1.5], requires_grad=True)
    clamped = clamp_from_bounds(values, 0, 1)
    torch.testing.assert_close(clamped, values.clamp(0, 1), rtol=0, atol=0)
    clamped.sum().backward()
    assert values.grad.tolist() == [0, 1, 1, 1, 0]


def test_mouth_tone_changes_the_inner_mouth_only(points, prior):
    torch.manual_seed(0)
    tone = MouthTone()
    torch.nn.init.normal_(tone.head.bias, 0, 0.5)
    toned = head_of(MGGTalkModel(mouth_tone=tone), points)
    inside = torch.from_numpy(mouth_part(prior.faces.numpy(), load_head_model()) >= 0) & (prior.origin != 0)
    assert (toned.colors[inside] - prior.colors[inside]).abs().mean() > 0.02
    torch.testing.assert_close(toned.colors[~inside], prior.colors[~inside], rtol=0, atol=0)


def test_the_decoder_runs_without_identity(points):
    """The ablation `identity`: features of zero instead of an error."""
    assert len(head_of(MGGTalkModel(sym_gaussian_decoder=SymGaussianDecoder()), points)) > 1000


def test_untrained_geo_refine_keeps_depth(portrait):
    depth_map = estimate_depth(portrait)
    np.testing.assert_array_equal(refine_depth(GeoRefineUNet(), portrait, depth_map).depth, depth_map.depth)


def test_trained_geo_refine_moves_the_surface_inside_its_bounds(portrait):
    network = GeoRefineUNet()
    torch.nn.init.constant_(network.head.bias, 5.0)
    depth_map = estimate_depth(portrait)
    refined = refine_depth(network, portrait, depth_map)
    person = np.isfinite(depth_map.depth)
    np.testing.assert_array_equal(np.isfinite(refined.depth), person)
    moved = (refined.depth - depth_map.depth)[person]
    assert (moved >= 0).all() and (moved <= 0.0601).all() and np.percentile(moved, 95) > 0.02
    bare = depth_map.outline.bare
    assert bare[depth_map.on_head].all() and not moved[bare[person]].any()  # skin, fitted to landmarks, stays
    pixel = np.nanmedian(depth_map.depth) / portrait.camera.K[0, 0]
    beside = distance_transform_edt(~bare)[person] * pixel
    assert (moved <= STEEPEST * beside + 1e-6).all()
    assert np.isfinite(refined.normals).all()


def test_the_head_map_shows_the_head_from_all_around(points):
    head = load_head_model()
    nose, ear, crown = (head.mean[index] for index in (head.mean[:, 2].argmin(), head.mean[:, 0].argmax(),
                                                       head.mean[:, 1].argmin()))  # fmt: skip
    places = directions(np.stack([nose, ear, crown]))
    assert abs(places[0, 0]) < 0.05 and 0.2 < places[1, 0] < 0.7 and places[2, 1] < -0.8
    known = head_map(points, head)[0, ::5].numpy() > 0  # of visible, mirrored and interior points; height
    around = np.abs(np.arange(MAP_SIZE) - MAP_SIZE / 2 + 0.5) / (MAP_SIZE / 2)
    seen, interior = known[0, 16:48], known[2, 16:48]
    assert seen[:, around < 0.3].mean() > 0.95 and seen[:, around > 0.8].mean() < 0.05
    assert interior[:, around > 0.8].mean() > 0.95


def test_children_take_over_from_their_parents(points, prior):
    torch.manual_seed(0)
    densify = Densify()
    torch.nn.init.constant_(densify.head.bias[:1], 0.5)
    dense = head_of(MGGTalkModel(identity_encoder=IdentityEncoder(), densify=densify), points)
    count, seen = len(prior), prior.origin == 0
    assert len(dense) == count + 4 * seen.sum()
    share = np.tanh(0.5)
    torch.testing.assert_close(dense.opacities[:count][seen], prior.opacities[seen] * (1 - share), atol=1e-5, rtol=0)
    torch.testing.assert_close(dense.opacities[:count][~seen], prior.opacities[~seen])
    assert (dense.faces[count:].reshape(-1, 4) == prior.faces[seen, None]).all()
    centre = dense.positions[count:].reshape(-1, 4, 3).mean(1)
    torch.testing.assert_close(centre, prior.positions[seen], atol=1e-6, rtol=0)  # untrained places are symmetric
    spread = dense.covars[count:, [0, 3, 5]].sum(1) / prior.covars[seen][:, [0, 3, 5]].sum(1).repeat_interleave(4)
    torch.testing.assert_close(spread, torch.full_like(spread, 0.36), atol=1e-3, rtol=0)


def test_inpainter_is_zero_untrained_and_stays_inside_its_boxes(prior):
    frame = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    boxes = crop_boxes(prior, prior.camera, np.zeros(3), np.zeros(3))
    network = Inpainter()
    np.testing.assert_array_equal(inpaint(network, frame, boxes), frame)
    torch.nn.init.constant_(network.head.bias, 1.0)
    changed = (inpaint(network, frame, boxes) != frame).any(2)
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    inside = np.zeros((SIZE, SIZE), bool)
    for column, row, half in boxes:
        inside |= (np.abs(columns - column) <= half + 1) & (np.abs(rows - row) <= half + 1)
    assert changed[~inside].sum() == 0 and changed[inside].mean() > 0.3


def test_features_are_sampled_where_the_pixel_is():
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    feature_map = torch.stack([rows, columns])[None]
    pixels = torch.tensor([[40, 80], [100, 20]])
    sampled = sample_features(feature_map, pixels, 128)
    expected = (pixels + 0.5) / 4 - 0.5
    torch.testing.assert_close(sampled, expected)


def test_light_of_a_lit_head_is_recovered(points):
    """Paint the visible skin by a known light: the fit finds it on the directions the photo shows."""
    rng = np.random.default_rng(0)
    normals = -points.axes[:, 2] / np.linalg.norm(points.axes[:, 2], axis=1, keepdims=True)
    truth = np.zeros((9, 3))
    truth[0], truth[1], truth[2] = (0.6, 0.5, 0.45), (0.2, 0.2, 0.2), (-0.1, -0.1, -0.1)
    colors = (sh_basis(normals) @ truth + rng.normal(0, 0.01, normals.shape)).clip(0, 1).astype(np.float32)
    light = fit_light(replace(points, colors=colors), normals.astype(np.float32), load_head_model())
    directions = np.array([[0, 0, -1], [0.5, 0, -0.866], [-0.5, 0, -0.866], [0, 0.4, -0.917]])
    np.testing.assert_allclose(sh_basis(directions) @ light, sh_basis(directions) @ truth, atol=0.05)


def test_turned_light_lights_a_normal_as_the_turned_normal_is_lit():
    rng = np.random.default_rng(1)
    light = rng.normal(size=(9, 3))
    turn = Rotation.from_euler("xyz", [0.2, 0.5, -0.1]).as_matrix()
    normals = Rotation.random(10, random_state=2).as_matrix()[:, 0]
    np.testing.assert_allclose(
        sh_basis(normals) @ turned_light(light, turn), sh_basis(normals @ turn.T) @ light, atol=1e-9
    )


def test_relighting_at_rest_changes_nothing_and_the_torso_never(prior):
    relighter, rest = Relighter.of(prior), prior.source_expression.numpy()
    np.testing.assert_allclose(relighter.colors(rest, np.zeros(3)), prior.colors.numpy(), atol=1e-5)
    turned = relighter.colors(rest, np.array([0, 0.6, 0]))
    torso = (prior.pose_weight == 0).numpy()
    np.testing.assert_allclose(turned[torso], prior.colors.numpy()[torso], atol=1e-6)


def test_turning_towards_the_light_brightens(prior):
    """Light from the image's right: a face turned to it gets brighter, turned away darker."""
    light = torch.zeros(9, 3)
    light[0], light[1] = 0.5, 0.3
    relighter, rest = Relighter.of(replace(prior, light=light)), prior.source_expression.numpy()
    face = ((prior.origin == 0) & (prior.pose_weight > 0.99) & (prior.expression_weight > 0.99)).numpy()
    brightness = [relighter.colors(rest, np.array([0, yaw, 0]))[face].mean() for yaw in (-0.4, 0.0, 0.4)]
    toward = Rotation.from_rotvec([0, -0.4, 0]).apply([0, 0, -1])[0]
    assert toward > 0  # this turn moves the face's direction to the right
    assert brightness[0] > brightness[1] > brightness[2]


def test_what_has_no_opacity_stays_out_of_sight(demo_points):
    """Pixels beyond the person, and what mirrors them, have none; its logarithm was a warning."""
    chosen = np.arange(len(demo_points)) < 3
    opacities = demo_points.opacities.copy()
    opacities[:3] = 0, 0.5, 0.5
    residual = Residual(torch.zeros(3, 3), torch.tensor([2.0, 2.0, 0.0]), torch.zeros(3, 3))
    with np.errstate(divide="raise"):
        after = apply_residual(replace(demo_points, opacities=opacities), chosen, residual)
    assert after.opacities[0] < 1e-4 and 0.85 < after.opacities[1] < 0.9
    np.testing.assert_array_equal(after.opacities[2:], opacities[2:])
