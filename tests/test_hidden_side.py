"""What a turned head shows beside the photo's outline: ears, hair and neck, and where the person ends."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import shared_data
from scipy.ndimage import distance_transform_edt, grey_erosion, maximum_filter, minimum_filter
from scipy.spatial import ConvexHull, cKDTree

from mggtalk_core.assets import DEMO_PORTRAIT
from mggtalk_core.gaussians.edge import Edge
from mggtalk_core.gaussians.edge_colors import _between_lips, color_range
from mggtalk_core.gaussians.hair import continued_hair
from mggtalk_core.gaussians.hidden_colors import behind_ears, hidden_colors, under_dark_hair
from mggtalk_core.gaussians.light import lit_normals
from mggtalk_core.geometry.dsgr import build_points, estimate_depth
from mggtalk_core.geometry.interior import TEETH_SPACING, rounded, sample_faces
from mggtalk_core.geometry.projection import project, to_camera, to_canonical
from mggtalk_core.geometry.scalp import (
    LONG,
    NAPE,
    SHORT,
    SILHOUETTE_DEPTH,
    SKULL_CENTRE,
    SPLAT_RADIUS,
    TYPICAL,
    _around,
    hair_outline,
    hair_thickness,
    onto_scalp,
    outline_pixels,
)
from mggtalk_core.geometry.symmetry import _scattered, in_free_space, select
from mggtalk_core.geometry.within_outline import FARTHEST_OUTSIDE, within_outline
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.headmodel.model import SKIN, UPPER_TEETH, load_head_model
from mggtalk_core.media.image import read_photo
from mggtalk_core.pipeline import build_head
from mggtalk_core.portrait.analysis import analyze_portrait
from mggtalk_core.portrait.ears import with_ears
from mggtalk_core.portrait.parsing import coarse_person_mask, one_person, refine_edges
from mggtalk_core.rendering.frames import render_frames
from mggtalk_core.types import INTERIOR, SYMMETRIC, VISIBLE, Motion


@pytest.fixture(scope="module")
def outline(demo_portrait, demo_points):
    return demo_points.depth_map.outline


@pytest.mark.parametrize("size", [192, 256, 300, 512])
def test_refining_the_mask_does_not_move_it(size):
    """A filter window of an even number of pixels once moved it by three pixels at 256."""
    y, x = np.mgrid[:size, :size] + 0.5
    inward = 0.3 * size - np.hypot(x - size / 2, y - size / 2)
    noise = np.random.default_rng(0).normal(0, 0.01, (size, size, 3))
    image = (0.7 - 0.5 * np.clip(inward + 0.5, 0, 1)[..., None] + noise).clip(0, 1).astype(np.float32)
    mask = refine_edges(image, np.clip(inward / (size / 64) + 0.5, 0, 1).astype(np.float32))
    centre = [(mask * axis).sum() / mask.sum() - size / 2 for axis in (x, y)]
    assert np.abs(centre).max() < 0.25
    assert np.sqrt(mask.sum() / np.pi) == pytest.approx(0.3 * size, abs=0.25)


def test_the_segmenters_mask_is_the_same_seen_in_a_mirror(demo_portrait):
    """Its own enlarging put it to one side."""
    large = np.ascontiguousarray(demo_portrait.image.repeat(3, 0).repeat(3, 1))
    mask = coarse_person_mask(large)
    mirrored = coarse_person_mask(np.ascontiguousarray(large[:, ::-1]))[:, ::-1]
    shifts = np.arange(-6, 7)
    differences = [np.abs(np.roll(mask, shift, 1) - mirrored)[:, 12:-12].mean() for shift in shifts]
    assert abs(shifts[np.argmin(differences)]) <= 1


def test_somebody_else_in_the_mask_is_dropped(demo_portrait):
    mask = demo_portrait.alpha.copy()
    mask[:30, :30] = 1
    alone = one_person(mask, demo_portrait.landmarks)
    assert alone[:30, :30].max() == 0
    np.testing.assert_array_equal(alone[60:, 60:], mask[60:, 60:])


def test_an_ear_that_the_segmenter_missed_is_found():
    photo = read_photo(shared_data("dev/portraits/p02_man_beard_glasses.jpg"))
    portrait = analyze_portrait(photo, size=256)
    head = load_head_model()
    coarse = coarse_person_mask(portrait.image)
    found = with_ears(coarse, portrait.image, portrait.landmarks, portrait.vertices, portrait.camera, head)
    ear = project(to_camera(portrait.vertices, portrait.camera), portrait.camera)[head.ears & (head.mean[:, 0] < 0)]
    columns, rows = ear[:, :2].astype(int).T
    assert coarse[rows, columns].mean() < 0.75 and found[rows, columns].mean() > 0.9
    assert (found >= coarse).all()


@pytest.mark.parametrize("reach, is_ear", [(0.017, True), (0.032, False)])
def test_what_goes_on_beyond_an_ears_reach_is_no_ear(demo_portrait, reach, is_ear):
    """A dark bar in the background, beside a dark face, became part of the head."""
    head, camera = load_head_model(), demo_portrait.camera
    ear = head.ears & (head.mean[:, 0] < 0)
    points = project(to_camera(demo_portrait.vertices, camera), camera)[:, :2]
    pixel = camera.viewmat[2, 3] / camera.K[0, 0]
    left, row = points[ear, 0].max(), int(points[ear, 1].mean())
    columns, rows = np.indices(demo_portrait.alpha.shape)[::-1]
    mask = (columns > left).astype(np.float32)
    bar = (np.abs(rows - row) * pixel < 0.012) & (columns <= left) & ((left - columns) * pixel < reach)
    image = np.where(mask[..., None] > 0.5, demo_portrait.image, np.float32([0.2, 0.4, 0.9]))
    cheek = tuple(demo_portrait.landmarks[50, ::-1].astype(int))
    image[bar] = demo_portrait.image[cheek]
    found = with_ears(mask, image, demo_portrait.landmarks, demo_portrait.vertices, camera, head)
    assert found[bar].mean() > 0.9 if is_ear else found[bar].mean() < 0.1


def test_hidden_scalp_ends_where_the_hair_does(demo_portrait, outline):
    """The head model's skull lies centimetres inside this hair; moved, its outline is the photo's."""
    head = load_head_model()
    vertices = demo_portrait.vertices + hair_thickness(demo_portrait, outline, head)
    away = to_camera(vertices, demo_portrait.camera) - outline.centre
    in_plane = (np.abs(away[:, 2]) < 0.01) & (demo_portrait.vertices[:, 1] < -0.04) & ~head.ears
    reach = np.hypot(away[in_plane, 0], away[in_plane, 1])
    angle = np.arctan2(away[in_plane, 1], away[in_plane, 0])
    person = np.interp(angle, outline.angles, outline.end, period=2 * np.pi) * outline.pixel
    assert np.abs(reach - (person - SPLAT_RADIUS)).mean() < 0.006
    bald = np.hypot(*(to_camera(demo_portrait.vertices, demo_portrait.camera) - outline.centre)[in_plane, :2].T)
    assert np.abs(bald - person).mean() > 0.01
    face = demo_portrait.vertices[:, 2] < 0.03
    neck = demo_portrait.vertices[:, 1] > NAPE[1]
    assert np.allclose(vertices[face | neck | head.ears], demo_portrait.vertices[face | neck | head.ears])


def test_what_is_mirrored_behind_the_outline_lies_on_the_scalp(demo_portrait, outline):
    """The far rim of a veil once stood off the turned head as a spike."""
    head = load_head_model()
    scalp = np.unique(head.faces[head.outer_skin])
    surface = (demo_portrait.vertices + hair_thickness(demo_portrait, outline, head))[scalp]
    behind = (to_camera(surface, demo_portrait.camera) - outline.centre)[:, 2] > 0.01
    on_head = surface[behind & (surface[:, 1] < SKULL_CENTRE[1])] - SKULL_CENTRE
    laid = onto_scalp(SKULL_CENTRE + 1.3 * on_head, demo_portrait, outline, head) - SKULL_CENTRE
    off = np.linalg.norm(laid, axis=1) - np.linalg.norm(on_head, axis=1)
    assert len(off) > 50 and np.abs(off).max() < 0.006 and np.abs(off).mean() < 0.002  # 0.03 m before
    inside, hanging = SKULL_CENTRE + 0.9 * on_head, np.array([[0.08, 0.08, 0.12]], np.float32)
    face = demo_portrait.vertices[demo_portrait.vertices[:, 2] < 0.03]
    for free in (inside, hanging, face):
        np.testing.assert_allclose(onto_scalp(free, demo_portrait, outline, head), free, atol=1e-6)


def test_hair_goes_on_behind_the_outline_with_the_photos_texture(demo_portrait, outline):
    """Just behind the outline is the pixel just inside of it; farther behind, one farther inside."""
    angle = -np.pi / 2 + 0.4
    end = np.interp(angle, outline.angles, outline.end) * outline.pixel
    behind = np.array([0.0, 0.01, 0.02])
    at_camera = outline.centre + np.stack(
        [end * np.cos(angle) + 0 * behind, end * np.sin(angle) + 0 * behind, behind], 1
    )
    continued = outline_pixels(to_canonical(at_camera, demo_portrait.camera), demo_portrait, outline)
    assert continued.shown.all()
    inside = end / outline.pixel - np.hypot(*(continued.pixels[:, ::-1] - outline.middle).T)
    assert 0 < inside[0] < 5 and (np.diff(inside) > 0.6 * 0.01 / outline.pixel).all()


@pytest.mark.parametrize("ends", [0.0, 0.06, 0.12])
def test_hair_hangs_as_far_down_as_the_photo_shows_it(demo_portrait, demo_points, ends):
    """Behind long hair a neck showed as a red patch, behind short hair it has to."""
    camera, size = demo_portrait.camera, len(demo_portrait.image)
    row = project(to_camera(np.float32([[0, ends, SILHOUETTE_DEPTH]]), camera), camera)[0, 1]
    nose = demo_portrait.landmarks[4, 0]
    beside = np.abs(np.arange(size) + 0.5 - nose) * camera.viewmat[2, 3] / camera.K[0, 0]
    wig = (beside > 0.06) & (beside < 0.12) & (np.arange(size)[:, None] < row)
    image = np.where(wig[..., None], np.float32([0.1, 0.4, 0.1]), demo_portrait.image)
    alpha = np.where(beside < 0.06, demo_portrait.alpha, wig).astype(np.float32)
    with_wig = replace(demo_portrait, image=image, alpha=alpha)
    found = hair_outline(with_wig, demo_points.depth_map.on_head, load_head_model())
    assert abs(found.hangs - np.clip(ends - SHORT, 0, LONG - SHORT)) < 0.006


def test_below_the_ears_goes_on_what_hair_is_above(demo_portrait, outline):
    """It was one flat tone there, a cap below the strands."""
    places = np.float32([[0.07, y, 0.1] for y in (-0.01, 0.0, 0.01, 0.02, 0.12)])
    high = np.sin(outline.angles) < 0.2
    cropped = replace(outline, hair=np.where(high, 0.1 * len(demo_portrait.image), 0.0), hangs=0.0)
    continued = outline_pixels(places, demo_portrait, cropped)
    assert continued.shown.all()
    assert (continued.share[:3] > 0.9).all() and continued.share[4] == 0
    rows = continued.pixels[:4, 0]
    assert (rows < outline.middle[1] + 0.2 * outline.end.max()).all()  # of the hair above
    assert np.ptp(rows) > 0.01 / outline.pixel  # not always the same of it


def test_the_back_of_the_head_has_the_tone_of_the_hair_along_the_outline(demo_points):
    """Dark hair beside the face, or a temple, was repeated on the back of the head as a dark patch or stripes."""
    portrait, outline = demo_points.portrait, demo_points.depth_map.outline
    size = len(portrait.image)
    columns, rows = np.indices((size, size))[::-1] + 0.5 - outline.middle[:, None, None]
    end = np.interp(np.arctan2(rows, columns), outline.angles, outline.end, period=2 * np.pi)
    inward = (end - np.hypot(rows, columns))[..., None]
    image = np.where(inward > 1.2 * TYPICAL * size, 0.1, 0.6) + 0.1 * np.sin(inward)
    points = replace(demo_points, portrait=replace(portrait, image=image.repeat(3, 2).astype(np.float32)))
    crown = -np.pi / 2 + np.linspace(-0.5, 0.5, 20)
    arc = np.linspace(0.3, 0.8, 20)[:, None]  # rad behind the outline
    reach = np.interp(crown, outline.angles, outline.end) * outline.pixel
    away = np.stack(np.broadcast_arrays(np.cos(arc) * np.cos(crown), np.cos(arc) * np.sin(crown), np.sin(arc)), -1)
    behind = to_canonical((outline.centre + reach[:, None] * away).reshape(-1, 3), portrait.camera)
    share, colors = continued_hair(points, behind)
    assert share.mean() > 0.9
    assert np.abs(colors.mean(1) - 0.6).max() < 0.2 and colors.std() > 0.01  # the texture stays
    width = np.interp(crown, outline.angles, outline.hair) / (TYPICAL * size)
    assert width.min() > 2  # the hair is wide enough to have the dark part
    narrow = replace(outline, hair=np.full_like(outline.hair, 0.025 * size))
    share, _ = continued_hair(replace(points, depth_map=replace(points.depth_map, outline=narrow)), behind)
    assert share.max() < 0.1  # a rim of six pixels


def test_a_hidden_neck_has_the_necks_colour_not_the_collars(demo_points):
    """The demo's turtleneck is black and the collar behind it pale."""
    hidden = np.flatnonzero(demo_points.origin == INTERIOR)
    position = demo_points.positions[hidden]
    head = load_head_model()
    chin = head.landmarks_of(demo_points.portrait.vertices)[152, 1]
    nape = (position[:, 1] > chin - 0.01) & (position[:, 1] < chin + 0.01) & (position[:, 2] > 0.09)
    nape &= head.parts[demo_points.faces[hidden]] == 0
    colors = hidden_colors(demo_points, hidden[nape], head)
    skin = demo_points.colors[
        (demo_points.origin == VISIBLE) & demo_points.depth_map.on_head[tuple(demo_points.pixels.clip(0).T)]
    ]
    hue = (colors[:, 0] - colors[:, 2]).mean()
    assert hue > 0.5 * (skin[:, 0] - skin[:, 2]).mean() > 0.05  # skin is warm; the collar is bluish


