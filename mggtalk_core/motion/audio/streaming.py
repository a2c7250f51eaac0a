"""Speech that is still being spoken: samples in, frames out, 0.6 s behind.

Each step of 0.2 s encodes the last 4 s again together with 0.4 s of look-ahead, because a mouth opens before it
sounds and because a silence is only one when it lasts. Nothing else is kept, so memory and cost per step stay the same
for as long as it runs.
"""

from __future__ import annotations

from math import ceil, inf
from pathlib import Path

import numpy as np

from ...types import Motion
from .drive import Style, check_fps, performance
from .encoders import load_encoder
from .mel import SAMPLE_RATE
from .windows import FEATURE_HOP, FEATURE_RATE, loudness

STEP_S, LOOKAHEAD_S, HISTORY_S = 0.2, 0.4, 4.0
LATENCY_S = STEP_S + LOOKAHEAD_S
"""How far frames are behind the samples, apart from computing."""

_STEP, _LOOKAHEAD, _HISTORY = (round(s * FEATURE_RATE) for s in (STEP_S, LOOKAHEAD_S, HISTORY_S))


class SpeechStream:
    """Drives a head from mono 16 kHz samples as they come.

    `push` gives the frames that are settled by then, `finish` the rest: together ceil(duration * fps).
    """

    def __init__(self, fps: float = 25.0, *, encoder: str | Path | None = None, style: Style | None = None):
        check_fps(fps)
        self._encoder, self._head = load_encoder(encoder)
        self._fps, self._style = fps, style or Style()
        self._samples = np.zeros(0, np.float32)
        self._first = 0  # 50 Hz frame at which the kept samples begin
        self._done = 0  # 50 Hz frames already turned into video frames
        self._frames = 0  # video frames given out

    def push(self, samples: np.ndarray) -> Motion:
        """Takes samples (n,) float32 and gives the frames (maybe none) they settle."""
        self._samples = np.concatenate([self._samples, np.asarray(samples, np.float32)])
        parts = []
        while (self._available - self._done) >= _STEP + _LOOKAHEAD:
            parts.append(self._step(self._done + _STEP, _STEP + _LOOKAHEAD))
        return self._joined(parts)

    def finish(self) -> Motion:
        """The frames that were waiting for what came next."""
        seconds = self._first / FEATURE_RATE + len(self._samples) / SAMPLE_RATE
        padding = -len(self._samples) % FEATURE_HOP + _LOOKAHEAD * FEATURE_HOP
        self._samples = np.pad(self._samples, (0, padding))
        last = self._available - _LOOKAHEAD
        total = ceil(seconds * self._fps - 1e-6)
        parts = []
        while self._done < last:
            step = min(_STEP, last - self._done)
            parts.append(self._step(self._done + step, step + _LOOKAHEAD, total))
        return self._joined(parts)

    @property
    def _available(self) -> int:
        return self._first + len(self._samples) // FEATURE_HOP

    def _step(self, until: int, ahead: int, total: float = inf) -> Motion:
        """Video frames before 50 Hz frame `until` (and before frame `total`), with what was heard around them."""
        stop = (self._done + ahead - self._first) * FEATURE_HOP
        heard = self._samples[:stop]
        outputs, level = self._head.predict(self._encoder(heard)), loudness(heard)
        count = min(ceil(until / FEATURE_RATE * self._fps - 1e-6), total) - self._frames
        motion = performance(outputs, level, self._fps, count, self._style, self._frames, self._first)
        self._frames += count
        self._done = until
        forget = max(0, self._done - _HISTORY - self._first)
        self._samples = self._samples[forget * FEATURE_HOP :]
        self._first += forget
        return motion

    def _joined(self, parts: list[Motion]) -> Motion:
        parts = parts or [Motion(np.zeros((0, 52), np.float32), *(np.zeros((0, 3), np.float32),) * 2, self._fps)]
        curves = (np.concatenate([getattr(p, n) for p in parts]) for n in ("expression", "rotation", "translation"))
        return Motion(*curves, self._fps)
