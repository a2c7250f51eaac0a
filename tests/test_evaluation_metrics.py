"""Metrics against published implementations on the same pixels, and against cases worked out by hand."""

import numpy as np
import pytest
import torch
from conftest import shared_data
from scipy.spatial.transform import Rotation
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mggtalk_core.assets import DEMO_PORTRAIT
from mggtalk_core.evaluation import masks, motion_metrics, statistics
from mggtalk_core.evaluation.image_metrics import psnr, ssim, ssim_map
from mggtalk_core.media.image import read_photo


def distorted(photo: np.ndarray, kind: str) -> np.ndarray:
    """The photo with noise, blur, a colour cast or a shift."""
    rng = np.random.default_rng(1)
    blurred = (photo + np.roll(photo, 2, 0) + np.roll(photo, 2, 1) + np.roll(photo, -2, 1)) / 4
    return {
        "noise": np.clip(photo + rng.normal(0, 0.05, photo.shape), 0, 1),
        "blur": blurred,
        "cast": np.clip(photo * [1.1, 1, 0.9] + 0.02, 0, 1),
        "shift": np.roll(photo, 3, 1),
    }[kind].astype(np.float32)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return read_photo(DEMO_PORTRAIT)[40:301:1, 90:330]  # 261 x 240: neither square nor a multiple of the window


@pytest.mark.parametrize("kind", ["noise", "blur", "cast", "shift"])
def test_psnr_and_ssim_agree_with_scikit_image_and_torchmetrics(photo, kind):
    torchmetrics = pytest.importorskip("torchmetrics.functional.image")
    photo = photo.astype(np.float64)  # scikit-image computes in the precision of its input
    other = distorted(photo, kind).astype(np.float64)
    assert psnr(other, photo) == pytest.approx(peak_signal_noise_ratio(photo, other, data_range=1), abs=1e-4)
    reference = structural_similarity(
        photo, other, channel_axis=2, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(other, photo) == pytest.approx(reference, abs=2e-6)
    tensors = [torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None] for image in (other, photo)]
    assert psnr(other, photo) == pytest.approx(
        float(torchmetrics.peak_signal_noise_ratio(*tensors, data_range=1.0)), abs=1e-4
    )
    # torchmetrics' mean includes windows that reach over the border; the full ones are compared
    _, full = torchmetrics.structural_similarity_index_measure(*tensors, data_range=1.0, return_full_image=True)
    assert np.abs(ssim_map(other, photo)[5:-5, 5:-5] - full[0].mean(0).numpy()[5:-5, 5:-5]).max() < 1e-6


def test_masked_metrics_see_only_the_mask(photo):
    other = photo.copy()
    mask = np.zeros(photo.shape[:2], bool)
    mask[50:120, 60:150] = True
    other[mask] = np.clip(other[mask] + 0.1, 0, 1)
    inside = ((other - photo)[mask].astype(np.float64) ** 2).mean()
    assert psnr(other, photo, mask) == pytest.approx(-10 * np.log10(inside))
    assert psnr(other, photo, ~mask) == np.inf
    assert ssim(other, photo, mask) == pytest.approx(ssim_map(other, photo)[mask].mean())
    assert np.isnan(psnr(other, photo, np.zeros_like(mask))) and np.isnan(ssim(other, photo, np.zeros_like(mask)))
    assert psnr(photo, photo) == np.inf and ssim(photo, photo) == pytest.approx(1)


def test_hull_mask_fills_a_convex_polygon():
    square = np.array([(10, 20), (50, 20), (50, 60), (10, 60), (30, 40)], float)
    mask = masks.hull_mask(square, 80, 100)
    assert mask.shape == (80, 100) and mask[40, 30] and not mask[10, 30] and not mask[40, 70]
    assert abs(mask.sum() - 40 * 40) < 4 * 41


def face(openness: float = 0.0, seed: int = 0) -> np.ndarray:
    """A point cloud (478, 2) px with the landmarks the metrics read at known places."""
    points = np.random.default_rng(seed).uniform(100, 200, (478, 2))
    points[468], points[473] = (100, 100), (160, 100)  # irises 60 px apart
    points[13], points[14] = (130, 160), (130, 160 + 60 * openness)
    points[159], points[145], points[386], points[374] = (100, 95), (100, 107), (160, 95), (160, 107)
    return points


def test_openings_are_in_inter_ocular_distances():
    assert motion_metrics.lip_opening(face(0.25)) == pytest.approx(0.25)
    assert motion_metrics.eye_opening(face()) == pytest.approx(12 / 60)
    assert motion_metrics.lip_opening(face(0.25) * 3 + 50) == pytest.approx(0.25)


def test_distances_of_a_shifted_face():
    shifted = face() + (6, 0)
    assert motion_metrics.average_keypoint_distance(shifted, face()) == pytest.approx(6)
    assert motion_metrics.landmark_distance(shifted, face()) == pytest.approx(0.1)
    assert motion_metrics.lip_landmark_distance(shifted, face()) == pytest.approx(0, abs=1e-12)  # centred first


