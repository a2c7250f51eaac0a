"""Do lips meet on p, b and m, and only when they should? On synthetic speech, whose phones are known exactly."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..motion.audio.head import MouthHead
from ..motion.audio.mouth import REST_APERTURE, mouth_expression, mouth_rig
from ..motion.audio.windows import FEATURE_RATE

CLOSED = 0.15
"""Of the 90th percentile of the stream's lip gap."""
_OPEN = ("a", "ae", "V", "e", "i", "KG", "TDN")
_SHORTEST_S = 0.04


def closure_test(head: MouthHead, streams: Iterable) -> dict[str, float]:
    """Share of bilabials that close, of other sounds that do, and the lip gap of sounds nobody speaks.

    Args:
        streams: with `features` (T, D), `level` (T,) dB and `segments` (start s, end s, viseme).
    """
    bilabials, others, silent, opened = [], [], [], []
    for stream in streams:
        outputs = head.predict(stream.features.astype(np.float32))
        expression = mouth_expression(outputs, stream.level, np.arange(len(outputs)) / FEATURE_RATE, FEATURE_RATE)
        gap = mouth_rig().aperture_of(expression) - REST_APERTURE
        spoken = [segment for segment in stream.segments if segment[2] != "sil"]
        if not spoken:
            silent.append(gap)
            continue
        opened.append(gap)
        limit = CLOSED * np.percentile(gap, 90)
        for start, end, viseme in spoken:
            if end - start < _SHORTEST_S or end + 0.1 > len(gap) / FEATURE_RATE:
                continue
            if viseme == "PBM":
                around = gap[max(0, int(start * FEATURE_RATE) - 4) : int(end * FEATURE_RATE) + 2]
                bilabials.append(around.min() < limit)
            elif viseme in _OPEN:
                middle = int((start + end) / 2 * FEATURE_RATE)
                others.append(gap[max(0, middle - 1) : middle + 1].mean() < limit)
    speech = np.percentile(np.concatenate(opened), 95)
    rest = np.percentile(np.concatenate(silent), 95) if silent else 0.0
    return {
        "bilabials_closed": float(np.mean(bilabials)),
        "bilabials": len(bilabials),
        "false_closures": float(np.mean(others)),
        "others": len(others),
        "silent_p95_of_speech": float(rest / speech),
    }
