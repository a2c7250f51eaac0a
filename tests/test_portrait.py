"""Portrait analysis on the demo photo and on pictures made to be difficult."""

import threading

import numpy as np
import pytest
from conftest import shared_data

from mggtalk_core.errors import InputError
from mggtalk_core.headmodel.landmarks import INNER_FACE
from mggtalk_core.portrait import analysis, background
from mggtalk_core.portrait.analysis import analyze_portrait
from mggtalk_core.portrait.crop import crop_box_inside, cut_square
from mggtalk_core.portrait.inpainting import complete
from mggtalk_core.portrait.parsing import face_share


def test_the_demo_portrait_is_understood(demo_portrait):
    portrait = demo_portrait
    assert portrait.image.shape == (256, 256, 3)
    assert portrait.fit.error[INNER_FACE].mean() < 0.02
    rows, columns = portrait.landmarks[INNER_FACE].astype(int).T[::-1]
    assert (portrait.alpha[rows, columns] > 0.9).mean() > 0.98  # the face is person
    assert portrait.alpha[:10, :10].max() < 0.1  # the corner of the sky is not
    assert 0.3 < (portrait.alpha > 0.5).mean() < 0.8


def test_the_crop_knows_its_way_back_to_the_photo(demo_portrait):
    portrait = demo_portrait
    point = np.array([128.0, 100.0])
    column, row = portrait.crop_to_photo @ [*point, 1]
    window = portrait.photo[int(row) - 2 : int(row) + 3, int(column) - 2 : int(column) + 3].mean((0, 1))
    inside = portrait.image[95:106, 123:134].mean((0, 1))
    assert np.abs(window - inside).max() < 0.05


def test_the_background_lost_the_person_and_kept_the_rest(demo_portrait):
    portrait = demo_portrait
    outside = portrait.alpha < 0.02
    outside[:, -40:] = False
    assert np.abs(portrait.background - portrait.image)[outside].mean() < 0.01
    face = portrait.image[120:170, 110:150].mean((0, 1))
    behind = portrait.background[120:170, 110:150].mean((0, 1))
    assert np.linalg.norm(face - behind) > 0.1  # skin is gone


def test_the_background_is_filled_while_geometry_goes_on(demo_portrait, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def fill(image, alpha):
        begun.set()
        go_on.wait(60)
        return image

    monkeypatch.setattr(background, "remove_person", fill)
    portrait = analyze_portrait(demo_portrait.photo, size=128)
    assert begun.wait(60) and not portrait.filling.done()
    go_on.set()
    np.testing.assert_array_equal(portrait.background, portrait.image)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_photo_is_set_upright(demo_portrait, turns):
    turned = analyze_portrait(np.ascontiguousarray(np.rot90(demo_portrait.photo, turns)), size=128)
    assert any("turned" in warning for warning in turned.warnings)
    eyes = turned.landmarks[473] - turned.landmarks[468]
    assert abs(np.degrees(np.arctan2(eyes[1], eyes[0]))) < 20


def test_a_face_that_is_no_person_to_the_segmenter_is_cut_out_by_its_oval(demo_portrait, monkeypatch):
    """Robots and masks: without this their heads had no pixel of the photo."""
    monkeypatch.setattr(analysis, "coarse_person_mask", lambda image: np.zeros(image.shape[:2], np.float32))
    portrait = analyze_portrait(demo_portrait.photo, size=128)
    assert any("0 % of the face was recognised" in warning for warning in portrait.warnings)
    assert face_share(portrait.alpha, portrait.landmarks) > 0.95 and portrait.alpha.mean() < 0.3
    assert not any("recognised" in warning for warning in demo_portrait.warnings)


def test_no_face_is_refused():
    noise = np.random.default_rng(0).random((300, 400, 3), np.float32)
    with pytest.raises(InputError, match="no face found"):
        analyze_portrait(noise)


def test_the_crop_stays_inside_the_photo_when_it_can():
    landmarks = np.zeros((478, 2))
    landmarks[:468] = np.random.default_rng(0).uniform([420, 20], [520, 160], (468, 2))  # a face at the top
    centre, side = crop_box_inside(landmarks, 640, 480)
    assert centre[1] - side / 2 >= -1e-6 and centre[0] + side / 2 <= 640 + 1e-6


def test_cutting_is_antialiased_and_repeats_the_border():
    photo = np.zeros((64, 64, 3), np.float32)
    photo[:, ::2] = 1  # the finest stripes there are
    small, to_photo = cut_square(photo, np.array([32.0, 32.0]), 64, 16)
    assert np.abs(small[2:-2, 2:-2] - 0.5).max() < 0.05
    assert to_photo[0, 0] == 4
    beyond, _ = cut_square(np.full((20, 20, 3), 0.25, np.float32), np.array([0.0, 0.0]), 30, 30)
    np.testing.assert_allclose(beyond, 0.25, atol=1e-5)


def test_completion_continues_structure_into_the_hole():
    stripes = np.zeros((128, 128, 3), np.float32)
    stripes[(np.arange(128) // 8) % 2 == 0] = [0.9, 0.4, 0.2]
    hole = np.zeros((128, 128), bool)
    hole[40:90, 50:90] = True
    damaged = np.where(hole[..., None], 0, stripes)
    filled = complete(damaged, hole)
    assert np.array_equal(filled[~hole], stripes[~hole])
    assert np.abs(filled - stripes)[hole].mean() < 0.1  # a smooth fill errs by 0.25
    assert np.array_equal(filled, complete(damaged, hole))


@pytest.mark.parametrize(
    "name", ["p02_man_beard_glasses.jpg", "p07_woman_headscarf.jpg", "p13_painting_mona_lisa.jpg", "p22_rotated90.jpg"]
)
def test_people_of_all_kinds_are_fitted(name):
    from mggtalk_core.media.image import read_photo

    portrait = analyze_portrait(read_photo(shared_data(f"dev/portraits/{name}")), size=256)
    assert portrait.fit.error[INNER_FACE].mean() < 0.02


def test_a_hand_before_the_face_is_refused():
    from mggtalk_core.media.image import read_photo

    with pytest.raises(InputError, match="covered"):
        analyze_portrait(read_photo(shared_data("dev/portraits/p09_camera_hides_face.jpg")))