def test_a_neck_behind_the_jaw_is_skin_not_the_collar_below(demo_points):
    """Below the chin's height collars stand beside the neck; what is above them took their colour (us_A000371)."""
    portrait, head = demo_points.portrait, load_head_model()
    chin = head.landmarks_of(portrait.vertices)[152, 1]
    rows, columns = demo_points.pixels.clip(0).T
    image = portrait.image.copy()
    collar = (demo_points.origin == VISIBLE) & (demo_points.positions[:, 1] > chin - 0.005)
    image[rows[collar], columns[collar]] = [0.2, 0.3, 0.9]
    colors = demo_points.colors.copy()
    colors[collar] = [0.2, 0.3, 0.9]
    short = replace(demo_points.depth_map.outline, hair=0 * demo_points.depth_map.outline.hair, hangs=0.0)
    points = replace(
        demo_points, colors=colors, portrait=replace(portrait, image=image),
        depth_map=replace(demo_points.depth_map, outline=short),
    )  # fmt: skip
    x, y, z = demo_points.positions.T
    hidden = (demo_points.origin == INTERIOR) & (head.parts[demo_points.faces] == SKIN) & (z > 0.08)
    beside_jaw = np.flatnonzero(hidden & (y > chin - 0.04) & (y < chin - 0.02))
    assert len(beside_jaw) > 50
    red, _, blue = hidden_colors(points, beside_jaw, head).T
    assert (red > blue).mean() > 0.95
    around_neck = np.flatnonzero(hidden & (y > chin + 0.005) & (y < chin + 0.03))
    red, _, blue = hidden_colors(points, around_neck, head).T
    assert (blue > red).mean() > 0.9


