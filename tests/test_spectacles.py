"""Spectacles: found on whoever wears them, stiff, before the face, which is whole behind them."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.numpy import save_file

from mggtalk_core.assets import DEMO_PORTRAIT
from mggtalk_core.errors import InputError
from mggtalk_core.gaussians.deformation import deform
from mggtalk_core.geometry.projection import project, to_camera
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.media.image import read_photo
from mggtalk_core.pipeline import build_head
from mggtalk_core.portrait.analysis import analyze_portrait
from mggtalk_core.portrait.spectacles import SpectaclesUNet, cut_window, from_window
from mggtalk_core.rendering.frames import render_frames
from mggtalk_core.training.spectacles import PAIRS, make_spectacles_sample, spectacles_stage
from mggtalk_core.training.trainer import Settings
from mggtalk_core.types import VISIBLE, WORN, Motion
from mggtalk_core.weights import load_model

FINER = 4


@pytest.fixture(scope="module")
def bare():
    return analyze_portrait(read_photo(DEMO_PORTRAIT), size=256)


@pytest.fixture(scope="module")
def drawn(bare):
    """How much (H, W) of the demo photo's pixels round black spectacles cover, drawn around its eyes."""
    height, width = bare.photo.shape[:2]
    scale, offset = bare.crop_to_photo[0, 0], bare.crop_to_photo[:, 2]
    eyes = bare.landmarks[[468, 473]] * scale + offset
    outer = bare.landmarks[[127, 356]] * scale + offset  # where temples meet hair
    apart = np.linalg.norm(eyes[1] - eyes[0])
    canvas = Image.new("L", (width * FINER, height * FINER))
    draw = ImageDraw.Draw(canvas)
    stroke = int(0.07 * apart * FINER)
    for eye in eyes:
        box = [*((eye - 0.4 * apart) * FINER), *((eye + 0.4 * apart) * FINER)]
        draw.ellipse(box, outline=255, width=stroke)
    along = (eyes[1] - eyes[0]) / apart
    inner, sides = [eyes[0] + 0.39 * apart * along, eyes[1] - 0.39 * apart * along], []
    for eye, end, way in zip(eyes, outer, (-1, 1)):
        sides.append([eye + 0.39 * way * apart * along, end])
    for line in (inner, *sides):
        draw.line([tuple(point * FINER) for point in line], 255, stroke)
    return np.asarray(canvas.resize((width, height), Image.Resampling.BOX), np.float32) / 255


@pytest.fixture(scope="module")
def photo(bare, drawn):
    return (bare.photo * (1 - drawn[..., None]) + 0.06 * drawn[..., None]).astype(np.float32)


@pytest.fixture(scope="module")
def portrait(photo):
    return analyze_portrait(photo, size=256, spectacles=load_model().spectacles)


@pytest.fixture(scope="module")
def head(photo):
    return build_head(photo, model=load_model(), size=256)


@pytest.mark.parametrize("size", [200, 511])
def test_the_window_is_a_part_of_the_crop(bare, size):
    image = np.asarray(Image.fromarray((bare.image * 255).astype(np.uint8)).resize((size, size)), np.float32) / 255
    camera = bare.camera.resized(size, size)
    window = cut_window(image, camera)
    assert window.shape == (3, 128, 256)
    back = from_window(torch.cat([window, torch.ones_like(window[:1])]), camera, size).numpy()
    inside = back[3] > 0.99
    assert 0.05 < inside.mean() < 0.6
    eyes = (bare.landmarks[[33, 263]] * size / 256).astype(int)
    assert inside[eyes[:, 1], eyes[:, 0]].all()
    assert np.abs(back[:3] - image.transpose(2, 0, 1))[:, inside].mean() < 0.02


def test_untrained_nobody_wears_any(photo):
    plain, seen = (analyze_portrait(photo, size=128, spectacles=network) for network in (None, SpectaclesUNet()))
    assert seen.spectacles is None
    np.testing.assert_array_equal(seen.image, plain.image)


def test_whoever_wears_none_stays_as_photographed(bare):
    seen = analyze_portrait(bare.photo, size=256, spectacles=load_model().spectacles)
    assert seen.spectacles is None
    np.testing.assert_array_equal(seen.image, bare.image)


def test_they_are_found_and_taken_off(bare, drawn, portrait):
    worn, to_photo = portrait.spectacles, portrait.crop_to_photo
    box = (*to_photo[:, 2], *(to_photo[:, 2] + 256 * to_photo[0, 0]))

    def cropped(picture: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(picture).resize((256, 256), Image.Resampling.BOX, box=box))

    truth, face = cropped(drawn), cropped((bare.photo * 255).astype(np.uint8)) / 255
    assert worn.alpha[truth > 0.9].mean() > 0.8
    assert worn.alpha[truth < 0.01].mean() < 0.02
    assert (worn.image == portrait.photographed).all()
    hidden = truth > 0.5
    with_them, without = (np.abs(image - face)[hidden].mean() for image in (worn.image, portrait.image))
    assert without < 0.35 * with_them
    assert worn.colors[truth > 0.9].mean() < 0.15


