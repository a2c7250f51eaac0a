"""The rule teacher: phones with exact times -> what the mouth does.

Every phone belongs to one of 27 visemes with a target for each lip channel and a dominance in time; overlapping
dominances blend the targets (Cohen and Massaro 1993, "Modeling coarticulation in synthetic visual speech"). Rules have
the timing and the order of things right; their scale is set later against tracked speakers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

CHANNELS = (
    "jawOpen", "mouthFunnel", "mouthPucker", "mouthLowerDown", "mouthUpperUp", "mouthStretch", "mouthSmile",
    "mouthRollLower", "mouthRollUpper", "mouthPress", "mouthShrugLower", "mouthShrugUpper", "tongueOut",
    "aperture", "width",
)  # fmt: skip
"""Lip detail in ARKit coefficients; aperture 0..1 of wide open, width -1..1 of the widest change."""

LEAD_S, ROUNDING_LEAD_S = 0.02, -0.02
"""Opening and closing run ahead of the sound; the corners come later (measured on GRID, whose clips are in sync)."""

_ROUNDING = ("mouthFunnel", "mouthPucker", "mouthStretch", "mouthSmile", "width")


@dataclass(frozen=True)
class Viseme:
    """How the mouth makes one group of phones."""

    phones: str  # IPA symbols, separated by blanks
    target: dict[str, float]  # channel -> value; others 0
    dominance: float  # of the lips over neighbouring phones
    attack: float  # s, how fast dominance rises
    release: float  # s
    jaw: float  # dominance of the jaw


def _viseme(phones, dominance, attack, release, jaw, **target) -> Viseme:
    names = dict(
        j="jawOpen", f="mouthFunnel", p="mouthPucker", ld="mouthLowerDown", uu="mouthUpperUp", st="mouthStretch",
        sm="mouthSmile", rl="mouthRollLower", ru="mouthRollUpper", pr="mouthPress", sl="mouthShrugLower",
        su="mouthShrugUpper", to="tongueOut", ap="aperture", w="width",
    )  # fmt: skip
    return Viseme(phones, {names[key]: value for key, value in target.items()}, dominance, attack, release, jaw)


VISEMES = {
    "sil": _viseme("", 0.6, 0.10, 0.12, 0.6, j=0.02, pr=0.05),
    "PBM": _viseme("p b m ɓ ʙ", 6, 0.045, 0.045, 0.8, j=0.06, rl=0.25, ru=0.2, pr=0.25, sl=0.15, w=-0.05),
    "FV": _viseme("f v ɱ ʋ ɸ β", 3, 0.05, 0.05, 0.8, j=0.07, rl=0.3, uu=0.15, sl=0.1, ap=0.1, w=0.05),
    "TH": _viseme("θ ð", 1, 0.06, 0.06, 0.8, j=0.13, ld=0.22, uu=0.08, to=0.15, ap=0.28),
    "TDN": _viseme("t d n ɾ ɖ ʈ ɳ ȵ ɗ ɲ c ɟ ʔ", 0.7, 0.06, 0.06, 0.7, j=0.12, ld=0.22, uu=0.06, ap=0.27, w=0.02),
    "L": _viseme("l ɫ ɭ ʎ ɬ ɮ r", 0.7, 0.06, 0.06, 0.8, j=0.18, ld=0.22, uu=0.08, to=0.05, ap=0.35),
    "SZ": _viseme("s z", 1.2, 0.06, 0.06, 1.4, j=0.05, ld=0.35, uu=0.15, st=0.2, sm=0.1, ap=0.25, w=0.15),
    "SH": _viseme("ʃ ʒ ʂ ʐ ɕ ʑ ʧ ʤ ʨ ʥ", 2, 0.08, 0.08, 1.3, j=0.07, f=0.45, p=0.25, ld=0.2, uu=0.15, ap=0.28, w=-0.35),
    "R": _viseme("ɹ ɻ ɽ", 1.2, 0.08, 0.07, 0.8, j=0.11, f=0.25, p=0.3, ld=0.1, ap=0.22, w=-0.25),
    "KG": _viseme("k g ɡ ŋ q ɢ ɴ x ɣ χ ʁ ʀ ç ʝ ɠ", 0.4, 0.07, 0.07, 0.5, j=0.17, ld=0.18, uu=0.06, ap=0.32),
    "H": _viseme("h ɦ ħ ʕ", 0.2, 0.08, 0.08, 0.3, j=0.2, ld=0.15, ap=0.35),
    "W": _viseme("w ʍ ɥ", 3, 0.09, 0.08, 0.9, j=0.06, f=0.25, p=0.65, ap=0.1, w=-0.6),
    "Y": _viseme("j", 0.8, 0.07, 0.07, 0.8, j=0.09, ld=0.2, uu=0.08, st=0.2, sm=0.2, ap=0.22, w=0.25),
    "a": _viseme("a ɑ ä", 1, 0.09, 0.09, 1.2, j=0.5, ld=0.35, uu=0.2, ap=0.85, w=0.05),
    "ae": _viseme("æ", 1, 0.09, 0.09, 1.2, j=0.42, ld=0.4, uu=0.25, st=0.15, sm=0.1, ap=0.78, w=0.2),
    "V": _viseme("ʌ ɶ ɐ", 0.9, 0.09, 0.09, 1.1, j=0.36, ld=0.3, uu=0.15, ap=0.62),
    "e": _viseme("e ɛ", 1, 0.09, 0.09, 1, j=0.27, ld=0.35, uu=0.18, st=0.15, sm=0.15, ap=0.52, w=0.25),
    "schwa": _viseme("ə ɘ ᵊ ɜ", 0.5, 0.08, 0.08, 0.6, j=0.2, ld=0.22, uu=0.08, ap=0.38),
    "i": _viseme("i", 1, 0.08, 0.08, 1, j=0.12, ld=0.3, uu=0.15, st=0.25, sm=0.25, ap=0.32, w=0.4),
    "I": _viseme("ɪ ɨ ᵻ ɯ ɤ", 0.8, 0.08, 0.08, 0.9, j=0.17, ld=0.28, uu=0.12, st=0.15, sm=0.12, ap=0.38, w=0.2),
    "er": _viseme("ɚ ɝ", 1, 0.08, 0.08, 0.9, j=0.16, f=0.2, p=0.25, ld=0.15, ap=0.3, w=-0.2),
    "O": _viseme("ɔ ɒ", 1.4, 0.09, 0.09, 1.1, j=0.36, f=0.35, p=0.2, ld=0.15, ap=0.6, w=-0.35),
    "o": _viseme("o", 1.6, 0.09, 0.09, 1, j=0.25, f=0.35, p=0.35, ld=0.1, ap=0.42, w=-0.5),
    "u": _viseme("u ʉ", 1.9, 0.09, 0.09, 1, j=0.1, f=0.3, p=0.65, ap=0.18, w=-0.65),
    "U": _viseme("ʊ", 1.2, 0.08, 0.08, 0.9, j=0.15, f=0.25, p=0.4, ld=0.1, ap=0.28, w=-0.35),
    "y": _viseme("y ʏ", 1.8, 0.09, 0.09, 1, j=0.1, f=0.3, p=0.6, ap=0.2, w=-0.5),
    "oe": _viseme("ø œ ɵ", 1.5, 0.09, 0.09, 1, j=0.2, f=0.35, p=0.4, ld=0.1, ap=0.36, w=-0.4),
}
VISEME_NAMES = tuple(VISEMES)
SILENCE, BILABIAL = VISEME_NAMES.index("sil"), VISEME_NAMES.index("PBM")
OF_PHONE = {phone: name for name, viseme in VISEMES.items() for phone in viseme.phones.split()}

Segment = tuple[float, float, str]
"""Start s, end s, viseme."""

_SHORTEST_PAUSE_S = 0.06  # gaps inside words (stop closures) belong to the phone before them
_CLOSING_PAUSE_S = 0.35  # real speakers do not close the mouth in shorter pauses


def join_segments(segments: list[Segment]) -> list[Segment]:
    """The same segments with tiny gaps given to the phone before them and neighbouring silences merged."""
    joined: list[Segment] = []
    for start, end, name in segments:
        previous = joined[-1] if joined else None
        if previous and name == "sil" and (previous[2] == "sil" or end - start < _SHORTEST_PAUSE_S):
            joined[-1] = (previous[0], end, previous[2])
        else:
            joined.append((start, end, name))
    return joined


def segments_of_ipa(events: list[tuple[float, str]], end: float) -> list[Segment]:
    """Viseme segments of timed IPA events (start s, symbols); diphthongs share their time equally."""
    segments: list[Segment] = []
    for index, (start, symbols) in enumerate(events):
        stop = events[index + 1][0] if index + 1 < len(events) else end
        if stop <= start:
            continue
        names = [OF_PHONE[symbol] for symbol in symbols if symbol in OF_PHONE]
        if symbols.startswith(("tʃ", "dʒ", "tɕ", "dʑ", "tʂ", "ʈʂ")):
            names = ["SH", *names[2:]]
        elif symbols.startswith(("ts", "dz")):
            names = ["SZ"]
        elif symbols.startswith("("):  # a change of language, not a sound
            names = []
        step = (stop - start) / max(1, len(names))
        segments += [(start + k * step, start + (k + 1) * step, n) for k, n in enumerate(names or ["sil"])]
    return join_segments(segments)


def classes(segments: list[Segment], frames: int, rate: float) -> np.ndarray:
    """Viseme index of each frame, (frames,) int64."""
    times = np.arange(frames) / rate
    index = np.full(frames, SILENCE)
    for start, end, name in segments:
        index[np.searchsorted(times, start) : np.searchsorted(times, end)] = VISEME_NAMES.index(name)
    return index


def teach(segments: list[Segment], frames: int, rate: float) -> np.ndarray:
    """Mouth curves (frames, len(CHANNELS)) float32 of viseme segments at `rate` Hz."""
    times = np.arange(frames) / rate
    weighted = np.zeros((frames, len(CHANNELS)))
    total = np.full((frames, len(CHANNELS)), 1e-6)
    closed = np.zeros(frames)
    jaw = CHANNELS.index("jawOpen")
    rounding = np.array([channel in _ROUNDING for channel in CHANNELS])
    leads = np.where(rounding, ROUNDING_LEAD_S, LEAD_S)
    for start, end, name in segments:
        duration = end - start
        if name == "sil" and duration < _CLOSING_PAUSE_S:
            name = "H"  # neutral and weak
        viseme = VISEMES[name]
        target = np.array([viseme.target.get(channel, 0.0) for channel in CHANNELS])
        low, high = np.searchsorted(times, [start - 0.55, end + 0.55])
        if high <= low:
            continue
        x = times[low:high, None] - (start + end) / 2 + leads
        reach = np.where(x < 0, viseme.attack, viseme.release)
        kernel = np.exp(-((np.maximum(np.abs(x) - 0.3 * duration, 0) / reach) ** 1.5))
        if name not in ("PBM", "FV", "sil"):  # short vowels and tongue consonants are reduced, lip contacts are not
            kernel *= min(1.0, 0.55 + 0.45 * duration / 0.16)
        weight = viseme.dominance * kernel
        weight[:, jaw] = viseme.jaw * kernel[:, jaw]
        weighted[low:high] += weight * target
        total[low:high] += weight
        if name == "PBM":
            contact = np.exp(-((np.maximum(np.abs(x[:, jaw]) - 0.25 * duration, 0) / 0.045) ** 2))
            closed[low:high] = np.maximum(closed[low:high], contact)
    curves = weighted / total
    for channel in ("aperture", "mouthLowerDown", "mouthUpperUp"):
        curves[:, CHANNELS.index(channel)] *= 1 - closed
    return gaussian_filter1d(curves, 0.02 * rate, axis=0).astype(np.float32)
