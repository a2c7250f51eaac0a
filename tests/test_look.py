"""What a viewer would notice: cuts, holes and foreign colours when the head moves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_closing, binary_erosion, gaussian_filter, label
from scipy.spatial import cKDTree

from mggtalk_core.assets import DEMO_PORTRAIT
from mggtalk_core.gaussians.color_bounds import as_hair, as_varied_as_nearby, in_the_photos_hues, in_the_photos_shades
from mggtalk_core.gaussians.deformation import pose_weight_gradient
from mggtalk_core.gaussians.edge import Edge
from mggtalk_core.gaussians.edge_colors import edge_tints
from mggtalk_core.gaussians.hair import textured
from mggtalk_core.gaussians.light import Relighter
from mggtalk_core.gaussians.mouth_light import RIM
from mggtalk_core.gaussians.sgp import predict_invisible, predict_visible
from mggtalk_core.gaussians.unfolding_tone import UnfoldingTone
from mggtalk_core.geometry.binding import polygon_mask
from mggtalk_core.geometry.border import above_photo, cut_columns
from mggtalk_core.geometry.dsgr import build_points, estimate_depth
from mggtalk_core.geometry.mesh_raster import rasterize_mesh, vertex_normals
from mggtalk_core.geometry.open_mouth import open_mouth
from mggtalk_core.geometry.outline_depth import outline_depth
from mggtalk_core.geometry.pose_weights import head_pose_weight
from mggtalk_core.geometry.projection import project, to_camera
from mggtalk_core.geometry.scalp import SILHOUETTE_DEPTH, outline_pixels
from mggtalk_core.geometry.symmetry import select
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.headmodel.landmarks import OVAL
from mggtalk_core.headmodel.model import LEFT_EYE, LOWER_TEETH, RIGHT_EYE, TONGUE, UPPER_TEETH, load_head_model
from mggtalk_core.media.image import read_photo
from mggtalk_core.model import MGGTalkModel
from mggtalk_core.pipeline import build_head
from mggtalk_core.portrait.analysis import analyze_portrait
from mggtalk_core.portrait.background import already
from mggtalk_core.rendering.frames import render_frames
from mggtalk_core.types import INTERIOR, VISIBLE, Motion, PointCloud

from .conftest import shared_data


def alpha_of(head, pitch: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    """Mask (S, S) 0..1 of the head turned by degrees."""
    turn = np.radians([[pitch, yaw, 0]]).astype(np.float32)
    motion = Motion(head.source_expression.numpy()[None], turn, np.zeros((1, 3), np.float32), 25.0)
    return next(render_frames(head, motion, size=head.crop_size, background="transparent"))[1] / 255


def test_a_nod_shows_no_cut_through_hair_that_the_photo_cuts_off(demo_portrait):
    (scale, _, _), (_, _, top) = demo_portrait.crop_to_photo
    hair_top = int(top + scale * np.flatnonzero((demo_portrait.alpha > 0.5).any(1))[0])
    forehead = int(top + scale * demo_portrait.landmarks[10, 1])
    cut_photo = read_photo(DEMO_PORTRAIT)[(hair_top + 2 * forehead) // 3 :]
    head = build_head(cut_photo, size=256)
    above = head.alpha[0].numpy() > 250
    assert above.sum() > 40  # the photo does cut the hair
    middle = int(np.flatnonzero(above).mean())
    nodded = alpha_of(head, pitch=10)[:, middle - 8 : middle + 8]
    assert (nodded[:12] > 0.9).mean() > 0.9  # hair goes on to the picture's edge, where the cut was before


def test_stretched_neck_and_shoulders_have_no_holes(demo_head):
    for yaw in (-30, -25):
        alpha = alpha_of(demo_head, yaw=yaw)
        inside = binary_erosion(binary_closing(alpha > 0.5, iterations=6), iterations=8)
        inside[: int(0.55 * len(alpha))] = False
        assert (alpha[inside] < 0.9).mean() < 0.002  # 0.03 to 0.04 when surfels keep their size


def test_the_gradient_of_the_pose_weight_is_its_derivative():
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(-0.03, 0.03, 4000), rng.uniform(0.13, 0.2, 4000), np.zeros(4000)], 1)
    weight = head_pose_weight(points, 0.12)
    gradient = pose_weight_gradient(torch.from_numpy(points).float(), torch.from_numpy(weight)).numpy()
    step = np.array([0, 1e-4, 0])
    exact = (head_pose_weight(points + step, 0.12) - head_pose_weight(points - step, 0.12)) / 2e-4
    inner = (weight > 0.05) & (weight < 0.95) & (np.abs(points[:, 0]) < 0.028)
    assert inner.sum() > 500
    assert np.abs(gradient[inner, 1] - exact[inner]).mean() < 0.05 * np.abs(exact[inner]).mean()
    assert np.abs(gradient[inner][:, [0, 2]]).max() < 0.2 * np.abs(exact).max()


@pytest.mark.parametrize("channels", [1, 3])
def test_hidden_hair_has_the_photos_shades(demo_points, channels):
    """What a network makes of hidden hair is grey on a grey photo, and untouched where the photo has all colours."""
    seen = demo_points.origin == VISIBLE
    colors = np.full_like(demo_points.colors, 0.6)
    colors[seen] += np.random.default_rng(0).normal(0, 0.15, (seen.sum(), channels)).astype(np.float32)
    change = np.float32([[-0.3, -0.2, 0.2]])
    kept = in_the_photos_shades(colors[seen], change)
    np.testing.assert_allclose(kept, [[-0.1] * 3] if channels == 1 else change, atol=0.01)


def test_dark_hair_behind_brown_skin_is_not_red():
    """Skin darkened by what all of it varies in was maroon: a shaved head's back (us_J000294)."""
    brightness = np.random.default_rng(0).uniform(0.1, 0.8, (500, 1))
    photo = brightness * [1.36, 0.92, 0.72] + [0.02, 0.0, 0.01]
    skin = np.float32([[0.66, 0.405, 0.34]])
    darkened = skin + in_the_photos_hues(photo, skin, np.float32([[-0.43, -0.32, -0.25]]))
    assert abs(darkened.mean() - 0.135) < 0.01
    assert (darkened / darkened.mean())[0, 0] < 1.5 and darkened[0, 0] > darkened[0, 1]
    small = np.float32([[-0.1, -0.06, -0.05]])
    np.testing.assert_allclose(in_the_photos_hues(photo, skin, small), small, atol=0.01)