def test_hidden_surface_stays_within_the_outline(demo_portrait):
    camera = demo_portrait.camera
    rng = np.random.default_rng(0)
    positions = demo_portrait.vertices[rng.integers(len(demo_portrait.vertices), size=2000)].astype(np.float64)
    moved = within_outline(positions, demo_portrait)
    distance_outside = distance_transform_edt(demo_portrait.alpha <= 0.5)  # px
    was = distance_outside[tuple(project(to_camera(positions, camera), camera)[:, 1::-1].T.astype(int).clip(0, 255))]
    now = distance_outside[tuple(project(to_camera(moved, camera), camera)[:, 1::-1].T.astype(int).clip(0, 255))]
    near = (was > 0) & (was * 0.0013 < 0.8 * SPLAT_RADIUS)  # a pixel is 1.3 mm
    assert near.any() and (now[near] == 0).mean() > 0.8
    assert np.linalg.norm(moved - positions, axis=1).max() < FARTHEST_OUTSIDE
    deep = np.linalg.norm(moved - positions, axis=1) < 1e-6
    assert 0.5 < deep.mean() < 1


def test_a_narrower_skull_has_no_gap_behind_its_outline(demo_portrait):
    """Where the head model's skull is wider than the person's one saw into the head, as a dark band."""
    narrow = replace(demo_portrait, alpha=grey_erosion(demo_portrait.alpha, (29, 29)))
    depth_map = estimate_depth(narrow)
    points = build_points(narrow, depth_map)
    away, direction, _ = _around(points.positions, narrow, depth_map.outline)
    crown = points.positions[:, 1] < -0.02
    shown = crown & (points.origin == VISIBLE)
    hidden = crown & (points.origin == INTERIOR) & load_head_model().outer_skin[points.faces]
    gaps = []
    for angle in np.radians(np.arange(-160, -20, 5)):
        beside = np.abs(direction - angle) < np.radians(2.5)
        gaps.append(np.sort(away[beside & hidden, 2])[3] - np.sort(away[beside & shown, 2])[-4])
    assert (np.array(gaps) < 0).mean() > 0.9


