"""The recipe for the mouth head: `mggtalk train audio` makes `weights/audio_head.safetensors` again.

Two teachers, one linear map. Synthetic speech with exact phone times teaches every output by rule, in many voices and
languages. Real speakers whose lips were tracked correct aperture, width, pucker and lip closure, the four that can be
measured. Both meet in weighted ridge regression on frozen speech features: closed form, no step size, no seed in the
solver, a minute of computing, and small enough a model that one real speaker teaches the mapping without teaching the
speaker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..errors import InputError
from ..evaluation.lip_sync import RATE, closures, correlation
from ..motion.audio.encoders import SpeechEncoder, whisper_tiny
from ..motion.audio.head import OUTPUTS, TAPS, HeadConfig, MouthHead, context_of
from ..motion.audio.mouth import REST_APERTURE, SPEECH_APERTURE
from .audio_data import Clip, ClipFeatures, Stream, clip_features, synthetic_streams, tracked_clip
from .audio_phones import BILABIAL, CHANNELS, SILENCE, classes, teach

LOG = logging.getLogger(__name__)

STREAMS = {"espeak": 64, "kokoro": 26, "none": 32}
HELD_OUT = {"espeak": 8, "kokoro": 4, "none": 6}
"""28 s streams of each kind, and how many of them (the last ones) are kept for the test."""
VERSIONS = 2
"""Each clip is learned from as it is and with changed voice, speed and background; small speakers up to 7 times."""
THRESHOLDS = {"silence": (0.5, 0.1), "bilabial": (0.17, 0.06)}
"""Where a regressed indicator 0..1 becomes a logit of 0, and how softly."""


@dataclass(frozen=True)
class Blend:
    """How much each teacher counts in one output, per unit of the largest real speaker, and the ridge per frame."""

    rules: float
    further_speakers: float
    ridge: float


BY_RULE = Blend(1.0, 0.0, 0.5)
"""Outputs nobody measured."""
CURVES = Blend(0.5, 0.15, 0.5)
"""Aperture, width and pucker: features have unit variance, so the data outweigh the ridge where they say anything."""
CLOSURES = Blend(0.6, 0.05, 1.5)
"""Tracked lips first; rules add phones and voices the speakers lack. Rarer events need more restraint."""
SILENT_WEIGHT = 0.2
"""Of frames without speech: real mouths wait open or closed as they like."""

_MEASURED = ("aperture", "width", "mouthPucker", "bilabial")
_TOP, _MIDDLE = SPEECH_APERTURE[2] - REST_APERTURE, SPEECH_APERTURE[1] - REST_APERTURE


@dataclass
class Moments:
    """Weighted second moments of inputs (with a constant 1 appended) and targets, per unit of weight."""

    gram: np.ndarray  # (P + 1, P + 1)
    cross: np.ndarray  # (P + 1, K)
    weight: float

    @classmethod
    def of(cls, examples: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Moments:
        """Moments of (inputs (T, P), targets (T, K), weights (T,)), summed in double precision."""
        gram, cross, total = 0.0, 0.0, 0.0
        for inputs, targets, weights in examples:
            x = np.concatenate([inputs, np.ones((len(inputs), 1), np.float32)], 1)
            weighted = (x * weights[:, None]).T
            gram, cross, total = gram + weighted @ x, cross + weighted @ targets, total + float(weights.sum())
        return cls(gram / total, cross / total, total)


def solve(parts: list[tuple[float, np.ndarray, np.ndarray]], ridge: float) -> np.ndarray:
    """Ridge solution (P + 1, K) of weighted (weight, gram, cross) parts; the constant is not penalised."""
    gram = sum(weight * g for weight, g, _ in parts).astype(np.float64)
    penalty = np.full(len(gram), ridge)
    penalty[-1] = 1e-6
    return np.linalg.solve(gram + np.diag(penalty), sum(weight * c for weight, _, c in parts))


def synthetic_targets(stream: Stream) -> np.ndarray:
    """What the head should say to a stream, (T, len(OUTPUTS)), by rule; lengths in the rules' own scale."""
    frames = len(stream.features)
    taught = teach(stream.segments, frames, RATE)
    index = classes(stream.segments, frames, RATE)
    targets = np.zeros((frames, len(OUTPUTS)), np.float32)
    for column, name in enumerate(OUTPUTS):
        if name in CHANNELS:
            targets[:, column] = taught[:, CHANNELS.index(name)]
    targets[:, OUTPUTS.index("silence")] = index == SILENCE
    # lips meet about 40 ms before the sound of the closure; a phone of 60 ms should reach 1
    ahead = np.roll((index == BILABIAL).astype(float), -2)
    targets[:, OUTPUTS.index("bilabial")] = np.clip(1.5 * gaussian_filter1d(ahead, 1.0), 0, 1)
    return targets


def spoken(level: np.ndarray) -> np.ndarray:
    """Frames (T,) bool within 35 dB of a clip's loudest, and their surroundings."""
    return gaussian_filter1d((level > np.percentile(level, 95) - 35).astype(float), 5) > 0.3