def test_what_lies_beside_the_photos_colours_stays_near_them(demo_points):
    shown = np.flatnonzero(demo_points.origin == VISIBLE)[::16]
    beside, tree = np.arange(5), cKDTree(demo_points.positions[shown])
    wild = np.float32([[-0.3, -0.2, 0.4]]).repeat(5, 0)
    small = as_varied_as_nearby(np.full((len(shown), 3), 0.6, np.float32), tree, beside, wild)
    assert np.linalg.norm(small, axis=1).max() < 0.016
    speckled = np.random.default_rng(0).normal(0.6, 0.15, (len(shown), 3)).astype(np.float32)
    kept = as_varied_as_nearby(speckled, tree, beside, wild)
    assert 0.1 < np.linalg.norm(kept, axis=1).mean() < 0.4


def test_what_is_learned_of_hidden_hair_leaves_its_strands(demo_points):
    """A tone for all of it changes it by just that; strand by strand nothing is taken away, as from a plastic cap."""
    hidden = demo_points.origin != VISIBLE
    share = share_of_hair(demo_points, hidden)
    hair = share > 0.99
    assert hair.sum() > 2000
    tone = np.float32([[0.12, 0.1, 0.08]]).repeat(hidden.sum(), 0)
    changed = as_hair(demo_points, hidden, tone)
    assert np.ptp(changed[hair], axis=0).max() < 1e-4
    np.testing.assert_allclose(changed[hair].mean(0), tone[0], atol=0.01)
    strands = np.random.default_rng(0).normal(0, 0.1, tone.shape).astype(np.float32)
    changed = as_hair(demo_points, hidden, strands)
    assert changed[hair].std() < 0.5 * strands[hair].std()
    np.testing.assert_array_equal(changed[share == 0], strands[share == 0])