def test_splats_at_the_edge_have_colours_of_the_person(demo_portrait, demo_points):
    """Even where the mask is four pixels too wide; inside they are free."""
    radius = np.hypot(*(np.mgrid[:256, :256] - 128))
    image = np.full_like(demo_portrait.image, 0.9)
    image[radius < 60] = [0.3, 0.2, 0.1]
    frontal = np.broadcast_to(np.array([0, 0, -1], np.float32), image.shape)
    depth_map = replace(demo_points.depth_map, normals=frontal)
    portrait = replace(demo_portrait, image=image, alpha=(radius < 61).astype(np.float32))
    darkest, brightest = color_range(portrait, depth_map, Edge.of(portrait.alpha, depth_map.outline.bare))
    assert (darkest <= brightest).all()
    inside = (radius < 55) & ~_between_lips(portrait)
    assert brightest[inside].min() == 1 and darkest[inside].max() == 0
    assert brightest[(radius > 60) & (radius < 61)].max() < 0.4  # as dark as the disc, not as the wall
    soft = replace(portrait, alpha=np.clip((66 - radius) / 6, 0, 1).astype(np.float32))
    far = (radius > 62) & (radius < 63)
    for bare in (True, False):  # beyond that hair may be loose, skin not
        _, brightest = color_range(soft, depth_map, Edge.of(soft.alpha, np.full(radius.shape, bare)))
        assert brightest[far].max() < 0.4 if bare else brightest[far].min() == 1