def clip_targets(clip: ClipFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Measured targets (T, 4) in the order of `_MEASURED` and weights (T,) of a tracked clip."""
    speaking = spoken(clip.level)
    aperture = np.maximum(clip.lips[:, 0] - REST_APERTURE, 0)
    width = clip.lips[:, 1] - np.median(clip.lips[:, 1])
    closed = np.zeros(len(aperture))
    for frame in closures(clip.lips[:, 0]):
        if speaking[frame]:
            closed = np.maximum(closed, np.exp(-(((np.arange(len(closed)) - frame) / 2.5) ** 2)))
    targets = np.stack([aperture, width, clip.lips[:, 2], closed], 1).astype(np.float32)
    return targets, np.where(speaking, 1, SILENT_WEIGHT).astype(np.float32)


def picture_offset(clips: list[Clip], predicted: list[np.ndarray]) -> int:
    """50 Hz frames by which a folder's pictures run later than their sound.

    Args:
        predicted: aperture (T,) of each clip as a head without real data predicts it. Slow parts are removed, so that
            it is syllables that are aligned and not utterances.
    """

    def syllables(curve: np.ndarray) -> np.ndarray:
        return curve - gaussian_filter1d(curve, 20)

    scores = {}
    for lag in range(-15, 16):
        rows = []
        for clip, guess in zip(clips, predicted):
            true = clip.lips.aperture
            length = min(len(guess) - max(0, -lag), len(true) - max(0, lag))
            a, b = guess[max(0, -lag) :][:length], true[max(0, lag) :][:length]
            rows.append(correlation(syllables(a), syllables(b)))
        scores[lag] = float(np.nanmean(rows))
    best = max(scores, key=scores.get)
    LOG.info("picture offset %+d ms (correlation %.2f)", best * 20, scores[best])
    return best


@dataclass(frozen=True)
class Speaker:
    """Real clips recorded the same way."""

    name: str
    clips: list[ClipFeatures]


def load_speakers(
    folders: list[Path], encoder: SpeechEncoder, cache: Path, seed: int, head: MouthHead
) -> list[Speaker]:
    """Tracked clips of each folder with their versions, the largest speaker first; `head` aligns picture and sound."""
    speakers = []
    for folder in folders:
        paths = sorted(p for p in folder.iterdir() if p.suffix in (".mp4", ".mpg", ".mov", ".webm", ".mkv"))
        clips = [clip for path in paths if (clip := tracked_clip(path, cache)) is not None]
        if not clips:
            raise InputError(f"no clip with a trackable face in {folder}; give folders of talking clips")
        plain = [clip_features(clip, 0, 0, encoder, cache, seed) for clip in clips[:: max(1, len(clips) // 100)]]
        aperture = OUTPUTS.index("aperture")
        guesses = [head.predict(clip.features.astype(np.float32))[:, aperture] for clip in plain]
        offset = picture_offset(clips[:: max(1, len(clips) // 100)], guesses)
        versions = VERSIONS if len(clips) >= 50 else 7
        features = [clip_features(c, v, offset, encoder, cache, seed) for c in clips for v in range(versions)]
        LOG.info("%s: %d clips, %.0f s", folder.name, len(clips), sum(len(c.samples) for c in clips) / 16000)
        speakers.append(Speaker(folder.name, features))
    return sorted(speakers, key=lambda speaker: -len(speaker.clips))


def fit_head(encoder: SpeechEncoder, streams: list[Stream], speakers: list[Speaker], training: str) -> MouthHead:
    """The head that follows rules where it must and speakers where they were measured."""
    sample = np.concatenate(
        [s.features[::7].astype(np.float32) for s in streams]
        + [c.features[::7].astype(np.float32) for s in speakers for c in s.clips[::5]]
    )
    mean, std = sample.mean(0), sample.std(0) + 1e-3

    def inputs(features: np.ndarray) -> np.ndarray:
        return context_of((features.astype(np.float32) - mean) / std)

    targets = [synthetic_targets(stream) for stream in streams]
    column = {name: index for index, name in enumerate(OUTPUTS)}
    silence = column["silence"]
    rules = np.concatenate([t[t[:, silence] == 0] for t in targets])
    scale = np.ones(len(OUTPUTS), np.float32)
    scale[column["aperture"]] = _TOP / np.percentile(rules[:, column["aperture"]], 95)
    measured = [[clip_targets(clip) for clip in speaker.clips] for speaker in speakers]
    speech = [np.concatenate([t[w == 1] for t, w in rows]) for rows in measured]
    if speakers:
        scale[column["width"]] = np.mean([s[:, 1].std() for s in speech]) / rules[:, column["width"]].std()
    targets = [t * scale for t in targets]

    # half the frames do: neighbours share almost all of their context
    rule = Moments.of((inputs(s.features)[::2], t[::2], np.ones(len(t[::2]))) for s, t in zip(streams, targets))
    solution = solve([(BY_RULE.rules, rule.gram, rule.cross)], BY_RULE.ridge)
    if speakers:
        columns = [column[name] for name in _MEASURED]
        real = []
        spread = (rules * scale).std(0)
        for speaker, rows, said in zip(speakers, measured, speech):
            # every speaker's mouth is brought to the common range, pucker to the scale of the rules
            unit = np.ones(len(_MEASURED), np.float32)
            unit[0] = _TOP / np.percentile(said[:, 0], 95)
            unit[1:3] = spread[columns[1:3]] / said[:, 1:3].std(0)
            real.append(Moments.of((inputs(c.features), t * unit, w) for c, (t, w) in zip(speaker.clips, rows)))
        for k, (name, index) in enumerate(zip(_MEASURED, columns)):
            blend = CLOSURES if name == "bilabial" else CURVES
            parts = [(blend.rules, rule.gram, rule.cross[:, index])]
            for place, moments in enumerate(real):
                parts.append((blend.further_speakers if place else 1.0, moments.gram, moments.cross[:, k]))
            solution[:, index] = solve(parts, blend.ridge)
    weight, bias = solution[: TAPS * len(mean)], solution[-1]
    config = HeadConfig(encoder.name, encoder.hash, encoder.width, encoder.layer, training)
    head = MouthHead(config, mean, std, weight.astype(np.float32), bias.astype(np.float32))
    return calibrated(head, streams, speakers, targets)


def calibrated(head: MouthHead, streams: list[Stream], speakers: list[Speaker], targets: list[np.ndarray]) -> MouthHead:
    """The head with the spread that least squares takes away given back, and indicators made logits.

    Aperture gets the middle and top of real speech; the other curves get the standard deviation of their targets.
    """
    silence = OUTPUTS.index("silence")
    truth = np.concatenate([t[t[:, silence] == 0] for t in targets])
    said = np.concatenate(
        [head.predict(s.features.astype(np.float32))[t[:, silence] == 0] for s, t in zip(streams, targets)]
    )
    if speakers:
        real = [head.predict(c.features.astype(np.float32))[spoken(c.level)] for s in speakers for c in s.clips[::4]]
        apertures = np.concatenate([said[:, 0], *(r[:, 0] for r in real)])
    else:
        apertures = said[:, 0]
    gain, shift = np.ones(len(OUTPUTS)), np.zeros(len(OUTPUTS))
    middle, top = np.percentile(apertures, [50, 95])
    gain[0] = (_TOP - _MIDDLE) / (top - middle)
    shift[0] = _MIDDLE - gain[0] * middle
    for index, name in enumerate(OUTPUTS[1:], 1):
        if name in THRESHOLDS:
            threshold, softness = THRESHOLDS[name]
            gain[index], shift[index] = 1 / softness, -threshold / softness
        else:
            gain[index] = np.clip(truth[:, index].std() / max(said[:, index].std(), 1e-6), 1, 2)
            shift[index] = truth[:, index].mean() - gain[index] * said[:, index].mean()
    weight, bias = head.weight * gain, head.bias * gain + shift
    return MouthHead(head.config, head.mean, head.std, weight.astype(np.float32), bias.astype(np.float32))


def split_streams(streams: list[Stream]) -> tuple[list[Stream], list[Stream]]:
    """The streams to learn from and the held-out ones, given all of `STREAMS` in order."""
    learned, kept = [], []
    start = 0
    for kind, count in STREAMS.items():
        part = streams[start : start + count]
        learned += part[: count - HELD_OUT[kind]]
        kept += part[count - HELD_OUT[kind] :]
        start += count
    return learned, kept


def train_audio(
    folders: list[Path], cache: Path, output: Path, encoder: SpeechEncoder | None = None, seed: int = 0
) -> dict:
    """Makes a mouth head for `encoder` (Whisper-tiny when None) and writes it to `output`.

    Args:
        folders: folders of talking clips, one per speaker or recording; none gives a head by rules alone.
        cache: folder for streams, tracks and features; a second run takes a minute.

    Returns:
        What `mggtalk train audio` prints: seconds of data and scores on held-out synthetic speech.
    """
    from ..evaluation.lip_closures import closure_test

    encoder = encoder or whisper_tiny()
    learned, kept = split_streams(synthetic_streams(encoder, cache, STREAMS, seed))
    by_rule = fit_head(encoder, learned, [], "rules")
    speakers = load_speakers([Path(f) for f in folders], encoder, cache, seed, by_rule)
    names = ", ".join(f"{s.name} ({len({c.name for c in s.clips})} clips)" for s in speakers) or "no real clips"
    training = f"{len(learned)} synthetic streams of 28 s (espeak-ng, Kokoro-82M), {names}; seed {seed}"
    head = fit_head(encoder, learned, speakers, training)
    head.save(output)
    return {"output": str(output), "training": training, **closure_test(head, kept)}