def test_hidden_hair_keeps_the_hairs_own_shades(demo_points):
    """A face's red is not the hair's: with it, a network can turn brown hair red behind."""
    hidden = demo_points.origin != VISIBLE
    share, portrait = share_of_hair(demo_points, hidden), demo_points.portrait
    grey = np.repeat(portrait.image.mean(2, keepdims=True), 3, 2)
    of_grey_hair = replace(demo_points, portrait=replace(portrait, image=grey))
    red = np.float32([[0.1, -0.02, -0.08]]).repeat(hidden.sum(), 0)
    changed = as_hair(of_grey_hair, hidden, red)
    assert np.abs(changed[share > 0.99]).max() < 0.02
    np.testing.assert_array_equal(changed[share == 0], red[share == 0])


def share_of_hair(points: PointCloud, hidden: np.ndarray) -> np.ndarray:
    """How much (n,) 0..1 hidden points, by a mask (N,), continue the photo's hair."""
    continued = outline_pixels(points.positions[hidden], points.portrait, points.depth_map.outline)
    return textured(continued, len(points.portrait.image)) * (points.origin[hidden] == INTERIOR)


def test_nothing_is_added_above_a_head_that_is_whole(demo_points):
    assert not cut_columns(demo_points).any()
    assert len(above_photo(select(demo_points, demo_points.origin == VISIBLE))) == 0


def share_seen(head, chosen: np.ndarray, **actions: float) -> np.ndarray:
    """Share (S, S) 0..1 of each pixel that chosen Gaussians (N,) cover, at rest but for some actions."""
    colors = torch.from_numpy(np.repeat(chosen[:, None].astype(np.float32), 3, 1))
    expression = np.zeros((1, 52), np.float32)
    for name, value in actions.items():
        expression[0, ARKIT_INDEX[name]] = value
    motion = Motion(expression, np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32), 25.0)
    plain = replace(head, colors=colors, light=torch.zeros_like(head.light))
    return next(render_frames(plain, motion, size=head.crop_size, background=(0.0, 0.0, 0.0)))[0][..., 0] / 255


def test_the_teeth_of_a_smile_stay_behind_lips_and_cheeks(demo_head):
    model, faces = load_head_model(), demo_head.faces.numpy()
    inner = (model.parts[faces] >= TONGUE) | model.mouth_interior[faces]
    smiling = inner & ((demo_head.origin == VISIBLE) & (demo_head.colors.mean(1) > 0.6)).numpy()
    assert smiling.sum() > 150

    def seen(**actions: float) -> float:
        return share_seen(demo_head, smiling, **actions).sum() / smiling.sum()

    assert seen(mouthClose=0.1) < 0.06  # 0.11 where they kept the lips' depth
    assert seen(jawOpen=0.6) < 0.22  # 0.38
    assert seen(jawOpen=0.25, mouthFunnel=0.6) < 0.35  # 0.41; 0.2 with the lips' inside before the upper row
    teeth = np.isin(model.parts[faces], (UPPER_TEETH, LOWER_TEETH))
    columns = np.nonzero(share_seen(demo_head, teeth, jawOpen=0.6) > 0.3)[1]
    assert np.ptp(columns) < 22  # 27: some on the cheeks; the mouth is 49 wide


def test_closed_lips_let_nothing_of_the_mouth_through():
    portrait = analyze_portrait(read_photo(shared_data("dev/portraits/p03_man_elderly.jpg")), size=256)
    points = build_points(portrait, estimate_depth(portrait))
    head = load_head_model()
    inner = (points.origin == INTERIOR) & ((head.parts[points.faces] >= TONGUE) | head.mouth_interior[points.faces])
    assert inner.sum() > 1000
    built = predict_invisible(MGGTalkModel(), predict_visible(MGGTalkModel(), points))
    source = dict(zip(ARKIT_INDEX, built.source_expression.tolist()))
    assert share_seen(built, inner, **source).max() < 0.3