def test_skin_seen_at_a_grazing_angle_is_not_sharpened_beyond_its_surroundings(demo_portrait, demo_points):
    """Contrast of single pixels there turned into grain on cheeks and stubble."""
    depth_map = demo_points.depth_map
    darkest, brightest = color_range(demo_portrait, depth_map, Edge.of(demo_portrait.alpha, depth_map.outline.bare))
    solid = demo_portrait.alpha > 0.99
    facing = -demo_points.depth_map.normals[..., 2]
    solid[int(demo_portrait.landmarks[152, 1]) :] = False
    room = (brightest - darkest).mean(-1)
    assert room[solid & (facing > 0.6)].mean() > 0.9 and room[solid & (facing < 0.4)].mean() < 0.5


def test_colours_between_lips_are_no_stronger_than_around(demo_portrait, demo_points):
    """What makes up for the other lip there would be glints and blots once they part."""
    depth_map = demo_points.depth_map
    darkest, brightest = color_range(demo_portrait, depth_map, Edge.of(demo_portrait.alpha, depth_map.outline.bare))
    line = _between_lips(demo_portrait)
    assert 50 < line.sum() < 0.01 * line.size
    np.testing.assert_array_equal(brightest[line], maximum_filter(demo_portrait.image, (3, 3, 1))[line])
    np.testing.assert_array_equal(darkest[line], minimum_filter(demo_portrait.image, (3, 3, 1))[line])