def test_pose_distance_ignores_scale_and_is_in_degrees():
    turned = np.eye(4)
    turned[:3, :3] = 2.5 * Rotation.from_euler("y", 17, degrees=True).as_matrix()
    assert motion_metrics.average_pose_distance(turned, np.eye(4)) == pytest.approx(17, abs=1e-6)
    assert motion_metrics.average_expression_distance(np.full(52, 0.3), np.full(52, 0.1)) == pytest.approx(0.2)


def test_correlation_skips_lost_frames_and_refuses_constants():
    t = np.linspace(0, 6, 50)
    series, lost = np.sin(t), np.sin(t) * 2 + 3
    lost[10] = np.nan
    assert motion_metrics.correlation(lost, series) == pytest.approx(1)
    assert np.isnan(motion_metrics.correlation(np.ones(50), series))


@pytest.mark.parametrize("frames", [-4, 0, 1, 6])
def test_sync_offset_finds_a_known_delay(frames):
    curve = np.convolve(np.random.default_rng(0).normal(size=300), np.ones(5) / 5, "same")
    late = np.roll(curve, frames)
    assert motion_metrics.sync_offset(late, curve, 25) == pytest.approx(frames * 40, abs=4)


def test_sync_offset_is_finer_than_a_frame():
    t = np.arange(200) / 25

    def curve(t):
        return np.sin(2 * np.pi * 1.3 * t) + 0.7 * np.sin(2 * np.pi * 2.1 * t + 1)

    assert motion_metrics.sync_offset(curve(t - 0.017), curve(t), 25) == pytest.approx(17, abs=4)


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        low, high = statistics.bootstrap_interval(rng.normal(5, 2, 30), resamples=1000, seed=trial)
        hits += low <= 5 <= high
    assert 180 <= hits <= 199  # 95 % stated; percentile intervals of 30 values cover about 93 %
    assert np.isnan(statistics.bootstrap_interval(np.array([3.0]))).all()


def test_masks_on_a_real_face():
    from mggtalk_core.portrait.tracking import FaceTracker

    picture = (read_photo(shared_data("dev/portraits/p04_man_dark_skin_smile.jpg")) * 255).astype(np.uint8)
    with FaceTracker() as tracker:
        landmarks = tracker.detect(picture)[0].landmarks
    inside, mouth = masks.face_mask(landmarks, 1000, 1000), masks.mouth_mask(landmarks, 1000, 1000)
    assert 0.05 < inside.mean() < 0.35 and 0.05 < (mouth & inside).sum() / inside.sum() < 0.25
    assert mouth[int(landmarks[13, 1]), int(landmarks[13, 0])] and not mouth[int(landmarks[1, 1]) - 40, 500]


def test_similarity_transform_is_exact_on_a_similar_shape():
    from mggtalk_core.evaluation.identity import similarity_transform

    points = np.random.default_rng(0).uniform(size=(5, 2))
    angle, scale, shift = 0.4, 3.0, np.array([5.0, -2.0])
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    transform = similarity_transform(points, points @ rotation.T + shift)
    assert np.allclose(transform, np.column_stack([rotation, shift]))


def test_csim_tells_people_apart_and_agrees_with_dlibs_own_alignment():
    from mggtalk_core.evaluation import identity
    from mggtalk_core.model_files import packaged_file
    from mggtalk_core.portrait.tracking import FaceTracker

    dlib = pytest.importorskip("dlib", reason="the extra `eval` is not installed")
    if not identity.identity_available():
        pytest.skip("the extra `eval` is not installed")
    encoder, descriptors = identity.IdentityEncoder(), {}
    pictures = {
        "astronaut": DEMO_PORTRAIT, "beard": shared_data("dev/portraits/p02_man_beard_glasses.jpg"),
        "woman": shared_data("dev/portraits/p01_woman_dark_skin_frontal.jpg"),
    }  # fmt: skip
    with FaceTracker() as tracker:
        for name, path in pictures.items():
            picture = (read_photo(path) * 255).astype(np.uint8)
            descriptors[name] = encoder(picture, tracker.detect(picture)[0].landmarks)
            darker = (picture * 0.8).astype(np.uint8)
            again = encoder(darker, tracker.detect(darker)[0].landmarks)
            assert identity.cosine_similarity(again, descriptors[name]) > 0.97, name
    same = identity.cosine_similarity(descriptors["astronaut"], descriptors["astronaut"])
    other = identity.cosine_similarity(descriptors["astronaut"], descriptors["beard"])
    assert same == pytest.approx(1) and other < 0.9
    # dlib's own landmarks and chip of the same face give nearly the same descriptor
    models = packaged_file(identity.MODEL_FILES["face-identity"]).parent
    predictor = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
    picture = (read_photo(DEMO_PORTRAIT) * 255).astype(np.uint8)
    box = dlib.get_frontal_face_detector()(picture, 1)[0]
    chip = dlib.get_face_chip(picture, predictor(picture, box), size=150, padding=0.25)
    reference = np.array(dlib.face_recognition_model_v1(
        str(models / "dlib_face_recognition_resnet_model_v1.dat")).compute_face_descriptor(chip))  # fmt: skip
    assert identity.cosine_similarity(descriptors["astronaut"], reference) > 0.95
