"""LPIPS and FID, the papers' perceptual measures, by torchmetrics, where their networks' weights are found.

The weights may not be shipped and nothing downloads: get the files yourself and put them where torch keeps downloads. A
file is opened only when its SHA-256 begins as its name says, and torch is held to reading nothing but tensors from it.
The packages belong to the extra `eval`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..media.provenance import hash_file


@dataclass(frozen=True)
class Network:
    """What a measure needs."""

    weights: str  # file in torch's download folder
    digest: str  # how the file's SHA-256 begins
    packages: tuple[str, ...]


NETWORKS = {
    "lpips": Network("alexnet-owt-7be5be79.pth", "7be5be79", ("torchmetrics", "torchvision")),
    "fid": Network("weights-inception-2015-12-05-6726825d.pth", "6726825d", ("torchmetrics", "torch_fidelity")),
}
"""LPIPS (Zhang et al. 2018) on torchvision's AlexNet; FID (Heusel et al. 2017) on the Inception of its authors."""


def weights_file(measure: str) -> Path:
    """Where the weights of "lpips" or "fid" belong: the folder of torch.hub's downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints" / NETWORKS[measure].weights


def why_missing(measure: str) -> str | None:
    """What "lpips" or "fid" lacks on this machine, None when it can be measured."""
    network, file = NETWORKS[measure], weights_file(measure)
    place = f"~/{file.relative_to(Path.home()).as_posix()}" if file.is_relative_to(Path.home()) else file
    absent = [name for name in network.packages if importlib.util.find_spec(name) is None]
    if absent:
        return f"{measure} needs {' and '.join(absent)} (pip install 'mggtalk[eval]') and the weights {place}"
    if not file.is_file():
        return f"{measure} needs the weights {place}"
    if not hash_file(file).startswith(network.digest):
        return f"{measure} does not trust {place}: its SHA-256 should begin with {network.digest}; get it again"
    return None


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Has torch refuse anything but tensors in the files that are read meanwhile, whatever the libraries ask for."""
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before


class PerceptualDistance:
    """LPIPS of two pictures; NaN where it can't be measured."""

    def __init__(self):
        self._measure = None
        if why_missing("lpips") is None:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            with _tensors_only():
                self._measure = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray, truth: np.ndarray) -> float:
        """Distance of pictures (H, W, 3) 0..1, 0 for equal ones."""
        if self._measure is None:
            return float("nan")
        distance = self._measure(_batch(picture), _batch(truth)).item()
        self._measure.reset()
        return distance


class FrechetDistance:
    """FID between the pictures of two sets, of which it keeps sums only; NaN where it can't be measured."""

    def __init__(self):
        self._measure = None
        if why_missing("fid") is None:
            from torchmetrics.image.fid import FrechetInceptionDistance

            with _tensors_only():
                self._measure = FrechetInceptionDistance(
                    feature=2048, normalize=True, feature_extractor_weights_path=str(weights_file("fid"))
                )

    @torch.inference_mode()
    def add(self, picture: np.ndarray, truth: np.ndarray) -> None:
        """One more picture of either set, (H, W, 3) 0..1."""
        if self._measure is not None:
            self._measure.update(_batch(picture), real=False)
            self._measure.update(_batch(truth), real=True)

    def value(self) -> float:
        """The distance; far too large, and not to be compared, for fewer than some thousand pictures."""
        return float("nan") if self._measure is None else self._measure.compute().item()


def _batch(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture, np.float32)).permute(2, 0, 1)[None]
