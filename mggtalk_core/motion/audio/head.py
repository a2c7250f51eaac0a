"""The mouth head: speech features at 50 Hz -> what the mouth does, in units of the face.

One linear map over five frames of context (+-120 ms), solved in closed form by `training/audio.py`: on 8 M frozen
parameters of speech encoder it needs little more, and it can be refitted to another encoder in a minute. Its outputs
are geometry (lip aperture and width in distances between the outer eye corners), lip detail in ARKit coefficients and
two logits; `mouth.MouthRig` turns them into the 52 coefficients of the baked head.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ...errors import InputError

DETAILS = (
    "mouthFunnel", "mouthPucker", "mouthLowerDown", "mouthUpperUp", "mouthStretch", "mouthSmile", "mouthRollLower",
    "mouthRollUpper", "mouthPress", "mouthShrugLower", "mouthShrugUpper", "tongueOut",
)  # fmt: skip
"""Lip detail the head predicts as ARKit coefficients; paired shapes are predicted once for both sides."""

OUTPUTS = ("aperture", "width", *DETAILS, "silence", "bilabial")
"""aperture: lip gap above the closed mouth; width: of the mouth against rest (both in eye-corner distances); details:
0..1; silence, bilabial: logits of nobody speaking and of lips that meet."""

HEAD_FILE = Path(__file__).parents[2] / "weights" / "audio_head.safetensors"
TAPS, STRIDE = 5, 3
"""Frames of context and the step between them, in 50 Hz frames."""


@dataclass(frozen=True)
class HeadConfig:
    """What a saved head was made for."""

    encoder: str  # name of the speech encoder, or the folder or hub id it was loaded from
    encoder_hash: str  # of its weights or configuration: a head only fits the encoder it was trained on
    features: int  # width of the encoder's features
    layer: int  # hidden state the features come from; -1 is the last
    training: str  # what it was trained on
    outputs: tuple[str, ...] = OUTPUTS


def context_of(features: np.ndarray) -> np.ndarray:
    """Features (T, D) with their neighbours in time, (T, TAPS * D); the ends are repeated."""
    reach = TAPS // 2 * STRIDE
    padded = np.pad(features, ((reach, reach), (0, 0)), mode="edge")
    return np.concatenate([padded[k * STRIDE : k * STRIDE + len(features)] for k in range(TAPS)], 1)


@dataclass(frozen=True)
class MouthHead:
    """Features (T, D) -> outputs (T, len(OUTPUTS))."""

    config: HeadConfig
    mean: np.ndarray  # (D,) float32 of the features
    std: np.ndarray  # (D,) float32
    weight: np.ndarray  # (TAPS * D, len(OUTPUTS)) float32
    bias: np.ndarray  # (len(OUTPUTS),) float32

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Outputs (T, len(OUTPUTS)) float32 of features (T, D)."""
        return context_of((features - self.mean) / self.std) @ self.weight + self.bias

    def save(self, path: str | Path) -> None:
        """Writes weights and configuration into one safetensors file, and the configuration beside it as JSON."""
        path = Path(path)
        config = asdict(self.config)
        arrays = {"mean": self.mean, "std": self.std, "weight": self.weight, "bias": self.bias}
        partial = path.with_name(path.name + ".partial")
        metadata = {"format": "mggtalk mouth head 1", "config": json.dumps(config)}
        save_file({name: np.ascontiguousarray(a, np.float32) for name, a in arrays.items()}, str(partial), metadata)
        partial.replace(path)
        partial.write_text(json.dumps(config, indent=1) + "\n", "utf-8")
        partial.replace(path.with_suffix(".json"))


@lru_cache(maxsize=4)
def load_mouth_head(path: Path = HEAD_FILE) -> MouthHead:
    """A saved head (shared, treat as read-only).

    Raises:
        InputError: not a mouth head, or one with other outputs than this version knows.
    """
    if not Path(path).is_file():
        raise InputError(f"no mouth head at {path}; leave it empty for the one that ships")
    try:
        with safe_open(str(path), "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file ({error}); give a head of `mggtalk train audio`") from error
    if not metadata.get("format", "").startswith("mggtalk mouth head"):
        raise InputError(f"{path} is not a mouth head; train one with `mggtalk train audio`")
    config = json.loads(metadata["config"])
    config["outputs"] = tuple(config["outputs"])
    if config["outputs"] != OUTPUTS:
        raise InputError(f"{path} predicts {', '.join(config['outputs'])}; train it again for this version")
    return MouthHead(HeadConfig(**config), **arrays)