def test_side_teeth_are_dark_on_the_tongues_side(demo_head):
    model, faces = load_head_model(), demo_head.faces.numpy()
    normals = vertex_normals(demo_head.vertices.numpy(), model.faces)[model.faces[faces]].mean(1)
    positions, brightness = demo_head.positions.numpy(), demo_head.colors.numpy().mean(1)
    side = np.isin(model.parts[faces], (UPPER_TEETH, LOWER_TEETH)) & (np.abs(positions[:, 0]) > 0.017)
    outward = normals[:, 0] * np.sign(positions[:, 0])
    inner, outer = (brightness[side & facing].mean() for facing in (outward < -0.3, outward > 0.3))
    assert inner < 0.6 * outer


class _Mouth:
    """An open mouth of 40 x 72 pixels in the middle of a dark picture, tilted by degrees."""

    def __init__(self, tilt: float):
        turn = np.radians(tilt)
        self._across, self._down = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
        self._centre = np.array([128.0, 128.0])
        self.landmarks = np.zeros((478, 2))
        self.landmarks[13], self.landmarks[14] = self._centre - 20 * self._down, self._centre + 20 * self._down
        self.image = np.full((256, 256, 3), 0.1, np.float32)
        self.inside, self.lips = self.box(-20, 20, 36), self.box(-30, 30, 42)

    def box(self, top: float, bottom: float, half: float, middle: float = 0) -> np.ndarray:
        sides = [(middle - half, top), (middle + half, top), (middle + half, bottom), (middle - half, bottom)]
        corners = [self._centre + x * self._across + y * self._down for x, y in sides]
        return polygon_mask(np.array(corners), len(self.image))

    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        seen = open_mouth(self.image, self.landmarks, self.inside, self.lips)
        assert not (seen.upper & seen.lower | seen.upper & seen.lip | seen.lower & seen.lip).any()
        assert not (seen.upper | seen.lower | seen.lip)[~self.inside].any()
        return seen.upper, seen.lower, seen.lip


@pytest.mark.parametrize("tilt", [0, 20])
def test_rows_of_teeth_are_told_apart_by_where_they_lie(tilt):
    mouth = _Mouth(tilt)
    above, below = mouth.box(-18, -8, 30), mouth.box(10, 18, 30)
    mouth.image[above | below] = 0.9
    upper, lower, _ = mouth.parts()
    assert upper[above & mouth.inside].all() and lower[below & mouth.inside].all()
    mouth.image[mouth.box(-18, 4, 30)] = 0.9  # a long row hangs below the middle and still is one
    upper, lower, _ = mouth.parts()
    assert upper[mouth.box(-18, 4, 30)].all() and lower[below & mouth.inside].all()


def test_teeth_that_stand_on_each_other_are_two_rows():
    mouth = _Mouth(0)
    above, below = mouth.box(-18, 4, 30), mouth.box(8, 18, 30)
    mouth.image[above | below] = 0.9
    mouth.image[mouth.box(4, 8, 0.4)] = 0.9
    upper, lower, _ = mouth.parts()
    assert upper[above].all() and lower[below & mouth.inside].all()


def test_gums_go_with_the_teeth_however_dark_they_are():
    mouth = _Mouth(0)
    mouth.image[mouth.box(0, 10, 20)] = 0.9
    upper, _, _ = mouth.parts()
    assert upper[mouth.box(-19, 10, 19)].all()
    assert not upper[mouth.box(-19, 0, 2, middle=32)].any()


def test_lip_within_its_contour_is_lip():
    """Lower teeth in the same place are teeth by their colour, and a tongue by how far it reaches."""
    pink = (0.8, 0.4, 0.45)
    for color, top, part in ((pink, 17, 2), ((0.9, 0.9, 0.8), 17, 1), (pink, 6, 1)):
        mouth = _Mouth(0)
        mouth.image[mouth.lips & ~mouth.inside] = pink
        mouth.image[mouth.box(-18, -2, 30)] = 0.9
        piece = mouth.box(top, 20, 24)
        mouth.image[piece] = color
        assert mouth.parts()[part][piece].mean() > 0.9, (color, top)