def test_they_stand_before_the_face_and_are_stiff(head):
    worn = head.origin.numpy() == WORN
    skin = (head.origin.numpy() == VISIBLE) & (head.expression_weight.numpy() > 0.99)
    still = np.zeros(3, np.float32)
    rest = head.source_expression.numpy()
    raised = rest.copy()
    raised[[ARKIT_INDEX[name] for name in ("browInnerUp", "browOuterUpLeft", "browOuterUpRight", "jawOpen")]] = 1
    before, after = (deform(head, expression, still, still)[0] for expression in (rest, raised))
    moved = np.linalg.norm(after - before, axis=1)
    assert worn.sum() > 300
    assert moved[worn].max() < 1e-6
    assert np.quantile(moved[skin], 0.9) > 0.003
    camera = head.camera
    columns, rows, depth = project(to_camera(before, camera), camera).T
    cells = {(int(row), int(column)): z for row, column, z in zip(rows[skin], columns[skin], depth[skin])}
    front = [((int(row), int(column)), z) for row, column, z in zip(rows[worn], columns[worn], depth[worn])]
    ahead = [cells[cell] - z for cell, z in front if cell in cells]
    assert np.median(ahead) > 0.002


def test_the_photo_looks_as_before(head, portrait):
    """Seen from where the photo was taken, spectacles and face together are the photo."""
    none = np.zeros((1, 3), np.float32)
    rest = Motion(head.source_expression.numpy()[None], none, none, 25.0)
    rgb, _ = next(render_frames(head, rest, size=256))
    near = portrait.spectacles.alpha > 0.05
    error = (rgb / 255 - portrait.photographed)[near]
    assert -10 * np.log10((error**2).mean()) > 24


def test_brows_rise_behind_rims(head):
    """A rim stays where it is while the brow above it rises."""
    none = np.zeros((1, 3), np.float32)
    frames = []
    for amount in (0.0, 1.0):
        expression = head.source_expression.numpy().copy()
        for name in ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"):
            expression[ARKIT_INDEX[name]] = max(amount, expression[ARKIT_INDEX[name]])
        frames.append(next(render_frames(head, Motion(expression[None], none, none, 25.0), size=256))[0].mean(-1))
    worn = head.origin.numpy() == WORN
    solid = worn & (head.opacities.numpy() > 0.9) & (head.colors.numpy().mean(1) < 0.2)
    columns, rows = project(to_camera(head.positions.numpy()[solid], head.camera), head.camera)[:, :2].astype(int).T
    assert np.abs(frames[1] - frames[0])[rows, columns].mean() < 6
    assert frames[1][rows, columns].mean() < 70


def test_their_teacher_knows_where_they_are():
    sample = make_spectacles_sample(0, photos=(DEMO_PORTRAIT,))
    assert sample["pictures"].shape == (PAIRS, 128, 256, 3)
    changed = np.abs(sample["pictures"].astype(int) - sample["bare"]).max(-1)
    masks = sample["masks"].max(-1)
    assert (masks > 127).any((1, 2)).all()
    assert changed[masks > 200].mean() > 4 * changed[masks == 0].mean()


def test_a_photo_without_a_face_is_named(tmp_path):
    Image.new("RGB", (200, 200), "grey").save(tmp_path / "wall.jpg")
    with pytest.raises(InputError, match="wall.jpg.*without"):
        make_spectacles_sample(0, photos=(tmp_path / "wall.jpg",))


def test_a_few_steps_help(tmp_path):
    """The stage's loss leads towards the true masks; its report and its picture are those of held-out photos."""
    save_file(make_spectacles_sample(0, photos=(DEMO_PORTRAIT,)), tmp_path / "sample_000000.safetensors")
    files = [tmp_path / "sample_000000.safetensors"]
    torch.manual_seed(0)
    settings = Settings(stage="spectacles", batch=2, networks={"spectacles": {"width": 8}})
    stage = spectacles_stage(settings, files, files, torch.device("cpu"))
    batches = stage.batches(np.random.default_rng(0))
    optimizer = torch.optim.Adam(stage.networks["spectacles"].parameters(), 1e-2)
    same = [next(batches) for _ in range(8)]
    losses = []
    for _ in range(5):
        total = 0.0
        for batch in same:
            loss = stage.loss(stage.networks, batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / len(same))
    assert losses[-1] < 0.85 * losses[0]
    with torch.no_grad():
        report = stage.validate(stage.networks)
        assert stage.picture(stage.networks).shape == (128, 2 * 3 * 256, 3)
    assert set(report) == {"rims", "temples", "dark_lenses", "seen_where_none"}
    assert 0 <= report["seen_where_none"] < 0.5
