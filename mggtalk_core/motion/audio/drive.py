"""Audio in, motion out: the whole speech path in one page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...headmodel.arkit import ARKIT_INDEX
from ...types import Motion
from .. import idle
from .encoders import SpeechEncoder, encoded_features, load_encoder
from .head import MouthHead, load_mouth_head
from .mouth import gates, mouth_expression
from .windows import check_waveform, frame_count, loudness, to_mono_16k, window_count, windows

Progress = Callable[[int, int], None]
"""Called with the windows of speech done and their total; what it raises ends the work."""


@dataclass(frozen=True)
class Style:
    """How lively the performance is."""

    mouth_scale: float = 1.0  # 1 gives the lip gap of real speech, 0 keeps the mouth shut
    expression_scale: float = 1.0  # brows and glances
    head_motion_scale: float = 1.0  # sway and nods
    blink_scale: float = 1.0  # how far the lids close
    look_at_camera: bool = True  # the eyes make up for the head's rotation
    seed: int = 0  # same input and seed, same motion


def drive_with_audio(
    waveform: np.ndarray,
    sample_rate: int,
    fps: float = 25.0,
    *,
    encoder: str | Path | None = None,
    mouth_scale: float = 1.0,
    expression_scale: float = 1.0,
    head_motion_scale: float = 1.0,
    blink_scale: float = 1.0,
    look_at_camera: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Motion:
    """Turns speech into ceil(duration * fps) frames of expression and head pose.

    Args:
        waveform: (n,) or (C, n) float32 samples at any rate; channels are averaged.
        encoder: None for Whisper-tiny, or a mouth head (.safetensors) trained on another encoder.
        mouth_scale, expression_scale, head_motion_scale, blink_scale, look_at_camera, seed: see `Style`. The three
            scales in the middle at 0 give lips only.
        progress: called after every 8 s of speech.

    Raises:
        InputError: empty or non-finite audio, an impossible frame rate, or an encoder that can't be had.
    """
    waveform = check_waveform(waveform, sample_rate)
    check_fps(fps)
    speech_encoder, head = load_encoder(encoder)
    outputs, level = speech_outputs(waveform, sample_rate, speech_encoder, head, progress)
    style = Style(mouth_scale, expression_scale, head_motion_scale, blink_scale, look_at_camera, seed)
    return performance(outputs, level, fps, frame_count(waveform, sample_rate, fps), style)


def drive_with_encoded_audio(
    encoded: dict, waveform: np.ndarray, sample_rate: int, fps: float, head_file: str | Path, style: Style | None = None
) -> Motion:
    """As `drive_with_audio`, from features that ComfyUI's AudioEncoderEncode already made (AUDIO_ENCODER_OUTPUT).

    Args:
        encoded: "encoded_audio_all_layers" (hidden states (B, T, D)) and "audio_samples" (at 16 kHz); item 0 is used.
        waveform: the same sound, for its loudness and length.
        head_file: a mouth head trained on that encoder.

    Raises:
        InputError: as above, or features of another width than the head was trained on.
    """
    waveform = check_waveform(waveform, sample_rate)
    check_fps(fps)
    head = load_mouth_head(Path(head_file))
    outputs = head.predict(encoded_features(encoded, head))
    level = loudness(to_mono_16k(waveform, sample_rate))
    frames = min(len(outputs), len(level))
    if frames == 0:
        raise InputError("the encoded audio is shorter than 20 ms; encode the whole clip")
    style = style or Style()
    return performance(outputs[:frames], level[:frames], fps, frame_count(waveform, sample_rate, fps), style)


def speech_outputs(
    waveform: np.ndarray,
    sample_rate: int,
    encoder: SpeechEncoder,
    head: MouthHead,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The mouth head's outputs (T, len(OUTPUTS)) and the loudness (T,) in dB of audio (C, n), at 50 Hz."""
    outputs, level = [], []
    total = window_count(waveform, sample_rate)
    for done, window in enumerate(windows(waveform, sample_rate), 1):
        kept = slice(window.first, window.first + window.count)
        outputs.append(head.predict(encoder(window.samples))[kept])
        level.append(loudness(window.samples)[kept])
        if progress:
            progress(done, total)
    return np.concatenate(outputs), np.concatenate(level)


def performance(
    outputs: np.ndarray, level: np.ndarray, fps: float, frames: int, style: Style, skip: int = 0, start: int = 0
) -> Motion:
    """Mouth and idle movement from the mouth head's 50 Hz outputs (T, len(OUTPUTS)) and loudness (T,) dB.

    Args:
        frames: video frames to make. skip: video frames that lie before them.
        start: 50 Hz frames of the performance that lie before `outputs`.
    """
    times = (skip + np.arange(frames)) / fps
    clock = (start + np.arange(len(outputs))) / idle.CLOCK
    speaking = 1 - gates(outputs, level)[0]
    stress = idle.emphasis(level, speaking)

    def at_frames(curves: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(times, clock, curve) for curve in curves.T], 1).astype(np.float32)

    expression = mouth_expression(outputs, level, times - start / idle.CLOCK, fps, style.mouth_scale)
    rotation = style.head_motion_scale * at_frames(idle.sway(style.seed, stress, speaking, start))
    look = style.expression_scale * at_frames(idle.glances(style.seed, len(outputs), start))
    if style.look_at_camera:
        # turning the head by +y moves the face to the left of the image, nodding (+x) lowers it
        look += np.degrees(rotation[:, [1, 0]]) * (1, -1)
    expression += idle.eye_expression(look)
    raised = style.expression_scale * at_frames(idle.brows(style.seed, stress, start)[:, None])[:, 0]
    expression[:, ARKIT_INDEX["browInnerUp"]] = raised
    for side in ("Left", "Right"):
        expression[:, ARKIT_INDEX[f"browOuterUp{side}"]] = 0.6 * raised
        expression[:, ARKIT_INDEX[f"eyeBlink{side}"]] = style.blink_scale * idle.blinks(style.seed, times)
    expression = np.clip(expression, 0, 1).astype(np.float32)
    return Motion(expression, rotation.astype(np.float32), np.zeros((frames, 3), np.float32), float(fps))


def check_fps(fps: float) -> None:
    """Raises InputError for a frame rate no video has."""
    if not 1 <= fps <= 240:
        raise InputError(f"{fps} frames per second is outside 1..240; give the video's frame rate, e.g. 25")