def test_blurred_mouths_are_one_piece():
    mouth = _Mouth(0)
    mouth.image[mouth.box(-18, 8, 30) | mouth.box(11, 18, 30)] = 0.2
    upper, lower, lip = mouth.parts()
    assert upper[mouth.box(11, 18, 29)].all() and not (lower | lip).any()


def test_the_mouth_darkens_inward_from_the_lips(demo_points, demo_head):
    """Without the lips' own inner side a dark rim runs around every opening mouth."""
    model = load_head_model()
    cavity = (demo_head.origin == INTERIOR).numpy() & model.mouth_interior[demo_head.faces.numpy()]
    depth = demo_head.positions[:, 2].numpy() - model.mouth_centre(demo_points.portrait.vertices)[2]
    brightness = demo_head.colors.mean(1).numpy()
    near, deep = brightness[cavity & (depth < 0.003)], brightness[cavity & (depth > 0.02)]
    assert len(near) > 100 and len(deep) > 100
    assert np.median(near) > 1.8 * np.median(deep)


def test_rounded_lips_shade_the_teeth_and_nothing_else(demo_head):
    """Teeth are darker behind rounded lips and a little brighter in a smile, the skin is as it was."""
    model, faces, rest = load_head_model(), demo_head.faces.numpy(), np.zeros(3)
    teeth = np.isin(model.parts[faces], (UPPER_TEETH, LOWER_TEETH))
    outer = model.outer_skin[faces]
    outer[UnfoldingTone.of(demo_head).points] = False  # rims of lips and lids, tested elsewhere,
    outer &= ~model.beside_lips(RIM)[faces]  # as those that turn into the mouth are

    def colors(*actions: str) -> np.ndarray:
        expression = np.zeros(52, np.float32)
        expression[[ARKIT_INDEX[name] for name in actions]] = 1
        return Relighter.of(demo_head).colors(expression, rest)

    neutral, round_, wide = colors(), colors("mouthFunnel"), colors("mouthSmileLeft", "mouthSmileRight")
    assert round_[teeth].mean() < 0.75 * neutral[teeth].mean() < 0.75 * wide[teeth].mean()
    np.testing.assert_array_equal(round_[outer], neutral[outer])


def test_eyes_do_not_shine_through_closed_lids(demo_head):
    parts = load_head_model().parts[demo_head.faces.numpy()]
    eyes = np.isin(parts, (LEFT_EYE, RIGHT_EYE))
    source = dict(zip(ARKIT_INDEX, demo_head.source_expression.tolist()))
    shown = share_seen(demo_head, eyes, **source).sum()
    closed = share_seen(demo_head, eyes, **(source | {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})).sum()
    assert closed < 0.08 * shown  # 0.21 where eyeballs stay


def test_hair_over_an_ear_does_not_take_the_ears_shape():
    """Slivers of the model's ear beside the face bent the depth of the hair before it: it looked woven when turned."""
    portrait = analyze_portrait(read_photo(shared_data("dev/portraits/p05_woman_long_hair.jpg")), size=512)
    depth_map = estimate_depth(portrait)
    pieces, count = label(depth_map.on_head)
    sizes = np.bincount(pieces.ravel())[1:]
    assert count == 2 and sizes.min() > 0.05 * sizes.max()  # face and neck
    left, right = portrait.landmarks[list(OVAL), 0].min(), portrait.landmarks[list(OVAL), 0].max()
    row = depth_map.depth[int(portrait.landmarks[4, 1])]  # at the nose's height
    for outward in (row[int(left) - 60 : int(left) + 8][::-1], row[int(right) - 8 : int(right) + 60]):
        assert np.nanmin(np.diff(outward)) > -0.0015  # farther and farther toward the outline, without a bulge


