"""Whisper-tiny's encoder in plain torch (Radford et al. 2022), weights read from a CTranslate2 `model.bin`.

Only the encoder is read: 8.2 M parameters, 4 pre-norm transformer blocks of width 384. Outputs match CTranslate2's
to 3e-5. The convolution halves the 100 Hz mel frames, so features come at 50 Hz.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import InputError
from ...model_files import sha256_of
from .mel import log_mel

_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_HEADS = 6


def read_ctranslate2(path: str | Path, prefix: str = "encoder") -> dict[str, np.ndarray]:
    """The variables of a CTranslate2 model file whose names begin with `prefix`.

    Layout (ctranslate2/specs/model_spec.py): version, specification name, revision, count, then per variable its
    name, rank, shape, type id, byte count and data, all little endian.

    Raises:
        InputError: the file is not a CTranslate2 model.
    """
    with open(path, "rb") as file:

        def number(code: str) -> int:
            return struct.unpack("<" + code, file.read(struct.calcsize(code)))[0]

        def text() -> str:
            return file.read(number("H"))[:-1].decode()

        try:
            number("I"), text(), number("I")
            variables = {}
            for _ in range(number("I")):
                name = text()
                shape = [number("I") for _ in range(number("B"))]
                dtype = _DTYPES[number("B")]
                data = file.read(number("I"))
                if name.startswith(prefix):
                    variables[name] = np.frombuffer(data, dtype).reshape(shape)
        except (struct.error, KeyError, UnicodeDecodeError, ValueError) as error:
            raise InputError(f"{path} is not a CTranslate2 Whisper model; use whisper-tiny's model.bin") from error
    if f"{prefix}/conv1/weight" not in variables:
        raise InputError(f"{path} has no Whisper encoder; use whisper-tiny's model.bin")
    return variables


class WhisperTinyEncoder:
    """Mono 16 kHz samples -> (n // 320, 384) features at 50 Hz."""

    name = "whisper-tiny"
    width = 384
    layer = -1

    def __init__(self, path: str | Path):
        self.hash = sha256_of(path)
        self.weights = {
            name.removeprefix("encoder/"): torch.from_numpy(value.astype(np.float32))
            for name, value in read_ctranslate2(path).items()
            if value.ndim > 0
        }
        self.layers = sum(name.endswith("self_attention/linear_0/weight") for name in self.weights)

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.weights[f"{name}/weight"], self.weights[f"{name}/bias"])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}/gamma"], self.weights[f"{name}/beta"])

    def _conv(self, x: torch.Tensor, name: str, stride: int) -> torch.Tensor:
        weight, bias = self.weights[f"{name}/weight"], self.weights[f"{name}/bias"]
        return F.gelu(F.conv1d(x, weight, bias, stride=stride, padding=1))

    @torch.inference_mode()
    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Features (n // 320, 384) float32 of samples (n,) float32, 400 <= n <= 30 s, where the position table ends."""
        frames = len(samples) // 320
        mel = torch.from_numpy(log_mel(samples)[:, : 2 * frames])[None]
        x = self._conv(self._conv(mel, "conv1", 1), "conv2", 2).transpose(1, 2)
        x = x + self.weights["position_encodings/encodings"][:frames]
        for index in range(self.layers):
            x = self._block(x, f"layer_{index}")
        return self._norm(x, "layer_norm")[0].numpy()

    def _block(self, x: torch.Tensor, name: str) -> torch.Tensor:
        attention, ffn = f"{name}/self_attention", f"{name}/ffn"
        batch, frames, width = x.shape
        joint = self._linear(self._norm(x, f"{attention}/layer_norm"), f"{attention}/linear_0")
        query, key, value = (
            part.view(batch, frames, _HEADS, -1).transpose(1, 2) for part in joint.chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, frames, width)
        x = x + self._linear(mixed, f"{attention}/linear_1")
        hidden = F.gelu(self._linear(self._norm(x, f"{ffn}/layer_norm"), f"{ffn}/linear_0"))
        return x + self._linear(hidden, f"{ffn}/linear_1")
