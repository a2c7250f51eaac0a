"""Audio in, motion out: the whole speech path in one page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import InputError
from ...headmodel.arkit import ARKIT_INDEX
from ...types import Motion
from .. import idle
from .encoders import SpeechEncoder, load_encoder
from .head import MouthHead
from .mouth import gates, mouth_expression
from .windows import check_waveform, frame_count, loudness, windows


def speech_outputs(
    waveform: np.ndarray, sample_rate: int, encoder: SpeechEncoder, head: MouthHead
) -> tuple[np.ndarray, np.ndarray]:
    """The mouth head's outputs (T, len(OUTPUTS)) and the loudness (T,) in dB of audio (C, n), at 50 Hz."""
    outputs, level = [], []
    for window in windows(waveform, sample_rate):
        kept = slice(window.first, window.first + window.count)
        outputs.append(head.predict(encoder(window.samples))[kept])
        level.append(loudness(window.samples)[kept])
    return np.concatenate(outputs), np.concatenate(level)


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
) -> Motion:
    """Turns speech into ceil(duration * fps) frames of expression and head pose.

    Args:
        waveform: (n,) or (C, n) float32 samples at any rate; channels are averaged.
        encoder: None for Whisper-tiny, or a mouth head (.safetensors) trained on another encoder.
        mouth_scale: how far the mouth moves; 1 gives the lip gap of real speech, 0 keeps it shut.
        expression_scale: brows and glances. head_motion_scale: sway and nods. blink_scale: how far the lids close.
            All three 0 gives lips only.
        look_at_camera: the eyes make up for the head's rotation.
        seed: same input and seed, same motion.

    Raises:
        InputError: empty or non-finite audio, an impossible frame rate, or no encoder.
    """
    waveform = check_waveform(waveform, sample_rate)
    check_fps(fps)
    speech_encoder, head = load_encoder(encoder)
    outputs, level = speech_outputs(waveform, sample_rate, speech_encoder, head)
    return performance(
        outputs, level, fps, frame_count(waveform, sample_rate, fps), mouth_scale=mouth_scale,
        expression_scale=expression_scale, head_motion_scale=head_motion_scale, blink_scale=blink_scale,
        look_at_camera=look_at_camera, seed=seed,
    )  # fmt: skip


def performance(
    outputs: np.ndarray,
    level: np.ndarray,
    fps: float,
    frames: int,
    *,
    mouth_scale: float = 1.0,
    expression_scale: float = 1.0,
    head_motion_scale: float = 1.0,
    blink_scale: float = 1.0,
    look_at_camera: bool = True,
    seed: int = 0,
) -> Motion:
    """Mouth and idle movement at `fps` from the mouth head's 50 Hz outputs (T, len(OUTPUTS)) and loudness (T,) dB."""
    expression = mouth_expression(outputs, level, fps, frames, mouth_scale)
    times = np.arange(frames) / fps
    speaking = 1 - gates(outputs, level)[0]
    stress = idle.emphasis(level, speaking)
    clock = np.arange(len(outputs)) / idle.CLOCK

    def at_frames(curves: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(times, clock, curve) for curve in curves.T], 1).astype(np.float32)

    rotation = head_motion_scale * at_frames(idle.sway(seed, stress, speaking))
    look = expression_scale * at_frames(idle.glances(seed, len(outputs)))
    if look_at_camera:
        # turning the head by +y moves the face to the left of the image, nodding (+x) lowers it
        look += np.degrees(rotation[:, [1, 0]]) * (1, -1)
    expression += idle.eye_expression(look)
    raised = expression_scale * at_frames(idle.brows(seed, stress)[:, None])[:, 0]
    expression[:, ARKIT_INDEX["browInnerUp"]] = raised
    for side in ("Left", "Right"):
        expression[:, ARKIT_INDEX[f"browOuterUp{side}"]] = 0.6 * raised
        expression[:, ARKIT_INDEX[f"eyeBlink{side}"]] = blink_scale * idle.blinks(seed, times)
    return Motion(
        np.clip(expression, 0, 1).astype(np.float32), rotation, np.zeros((frames, 3), np.float32), float(fps)
    )


def check_fps(fps: float) -> None:
    """Raises InputError for a frame rate no video has."""
    if not 1 <= fps <= 240:
        raise InputError(f"{fps} frames per second is outside 1..240; give the video's frame rate, e.g. 25")