def test_a_second_layer_lies_behind_skin_seen_at_a_grazing_angle(demo_portrait, demo_points):
    """Without it one looks between a turned cheek's pixels into the head."""
    head, camera = load_head_model(), demo_portrait.camera
    seen = np.unique(demo_points.depth_map.face[demo_points.depth_map.distance == 0])
    interior = select(demo_points, (demo_points.origin == INTERIOR) & head.outer_skin[demo_points.faces])
    layer = select(interior, np.isin(interior.faces, seen))
    visible = demo_points.positions[demo_points.origin == VISIBLE]
    behind, _ = cKDTree(visible).query(layer.positions)
    assert (behind < 0.004).sum() > 300  # the others lie under hair
    corners = demo_portrait.vertices[head.faces[layer.faces]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = np.abs(normals @ camera.viewmat[2, :3]) / np.linalg.norm(normals, axis=1)
    assert facing.max() < 0.5
    shown = demo_points.portrait, demo_points.depth_map
    assert in_free_space(layer.positions, *shown, 0.001).all()  # never before what the photo shows


def test_light_does_not_darken_what_faces_away(demo_points):
    normals = np.tile(demo_points.portrait.camera.viewmat[2, :3], (len(demo_points), 1))  # all away from the camera
    lit = lit_normals(demo_points, normals)
    hidden = demo_points.origin != VISIBLE
    assert np.abs(lit[hidden] @ normals[0]).max() < 1e-3
    np.testing.assert_allclose(lit[~hidden], normals[~hidden], atol=1e-5)


def test_crops_of_odd_sizes_work():
    """Ears and hair are looked up on coarser grids, which need not divide the crop."""
    assert len(build_head(read_photo(DEMO_PORTRAIT), size=301))


def test_no_second_ear_lies_behind_the_photos(demo_points):
    """The hidden half of the head model's ear came into view as a second one, and pale."""
    head = load_head_model()
    hidden = (demo_points.origin == INTERIOR) & head.ears[head.faces[demo_points.faces]].all(1)
    assert hidden.sum() > 50
    skull = np.abs(demo_points.portrait.vertices[head.ears, 0]).min()
    tips = np.abs(demo_points.portrait.vertices[head.ears, 0]).max()
    assert np.abs(demo_points.positions[hidden, 0]).max() < skull + 0.6 * (tips - skull)


def test_behind_the_ears_is_what_follows_farther_behind(demo_points):
    head = load_head_model()
    hair, ear = np.float32([0.1, 0.1, 0.1]), np.float32([0.9, 0.5, 0.5])
    hidden = (demo_points.origin == INTERIOR) & head.outer_skin[demo_points.faces]
    of_ears = hidden & head.ears[head.faces[demo_points.faces]].any(1)
    painted = replace(demo_points, colors=np.where(of_ears[:, None], ear, hair))
    colors = behind_ears(painted, head)
    height = demo_points.positions[:, 1] - demo_points.positions[of_ears, 1].min()
    height = height / height[of_ears].max()
    from_seen = cKDTree(demo_points.positions[demo_points.origin == VISIBLE]).query(demo_points.positions)[0]
    upper, lobes = of_ears & (height < 0.54) & (from_seen > 0.006), of_ears & (height > 0.71)
    assert upper.sum() > 50 and lobes.sum() > 20
    np.testing.assert_allclose(colors[upper], hair[None].repeat(upper.sum(), 0), atol=1e-6)
    np.testing.assert_array_equal(colors[lobes], painted.colors[lobes])  # hair-coloured, they were beads beside them
    np.testing.assert_array_equal(colors[~hidden], painted.colors[~hidden])
    # Between the pixels of an ear that is seen aslant its hidden side is ear.
    seen = np.flatnonzero(upper)[::10]
    origin = demo_points.origin.copy()
    origin[seen] = VISIBLE
    between = upper & (cKDTree(demo_points.positions[seen]).query(demo_points.positions)[0] < 0.003)
    assert between.sum() > 2 * len(seen)
    np.testing.assert_array_equal(behind_ears(replace(painted, origin=origin), head)[between], painted.colors[between])


def test_hair_behind_the_ears_is_like_the_hair_above(demo_points):
    """The nearest the photo shows there are ears and temples: short hair ended in a red patch, straight across."""
    head, portrait, outline = load_head_model(), demo_points.portrait, demo_points.depth_map.outline
    green, skin = np.float32([0.1, 0.4, 0.1]), np.float32([0.9, 0.6, 0.5])
    hair_ends = project(to_camera(np.float32([[0, -0.05, 0.1]]), portrait.camera), portrait.camera)[0, 1]
    rows = np.arange(len(portrait.image))[:, None, None]
    image = np.where(rows < hair_ends, green, skin) * np.ones_like(portrait.image)
    ends = outline.middle[1] + outline.end * np.sin(outline.angles)
    outline = replace(outline, hair=np.where(ends < hair_ends, outline.hair, 0))
    depth_map = replace(demo_points.depth_map, outline=outline)
    cropped = replace(demo_points, portrait=replace(portrait, image=image), depth_map=depth_map)
    hidden = np.flatnonzero((demo_points.origin == INTERIOR) & head.outer_skin[demo_points.faces])
    is_green = hidden_colors(cropped, hidden, head) @ [-0.5, 1, -0.5] > 0
    _, y, z = demo_points.positions[hidden].T
    assert is_green[(z > 0.07) & (y > -0.02) & (y < 0.015)].mean() > 0.95
    assert is_green[y > 0.07].mean() < 0.05


@pytest.mark.parametrize("shade, bald", [(0.1, False), (1.0, True)])
def test_dark_hair_on_top_means_no_bald_back(demo_points, shade, bald):
    """Skin that the network guessed behind a short haircut stood out as a pale cap (p08)."""
    head, portrait = load_head_model(), demo_points.portrait
    bare = demo_points.depth_map.outline.bare[..., None]
    photo = np.where(bare, portrait.image, portrait.image * np.float32(shade))
    hidden = (demo_points.origin == INTERIOR) & head.outer_skin[demo_points.faces]
    skin = np.where(hidden[:, None], np.float32([0.6, 0.4, 0.3]), demo_points.colors)
    guessed = replace(demo_points, portrait=replace(portrait, image=photo), colors=skin)
    colors = under_dark_hair(guessed, head)
    x, y, z = demo_points.positions.T
    scalp, neck = hidden & (y < 0) & (z > 0.09), hidden & ((y > 0.1) | (z < 0.05))
    assert (colors[scalp].mean() > 0.35) == bald
    assert bald or colors[scalp].max() < 0.2
    np.testing.assert_allclose(colors[neck | ~hidden], skin[neck | ~hidden])


def test_an_opening_jaw_brings_no_mirrored_beard_through_the_collar():
    """Specks of p17's beard came out on his white collar."""
    photo = shared_data("dev/portraits/p17_senator_glasses_dark_skin.jpg")
    head = build_head(read_photo(photo), size=512)
    expression = head.source_expression.numpy().copy()
    expression[ARKIT_INDEX["jawOpen"]] = 0.7
    motion = Motion(expression[None], np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32), 25.0)
    frames = [next(render_frames(each, motion, size=512))[0].astype(int) for each in (head, head.without(SYMMETRIC))]
    collar = (slice(368, 384), slice(282, 300))
    assert np.median(frames[0][collar]) > 200
    assert np.abs(frames[0] - frames[1])[collar].max() < 25


