"""Synthetic heads: what the renderer says about its pictures is true of them."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import shared_data
from scipy.ndimage import distance_transform_edt

from mggtalk_core.evaluation.synthetic_heads import ZOOM, grid_energy, synthetic_heads
from mggtalk_core.geometry.projection import project, to_camera
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.headmodel.model import load_head_model
from mggtalk_core.training.makehuman import load_wardrobe
from mggtalk_core.training.synthetic import (
    LUMINANCE,
    PLAIN,
    Grade,
    graded,
    head_camera,
    photograph,
    sample_background,
    sample_expression,
    sample_grade,
    sample_light,
    sample_person,
)
from mggtalk_core.training.synthetic_pairs import (
    make_color_sample,
    make_depth_sample,
    make_samples,
    make_scene,
    read_sample,
    simulated_portrait,
)

SIZE = 192


@pytest.fixture(scope="module")
def wardrobe():
    return load_wardrobe(shared_data("train/makehuman"))


@pytest.fixture(scope="module")
def scene(wardrobe):
    rng = np.random.default_rng(5)
    person = sample_person(rng, wardrobe, load_head_model())
    return person, sample_light(rng), sample_background(rng, SIZE)


def take(scene, wardrobe, yaw=0.0, expression=None):
    person, light, background = scene
    expression = np.zeros(52, np.float32) if expression is None else expression
    return photograph(person, expression, head_camera(yaw, 0, SIZE), light, background, wardrobe)


def test_same_seed_same_picture(scene, wardrobe):
    np.testing.assert_array_equal(take(scene, wardrobe).image, take(scene, wardrobe).image)


def test_depth_agrees_with_the_head_model(scene, wardrobe):
    """Visible landmarks of the posed head lie on the depth map."""
    head = load_head_model()
    view = take(scene, wardrobe, yaw=15)
    points = head.landmarks_of(head.shape(scene[0].identity, view.expression))
    projected = project(to_camera(points, view.camera), view.camera)
    nose = [1, 4, 5, 195, 197, 6]
    columns, rows = projected[nose, :2].astype(int).T
    np.testing.assert_allclose(view.depth[rows, columns], projected[nose, 2], atol=2e-3)
    np.testing.assert_allclose(view.landmarks, projected[:, :2], atol=1e-3)


def test_depth_normals_and_mask_agree(scene, wardrobe):
    view = take(scene, wardrobe)
    solid = view.alpha > 0.999
    assert np.isfinite(view.depth[solid]).mean() > 0.995
    assert np.isnan(view.depth[view.alpha < 0.001]).all()
    forehead = view.landmarks[[151, 9]].astype(int)
    assert (view.normals[forehead[:, 1], forehead[:, 0], 2] < -0.8).all()  # faces the camera
    np.testing.assert_allclose(view.image[view.alpha == 0], view.background[view.alpha == 0], atol=1e-6)


def test_expression_shows(scene, wardrobe):
    opened = np.zeros(52, np.float32)
    opened[ARKIT_INDEX["jawOpen"]] = 0.7
    neutral, speaking = take(scene, wardrobe), take(scene, wardrobe, expression=opened)
    difference = np.abs(neutral.image - speaking.image).mean(2)
    lip = speaking.landmarks[14].astype(int)
    assert difference[lip[1] - 4 : lip[1] + 5, lip[0] - 4 : lip[0] + 5].mean() > 0.05
    brow = speaking.landmarks[9].astype(int)
    assert difference[brow[1] - 4 : brow[1] + 5, brow[0] - 4 : brow[0] + 5].mean() < 0.01


def test_turning_the_light_with_the_head_keeps_its_shading(scene, wardrobe):
    """Ambient light seen from turned axes shades a turned normal alike."""
    from scipy.spatial.transform import Rotation

    from mggtalk_core.gaussians.light import sh_basis

    light = scene[1]
    turn = Rotation.from_euler("y", 40, degrees=True).as_matrix()
    normals = Rotation.random(20, random_state=1).as_matrix()[:, 0]
    turned = light.turned(turn)
    np.testing.assert_allclose(
        sh_basis(normals @ turn.T) @ turned.ambient, sh_basis(normals) @ light.ambient, atol=1e-6
    )


def test_the_tracker_finds_synthetic_people(wardrobe):
    """MediaPipe sees a face where there is one, with landmarks where the ground truth has them."""
    from mggtalk_core.portrait.tracking import FaceTracker

    rng = np.random.default_rng(1)
    head = load_head_model()
    errors = []
    with FaceTracker(max_faces=1) as tracker:
        for yaw in (-25, -10, 0, 10, 25):
            person = sample_person(rng, wardrobe, head)
            light, background = sample_light(rng), sample_background(rng, 320)
            view = photograph(
                person, 0.5 * sample_expression(rng), head_camera(yaw, 0, 320), light, background, wardrobe
            )
            for face in tracker.detect(np.round(view.image * 255).astype(np.uint8)):
                ocular = np.linalg.norm(view.landmarks[468] - view.landmarks[473])
                inner = [33, 133, 263, 362, 1, 61, 291, 13, 14]
                errors.append(np.linalg.norm(face.landmarks - view.landmarks, axis=1)[inner].mean() / ocular)
    assert len(errors) >= 4
    assert np.median(errors) < 0.08


def test_age_and_beard_show(scene, wardrobe):
    """Grey turns the hair bright, the crown goes bald, a beard darkens the chin and leaves the lips alone."""
    person, light, background = scene
    hairy = replace(person, hair=4, grey=0.0, crown=0.0, beard=0.0)
    plain = take((hairy, light, background), wardrobe)
    grey = take((replace(hairy, grey=1.0), light, background), wardrobe)
    crown = take((replace(hairy, crown=0.08), light, background), wardrobe)
    bearded = take((replace(hairy, beard=0.9), light, background), wardrobe)
    hair = (plain.alpha > 0.99) & ~plain.on_head & (np.arange(SIZE)[:, None] < plain.landmarks[10, 1])
    assert hair.sum() > 200
    assert grey.image[hair].mean() > plain.image[hair].mean() + 0.1
    assert crown.on_head.sum() > plain.on_head.sum() + 50
    columns, rows = plain.landmarks[[152, 0, 17]].astype(int).T
    change = (bearded.image - plain.image).mean(-1)[rows - [4, 0, 0], columns]
    assert abs(change[0]) > 0.05 > np.abs(change[1:]).max()


def test_photos_are_graded(scene, wardrobe):
    """Grey photos are grey, a plain grade changes nothing, and all keep the order of light and dark."""
    view = take(scene, wardrobe)
    np.testing.assert_array_equal(graded(view, PLAIN).image, view.image)
    grey = graded(view, Grade(np.broadcast_to(LUMINANCE[:, None], (3, 3)), 1.2))
    assert np.ptp(grey.image, axis=2).max() < 1e-6 and np.ptp(grey.background, axis=2).max() < 1e-6
    bright = view.image.mean(2) > np.median(view.image)
    for seed in range(20):
        picture = graded(view, sample_grade(np.random.default_rng(seed))).image
        assert picture[bright].mean() > picture[~bright].mean() + 0.1


def test_simulated_masks_are_as_wrong_as_real_ones(scene, wardrobe):
    """Twice as wrong, as they once were, they teach a decoder to distrust the outline: dark patches on real heads."""
    view = take(scene, wardrobe, 10.0)
    inside = view.alpha > 0.5
    near = distance_transform_edt(inside) + distance_transform_edt(~inside) < 15 / 512 * SIZE
    errors = []
    for seed in range(4):
        alpha = simulated_portrait(view, np.random.default_rng(seed)).alpha
        errors.append(np.abs(alpha - view.alpha)[near].mean())
    assert 0.004 < min(errors) < max(errors) < 0.03 and len(set(errors)) == 4


def test_samples_are_the_same_by_several_processes(wardrobe, tmp_path):
    """What other processes write is what this one makes; what is there is kept; hidden points stray in colour.

    The others run on one thread, this one on several: sums in another order, so a step of half precision may differ.
    """
    assets = shared_data("train/makehuman")
    (tmp_path / "sample_000003.safetensors").touch()
    make_samples(make_depth_sample, assets, tmp_path, range(1, 4), workers=2)
    assert (tmp_path / "sample_000003.safetensors").stat().st_size == 0
    sample, again = read_sample(tmp_path / "sample_000002.safetensors"), make_depth_sample(2, wardrobe)
    for name, array in again.items():
        assert sample[name].dtype == array.dtype
        np.testing.assert_allclose(sample[name], array, rtol=2**-10, atol=1e-5, err_msg=name)
    assert 0.001 < np.abs(sample["depth_error"][sample["depth_known"]].astype(float)).mean() < 0.05

    colors = make_color_sample(2, wardrobe, None)
    known = colors["color_weights"] > 0.3
    assert known.mean() > 0.2
    assert 0.01 < np.abs(colors["true_colors"] - colors["prior_colors"])[known].astype(float).mean() < 0.3


def test_a_grid_is_measured(scene, wardrobe):
    """A pattern with the period of the splats raises the measure; the photograph itself has little of it."""
    rng = np.random.default_rng(3)
    made = make_scene(rng, wardrobe, SIZE)
    side = ZOOM * SIZE
    camera = made.view.camera.resized(side, side)
    picture = photograph(made.person, made.expression, camera, made.light, np.zeros((side, side, 3)), wardrobe)
    stripes = 0.02 * np.cos(2 * np.pi / ZOOM * np.arange(side))[None, :, None]
    assert grid_energy(picture.image + stripes, made, SIZE) > 20 * grid_energy(picture.image, made, SIZE)


def test_held_out_people_are_compared(wardrobe):
    report = synthetic_heads(shared_data("train/makehuman"), people=1, size=128, ablate=["geo-refine", "sym-decoder"])
    rows = {name: {metric: value["mean"] for metric, value in row.items()} for name, row in report["variants"].items()}
    assert rows["full"]["psnr_hidden"] > rows["without sym-decoder"]["psnr_hidden"]
    assert rows["full"]["depth_mm"] < rows["without geo-refine"]["depth_mm"] == rows["prior only"]["depth_mm"]
    assert 5 < rows["full"]["psnr_hidden"] < rows["full"]["psnr_head"] < 40
    assert 0 < rows["full"]["skin_depth_mm"] < 15
