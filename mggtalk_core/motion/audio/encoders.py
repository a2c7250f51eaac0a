"""Speech encoders: Whisper-tiny by default, or one of the user's through transformers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from ...errors import InputError
from ...model_files import find_model_file
from .head import HEAD_FILE, MouthHead, load_mouth_head
from .whisper_tiny import WhisperTinyEncoder


class SpeechEncoder(Protocol):
    """Mono 16 kHz samples (n,) -> features (n // 320, width) float32 at 50 Hz."""

    name: str
    hash: str  # of weights or configuration
    width: int
    layer: int  # hidden state the features are; -1 is the last

    def __call__(self, samples: np.ndarray) -> np.ndarray: ...


@lru_cache(maxsize=1)
def whisper_tiny(path: Path | None = None) -> SpeechEncoder:
    """The default encoder (shared); `path` names its model.bin, otherwise it is looked up."""
    return WhisperTinyEncoder(find_model_file("whisper-tiny", path))


def check_match(head: MouthHead, encoder: SpeechEncoder) -> None:
    """Refuses features of another encoder than the head was trained on.

    Raises:
        InputError: names both encoders and how to get a fitting head.
    """
    wanted = head.config
    if (encoder.width, encoder.hash) != (wanted.features, wanted.encoder_hash):
        raise InputError(
            f"this mouth head was trained on {wanted.encoder} "
            f"({wanted.features} features, {wanted.encoder_hash[:12]}), "
            f"got {encoder.name} ({encoder.width} features, {encoder.hash[:12]}); "
            f"train a head for it with `mggtalk train audio --encoder`"
        )


def load_encoder(head_file: str | Path | None = None) -> tuple[SpeechEncoder, MouthHead]:
    """The encoder and the mouth head trained on it; None for the ones that ship."""
    head = load_mouth_head(HEAD_FILE if head_file is None else Path(head_file))
    encoder = whisper_tiny()
    check_match(head, encoder)
    return encoder, head