def test_closed_lips_keep_their_teeth():
    """p15: a few deep pixels between closed lips took a patch of teeth away around each, black gaps in a smile."""
    portrait = analyze_portrait(read_photo(shared_data("dev/portraits/p15_senator_bald.jpg")), size=512)
    points, head = build_points(portrait, estimate_depth(portrait)), load_head_model()
    kept = np.count_nonzero((points.origin == INTERIOR) & (head.parts[points.faces] == UPPER_TEETH))
    all_of_them, *_ = sample_faces(
        portrait.vertices, head.faces, np.flatnonzero(head.parts == UPPER_TEETH), TEETH_SPACING
    )
    assert kept > 0.95 * len(all_of_them)


def test_the_hidden_scalp_is_round():
    """Its triangles are up to 2 cm wide: a head turned by 20 degrees had corners, as if cut from paper."""
    sphere = np.random.default_rng(0).normal(size=(160, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    hull = ConvexHull(sphere).simplices
    inward = np.linalg.det(sphere[hull]) < 0
    hull[inward] = hull[inward, ::-1]
    faces, barycentric, flat, axes = sample_faces(sphere, hull, np.arange(len(hull)), 0.02)
    corners = sphere[hull[faces]]
    positions, turned = rounded(flat, axes, barycentric, corners, corners)
    deep = 1 - np.linalg.norm(flat, axis=1)
    assert np.abs(1 - np.linalg.norm(positions, axis=1)).mean() < 0.2 * deep.mean()
    np.testing.assert_allclose(np.linalg.norm(turned, axis=2), np.linalg.norm(axes, axis=2), rtol=1e-6)
    normals = turned[:, 2] / np.linalg.norm(turned[:, 2], axis=1, keepdims=True)
    assert (normals * positions).sum(1).min() > 0.98
    assert np.abs(np.einsum("nij,nkj->nik", turned, turned)[:, (0, 0, 1), (1, 2, 2)]).max() < 1e-9


def test_nothing_mirrored_shows_through_a_soft_edge(demo_points):
    mirrored = demo_points.positions[demo_points.origin == SYMMETRIC]
    portrait = demo_points.portrait
    columns, rows = project(to_camera(mirrored, portrait.camera), portrait.camera)[:, :2].astype(int).T
    assert len(mirrored) > 500
    assert portrait.alpha[rows, columns].min() > 0.5


def test_no_mirrored_splat_comes_out_of_what_the_photo_shows(demo_points):
    """Mirrored lashes and edges, long as they are at a grazing angle, were spots on the other cheek."""
    mirrored = select(demo_points, demo_points.origin == SYMMETRIC)
    camera, depth = mirrored.portrait.camera, demo_points.depth_map.depth
    covering = np.where(mirrored.portrait.alpha > 0.5, depth, np.nan)
    for axis in (0, 1):
        for side in (-2, 2):
            ends = project(to_camera(mirrored.positions + side * mirrored.axes[:, axis], camera), camera)
            columns, rows = ends[:, :2].astype(int).clip(0, len(depth) - 1).T
            assert not (ends[:, 2] < covering[rows, columns] - 1e-6).any()


def test_no_mirrored_neck_hangs_in_the_air_below_an_ear():
    """A flap of skin stood beside this one's neck: the other side's is wider than the fitted one."""
    head = load_head_model()
    portrait = analyze_portrait(read_photo(shared_data("train/portraits/us_C001097.jpg")), size=512)
    depth_map = estimate_depth(portrait)
    skin = portrait.vertices[np.unique(head.faces[head.outer_skin])]

    def in_the_air(hangs: float) -> int:
        """How many mirrored points below the ears and behind the jaw are 4 mm and more off the head model."""
        points = build_points(portrait, replace(depth_map, outline=replace(depth_map.outline, hangs=hangs)))
        mirrored = points.positions[points.origin == SYMMETRIC]
        lobes = portrait.vertices[np.unique(head.faces[head.ears[head.faces].any(1)]), 1].max()
        beside_neck = mirrored[(mirrored[:, 1] > lobes) & (mirrored[:, 2] > 0.025)]
        return int((cKDTree(skin).query(beside_neck)[0] > 0.004).sum())

    assert depth_map.outline.hangs == 0
    assert in_the_air(0.0) < 10
    assert in_the_air(0.1) > 200  # with hair that hangs there it would be hair, and is kept


def test_no_dotted_line_of_a_mirrored_ear_is_left(demo_points):
    head, pixel = load_head_model(), 0.001
    surface = np.stack(np.meshgrid(np.arange(8), np.arange(8), [0]), -1).reshape(-1, 3) * pixel
    line = np.array([[20 + 5 * number, 0, 0] for number in range(10)]) * pixel
    count = len(surface) + len(line)
    ear, cheek = np.flatnonzero(head.ears[head.faces].any(1))[0], np.flatnonzero(~head.ears[head.faces].any(1))[0]
    cloud = replace(select(demo_points, np.arange(count)), positions=np.concatenate([surface, line]).astype(np.float32),
                    faces=np.full(count, ear, np.int32), steps=np.ones(count, np.uint8))  # fmt: skip
    np.testing.assert_array_equal(_scattered(cloud, pixel, head), np.arange(count) >= len(surface))
    assert not _scattered(replace(cloud, faces=np.full(count, cheek, np.int32)), pixel, head).any()