def test_a_face_in_profile_keeps_its_nose():
    """Beyond the landmarks' oval nose and lips once were hair: turned further, the face had no nose at all."""
    portrait = analyze_portrait(read_photo(shared_data("dev/portraits/p10_man_side_view.jpg")), size=512)
    depth_map = estimate_depth(portrait)
    head = load_head_model()
    points = project(to_camera(portrait.vertices, portrait.camera), portrait.camera)
    depth, _, _ = rasterize_mesh(points, head.faces[head.outer_skin], 512, 512)
    for landmark, allowed in ((4, 0.002), (6, 0.002), (0, 0.003), (17, 0.003), (199, 0.003)):  # nose, lips, chin
        column, row = portrait.landmarks[landmark].astype(int)
        column -= 3  # the outline itself
        assert abs(depth_map.depth[row, column] - depth[row, column]) < allowed, landmark


def test_a_beard_in_profile_ends_at_the_chin():
    """Its outline lay in the plane of the ears, a hand's breadth behind: turned, it stood off sideways as a spike."""
    portrait = analyze_portrait(read_photo(shared_data("dev/portraits/p10_man_side_view.jpg")), size=512)
    depth_map = estimate_depth(portrait)
    chin = to_camera(load_head_model().landmarks_of(portrait.vertices)[152], portrait.camera)[2]
    column, row = portrait.landmarks[152].astype(int)
    beard = depth_map.depth[row : row + 60, column - 10 : column + 30]
    below = np.isfinite(beard) & ~depth_map.on_head[row : row + 60, column - 10 : column + 30]
    assert below.sum() > 100
    assert np.percentile(beard[below] - chin, 95) < 0.02  # 0.058


def test_seen_from_the_front_the_outline_lies_in_the_plane_of_the_ears(demo_portrait):
    depth = outline_depth(demo_portrait, load_head_model(), demo_portrait.alpha > 0.5)
    assert np.abs(depth - demo_portrait.camera.viewmat[2, 3] - SILHOUETTE_DEPTH).max() < 0.003


def test_no_shoulders_of_the_head_model_stand_out_of_the_clothes(demo_points):
    hidden = demo_points.positions[demo_points.origin == INTERIOR]
    chin = load_head_model().landmarks_of(demo_points.portrait.vertices)[152, 1]
    assert np.abs(hidden[hidden[:, 1] > chin + 0.005, 0]).max() < 0.075  # 0.12: a spike beside the collar


@pytest.mark.parametrize("scalp", [True, False], ids=["bald head", "jaw and neck"])
def test_a_smooth_edge_has_no_tint_of_the_background(demo_points, scalp):
    """A matte half a pixel too wide mixes it in; on a turned head it drew the old outline."""
    skin, wall = np.array([0.55, 0.35, 0.25], np.float32), np.array([0.2, 0.35, 0.5], np.float32)
    portrait = demo_points.portrait
    truth = np.clip(gaussian_filter(portrait.alpha, 1.0) * 2 - 1, 0, 1)[..., None]  # ends inside of the given matte
    image = truth * skin + (1 - truth) * wall
    portrait = replace(portrait, image=image, filling=already(np.broadcast_to(wall, image.shape).copy()))
    outline = demo_points.depth_map.outline
    outline = replace(outline, hair=np.full_like(outline.hair, 40 * scalp), bare=np.full_like(outline.bare, not scalp))
    depth_map = replace(demo_points.depth_map, outline=outline)
    points = replace(demo_points, portrait=portrait, depth_map=depth_map)
    tints = edge_tints(portrait, depth_map, Edge.of(portrait.alpha, depth_map.outline.bare))
    visible = predict_visible(MGGTalkModel(), points).points
    rows, columns = visible.pixels.clip(0).T
    at_edge = (visible.origin == VISIBLE) & (tints.number[rows, columns] >= 0)
    assert at_edge.sum() > (300 if scalp else 100)
    colors = visible.colors[at_edge]
    tint = colors / colors.sum(1, keepdims=True) - skin / skin.sum()
    mixed = image[rows, columns][at_edge]
    assert np.abs(mixed / mixed.sum(1, keepdims=True) - skin / skin.sum()).max() > 0.1
    assert np.abs(tint).max() < 0.03 and np.abs(tint).mean() < 0.015  # 0.072 and 0.033
