"""Speech encoders: Whisper-tiny by default, or the user's own through transformers or ComfyUI."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ...errors import InputError
from ...model_files import find_model_file
from .head import HEAD_FILE, MouthHead, load_mouth_head
from .mel import SAMPLE_RATE
from .whisper_tiny import WhisperTinyEncoder
from .windows import FEATURE_HOP


class SpeechEncoder(Protocol):
    """Mono 16 kHz samples (n,) -> features (n // 320, width) float32 at 50 Hz."""

    name: str
    hash: str  # of weights and configuration
    width: int
    layer: int  # hidden state the features are; -1 is the last

    def __call__(self, samples: np.ndarray) -> np.ndarray: ...


@lru_cache(maxsize=1)
def whisper_tiny(path: Path | None = None) -> SpeechEncoder:
    """The default encoder (shared); `path` names its model.bin, otherwise it is looked up."""
    return WhisperTinyEncoder(find_model_file("whisper-tiny", path))


class TransformersEncoder:
    """A Wav2Vec2, HuBERT, WavLM or Whisper encoder from a local folder or hub id."""

    def __init__(self, source: str | Path, layer: int | None = None):
        """Loads the encoder; `layer` is the hidden state to use, two thirds of the way up when None.

        Raises:
            InputError: nothing there that transformers can load as a speech encoder.
        """
        from transformers import AutoConfig, AutoModel

        try:
            config = AutoConfig.from_pretrained(str(source))
            model = AutoModel.from_pretrained(str(source), use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"speech encoder {str(source)!r} can't be loaded ({reason}); give a folder with config.json and "
                "model.safetensors of a Wav2Vec2, HuBERT, WavLM or Whisper model"
            ) from None
        self._whisper = config.model_type == "whisper"
        if not self._whisper and not hasattr(config, "conv_stride"):
            raise InputError(f"{source} is a {config.model_type} model; give Wav2Vec2, HuBERT, WavLM or Whisper")
        self._model = (model.encoder if self._whisper else model).eval()
        layers = config.encoder_layers if self._whisper else config.num_hidden_layers
        self.name = str(source)
        self.layer = round(2 / 3 * layers) if layer is None else layer
        if not -layers - 1 <= self.layer <= layers:
            raise InputError(f"layer {self.layer} does not exist in {source}; it has hidden states 0..{layers}")
        self.width = config.d_model if self._whisper else config.hidden_size
        self.hash = _digest(config, self._model)
        self._config = config
        self._extractor = self._feature_extractor(source)

    def _feature_extractor(self, source):
        """How samples are prepared: Whisper's spectrogram, or the normalisation the model was trained with."""
        from transformers import AutoFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

        if self._whisper:
            return WhisperFeatureExtractor(feature_size=self._config.num_mel_bins)
        try:
            return AutoFeatureExtractor.from_pretrained(str(source))
        except (OSError, ValueError):  # a folder with nothing but the model: models with layer norm want it
            return Wav2Vec2FeatureExtractor(do_normalize=self._config.feat_extract_norm == "layer")

    @torch.inference_mode()
    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Features (n // 320, width) float32 of samples (n,) float32, up to 30 s."""
        frames = len(samples) // FEATURE_HOP
        prepared = self._extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        if self._whisper:
            mel = prepared.input_features[..., : 2 * self._config.max_source_positions]
            states = self._model(mel, output_hidden_states=True).hidden_states
            return states[self.layer][0, :frames].float().numpy()
        states = self._model(prepared.input_values, output_hidden_states=True).hidden_states
        return on_clock(states[self.layer][0].float().numpy(), frames, *_receptive_field(self._config))


def _digest(config, model: torch.nn.Module) -> str:
    """SHA-256 of an encoder's architecture and a sample of every weight."""
    drop = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures")
    description = {key: value for key, value in config.to_dict().items() if key not in drop}
    digest = hashlib.sha256(json.dumps(description, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.state_dict().items()):
        flat = weight.detach().flatten()
        sample = flat[:: max(1, len(flat) // 64)].to(torch.float32)
        digest.update(name.encode() + sample.numpy().tobytes())
    return digest.hexdigest()


def _receptive_field(config) -> tuple[int, int]:
    """Step and length in samples of one feature of a convolutional front end."""
    step, length = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride):
        length += (kernel - 1) * step
        step *= stride
    return step, length


def on_clock(features: np.ndarray, frames: int, step: int = 320, length: int = 400) -> np.ndarray:
    """Features (T, D) that lie `step` samples apart and span `length` each, read on the 50 Hz clock: (frames, D)."""
    centres = np.arange(len(features)) * step + length / 2
    at = np.clip(np.interp(np.arange(frames) * FEATURE_HOP, centres, np.arange(len(features))), 0, len(features) - 1)
    low = np.minimum(at.astype(int), max(0, len(features) - 2))
    part = (at - low)[:, None].astype(np.float32)
    return features[low] * (1 - part) + features[np.minimum(low + 1, len(features) - 1)] * part


def encoded_features(encoded: dict, head: MouthHead) -> np.ndarray:
    """Features (n // 320, D) for a head out of ComfyUI's AUDIO_ENCODER_OUTPUT.

    Its layout (comfy/audio_encoders): all hidden states (B, T, D), and the number of samples at 16 kHz. Whisper's come
    padded to whole 30 s at 50 Hz, Wav2Vec2's every 320 samples. Weights can't be checked, only the width.

    Raises:
        InputError: another layout, or another encoder than the head was trained on.
    """
    try:
        layers, samples = encoded["encoded_audio_all_layers"], int(encoded["audio_samples"])
        features = layers[head.config.layer][0].detach().float().cpu().numpy()
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(
            f"the encoded audio has no hidden state {head.config.layer} ({error!r}); encode it with ComfyUI's "
            "AudioEncoderEncode, or drive with the audio itself"
        ) from error
    if features.shape[1] != head.config.features:
        raise InputError(
            f"this mouth head was trained on {head.config.encoder} ({head.config.features} features), the encoded "
            f"audio has {features.shape[1]}; load that encoder, or train a head with `mggtalk train audio --encoder`"
        )
    frames = samples // FEATURE_HOP
    if len(features) > frames + 1:
        return features[:frames]
    return on_clock(features, frames)


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
    """The encoder and the mouth head trained on it; None for the ones that ship.

    Raises:
        InputError: the head's encoder is not there any more, or is not the one it was trained on.
    """
    head = load_mouth_head(HEAD_FILE if head_file is None else Path(head_file))
    name = head.config.encoder
    encoder = whisper_tiny() if name == WhisperTinyEncoder.name else _transformers(name, head.config.layer)
    check_match(head, encoder)
    return encoder, head


@lru_cache(maxsize=1)
def _transformers(source: str, layer: int) -> TransformersEncoder:
    return TransformersEncoder(source, layer)
