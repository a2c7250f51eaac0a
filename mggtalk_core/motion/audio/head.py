"""The mouth head: speech features at 50 Hz -> what the mouth does, in units of the face.

A linear map over five frames of context plus a small residual network of dilated convolutions. Its outputs are
geometry (lip aperture and width in inter-ocular distances) and lip detail in ARKit coefficients; `mouth.MouthRig`
turns them into the 52 coefficients of the baked head.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ...errors import InputError

DETAILS = (
    "jawOpen", "mouthFunnel", "mouthPucker", "mouthLowerDown", "mouthUpperUp", "mouthStretch", "mouthSmile",
    "mouthRollLower", "mouthRollUpper", "mouthPress", "mouthShrugLower", "mouthShrugUpper", "tongueOut",
)  # fmt: skip
"""Lip detail the head predicts as ARKit coefficients; paired shapes are predicted once for both sides."""

OUTPUTS = ("aperture", "width", *DETAILS, "silence", "bilabial")
"""aperture: lip gap above the closed mouth, inter-ocular distances; width: mouth width against rest, inter-ocular
distances; details: 0..1; silence, bilabial: logits."""

HEAD_FILE = Path(__file__).parents[2] / "weights" / "audio_head.safetensors"


@dataclass(frozen=True)
class HeadConfig:
    """What a saved head was made for."""

    encoder: str  # name of the speech encoder
    encoder_hash: str  # of its weights or configuration: a head only fits the encoder it was trained on
    features: int  # width of the encoder's features
    hidden: int  # width of the residual network, 0 for the linear map alone
    source: str  # what it was trained on
    outputs: tuple[str, ...] = OUTPUTS


class MouthHead(nn.Module):
    """Features (B, T, D) -> outputs (B, T, len(OUTPUTS))."""

    def __init__(self, config: HeadConfig):
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.features))
        self.register_buffer("std", torch.ones(config.features))
        outputs = len(config.outputs)
        self.linear = nn.Conv1d(config.features, outputs, 5, dilation=3)
        if config.hidden:
            self.squeeze = nn.Conv1d(config.features, config.hidden, 1)
            self.blocks = nn.ModuleList(nn.Conv1d(config.hidden, config.hidden, 3, dilation=d) for d in (1, 2, 4))
            self.correction = nn.Conv1d(config.hidden, outputs, 1)
            nn.init.zeros_(self.correction.weight)
            nn.init.zeros_(self.correction.bias)
            self.dropout = nn.Dropout(0.15)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = ((features - self.mean) / self.std).transpose(1, 2)
        y = self.linear(F.pad(x, (6, 6), mode="replicate"))
        if self.config.hidden:
            z = F.gelu(self.squeeze(x))
            for block in self.blocks:
                reach = block.dilation[0]
                z = z + F.gelu(block(F.pad(self.dropout(z), (reach, reach), mode="replicate")))
            y = y + self.correction(z)
        return y.transpose(1, 2)

    @torch.inference_mode()
    def predict(self, features: np.ndarray) -> np.ndarray:
        """Outputs (T, len(OUTPUTS)) float32 of features (T, D)."""
        return self(torch.from_numpy(features)[None])[0].numpy()

    def save(self, path: str | Path) -> None:
        """Writes weights and config into one safetensors file."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        config = {key: json.dumps(value) for key, value in asdict(self.config).items()}
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, str(partial), config)
        partial.replace(path)


@lru_cache(maxsize=4)
def load_mouth_head(path: Path = HEAD_FILE) -> MouthHead:
    """A saved head (shared, treat as read-only).

    Raises:
        InputError: not a mouth head, or one with other outputs than this version knows.
    """
    if not Path(path).is_file():
        raise InputError(f"no mouth head at {path}; leave it empty for the one that ships")
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata() or {}
        if "encoder_hash" not in metadata:
            raise InputError(f"{path} is not a mouth head; train one with `mggtalk train audio`")
        config = {key: json.loads(metadata[key]) for key in HeadConfig.__annotations__}
        config["outputs"] = tuple(config["outputs"])
        weights = {name: file.get_tensor(name) for name in file.keys()}
    if config["outputs"] != OUTPUTS:
        raise InputError(f"{path} predicts {config['outputs']}, this version needs {OUTPUTS}; train it again")
    head = MouthHead(HeadConfig(**config))
    head.load_state_dict(weights)
    return head.eval()
