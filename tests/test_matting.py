"""The person's edge: untrained the network changes nothing, trained only what is near the segmenter's edge."""

import numpy as np
import pytest
import torch
from conftest import shared_data
from safetensors.numpy import save_file
from scipy.ndimage import binary_dilation

from mggtalk_core.assets import DEMO_PORTRAIT
from mggtalk_core.media.image import read_photo
from mggtalk_core.portrait.analysis import analyze_portrait
from mggtalk_core.portrait.matting import CELL, MATTE_SIZE, REACH, MattingUNet, matte
from mggtalk_core.portrait.parsing import coarse_person_mask, refine_edges, without_veils
from mggtalk_core.training.makehuman import load_wardrobe
from mggtalk_core.training.matting import BACKGROUNDS, make_matting_sample, matting_stage
from mggtalk_core.training.trainer import Settings


@pytest.fixture(scope="module")
def sample():
    return make_matting_sample(7, load_wardrobe(shared_data("train/makehuman")))


@pytest.mark.parametrize("size", [128, 576])
def test_untrained_matting_keeps_the_mask(size):
    photo = read_photo(DEMO_PORTRAIT)
    plain, matted = (analyze_portrait(photo, size=size, matting=network) for network in (None, MattingUNet()))
    np.testing.assert_array_equal(matted.alpha, plain.alpha)


def test_only_what_is_near_the_edge_changes():
    """Whatever the weights: the middle of the person and the wall far from it stay as the segmenter saw them."""
    image = analyze_portrait(read_photo(DEMO_PORTRAIT), size=256).image
    coarse = coarse_person_mask(image)
    refined = refine_edges(image, coarse)
    torch.manual_seed(0)
    network = MattingUNet(8)
    torch.nn.init.normal_(network.head.weight, 0, 0.1)
    changed = np.abs(matte(network, image, coarse, refined) - refined) > 0.01
    edge = np.abs(coarse - 0.5) < 0.497
    reach = 2 * REACH * CELL * len(image) / MATTE_SIZE
    assert changed.mean() > 0.01
    assert not (changed & ~binary_dilation(edge, iterations=round(1.5 * reach) + 2)).any()


def test_samples_know_loose_hair(sample):
    """Pictures of one person differ by background alone; the true matte has hairs that the guided filter misses."""
    assert sample["image"].shape == (BACKGROUNDS, MATTE_SIZE, MATTE_SIZE, 3)
    solid = sample["alpha"] == 255
    shown = sample["image"].astype(float).mean(-1)
    corner = np.s_[:, :40, :40]
    assert np.ptp(shown[corner].mean((1, 2))) > 5 > np.abs(shown - shown.mean(0))[:, solid].mean()
    missed = (sample["refined"][0] < 30) & (sample["alpha"] > 120)
    assert 20 < missed.sum() < 0.02 * missed.size


def test_a_few_steps_help(sample, tmp_path):
    """The stage's loss leads towards the true matte; its report and its picture are those of whole pictures."""
    save_file(sample, tmp_path / "sample_000003.safetensors")
    files = list(tmp_path.glob("*.safetensors"))
    settings = Settings(stage="matting", batch=2, networks={"matting": {"width": 8}})
    torch.manual_seed(0)
    stage = matting_stage(settings, files, files, torch.device("cpu"))
    batch = next(stage.batches(np.random.default_rng(0)))
    optimizer = torch.optim.Adam(stage.networks["matting"].parameters(), 5e-3)
    losses = []
    for _ in range(40):
        losses.append(stage.loss(stage.networks, batch)["loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.85 * losses[0]
    with torch.no_grad():
        report = stage.validate(stage.networks)
        assert 0 < report["error_matte"] < 2 * report["error_guided"] < 0.2
        assert stage.picture(stage.networks).shape == (4 * MATTE_SIZE // 2, MATTE_SIZE // 2, 3)


def test_no_veil_inside_a_person():
    """A grey patch in the middle becomes solid; the soft edge, a real gap and whatever is solid stay."""
    rows, columns = np.mgrid[:256, :256]
    mask = (np.clip(100 - np.hypot(rows - 128, columns - 128), 0, 4) / 4).astype(np.float32)
    veiled = mask.copy()
    veiled[100:130, 100:130] = 0.4
    veiled[150:170, 150:170] = 0.0
    solid = without_veils(veiled)
    assert solid[100:130, 100:130].min() > 0.99
    assert solid[150:170, 150:170].max() == 0
    edge = (mask > 0) & (mask < 1)
    np.testing.assert_array_equal(solid[edge], mask[edge])
    assert np.all(solid >= veiled)
