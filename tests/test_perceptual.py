"""LPIPS and FID: what they need is named, files that are not theirs stay closed, and with networks they measure."""

import os

import numpy as np
import pytest
import torch

from mggtalk_core.evaluation import perceptual


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """torch's download folder, empty."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def trust(monkeypatch, measure, digest):
    network = perceptual.NETWORKS[measure]
    monkeypatch.setitem(
        perceptual.NETWORKS, measure, perceptual.Network(network.weights, digest, network.packages)
    )  # fmt: skip


@pytest.mark.parametrize("measure", ["lpips", "fid"])
def test_what_is_missing_is_named_with_its_place(downloads, monkeypatch, measure):
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'mggtalk[eval]'" in perceptual.why_missing(measure)
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda name: True)
    file = perceptual.weights_file(measure)
    assert file.parent == downloads and str(file) in perceptual.why_missing(measure)
    file.write_bytes(b"not the weights")
    assert "does not trust" in perceptual.why_missing(measure)


def test_without_weights_nothing_is_measured(downloads):
    picture = np.zeros((32, 32, 3))
    assert np.isnan(perceptual.PerceptualDistance()(picture, picture))
    pictures = perceptual.FrechetDistance()
    pictures.add(picture, picture)
    assert np.isnan(pictures.value())


def test_lpips_of_a_network(downloads, monkeypatch):
    """Random weights do: features differ where pictures do, and more blur is farther away."""
    torchvision = pytest.importorskip("torchvision")
    from scipy.ndimage import gaussian_filter

    torch.manual_seed(0)
    torch.save(torchvision.models.alexnet().state_dict(), perceptual.weights_file("lpips"))
    trust(monkeypatch, "lpips", "")
    distance = perceptual.PerceptualDistance()
    picture = np.random.default_rng(0).random((64, 64, 3))
    blurred = [gaussian_filter(picture, (sigma, sigma, 0)) for sigma in (0.5, 2)]
    assert distance(picture, picture) == 0
    assert 0 < distance(blurred[0], picture) < distance(blurred[1], picture)


def test_fid_of_a_network(downloads, monkeypatch):
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

    def random_weights(self, state):
        for weight in self.parameters():
            if weight.ndim > 1:
                torch.nn.init.kaiming_normal_(weight)

    torch.manual_seed(0)
    torch.save({}, perceptual.weights_file("fid"))
    monkeypatch.setattr(inception.FeatureExtractorInceptionV3, "load_state_dict", random_weights)
    trust(monkeypatch, "fid", "")
    same, other = perceptual.FrechetDistance(), perceptual.FrechetDistance()
    rng = np.random.default_rng(0)
    for _ in range(6):
        picture = rng.random((32, 32, 3))
        same.add(picture, picture)
        other.add(picture * 0.3, picture)
    assert abs(same.value()) < 1e-3 < other.value()


def test_weights_that_are_programs_do_not_run(downloads, monkeypatch, tmp_path):
    """Even where the SHA-256 fits: torchvision by itself would unpickle anything."""
    pytest.importorskip("torchvision")

    class Program:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"weight": Program()}, perceptual.weights_file("lpips"))
    trust(monkeypatch, "lpips", "")
    with pytest.raises(Exception, match="[Ww]eights"):
        perceptual.PerceptualDistance()
    assert not (tmp_path / "ran").exists() and "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
