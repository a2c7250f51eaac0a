"""How the mouth head stands up to bad recordings, other languages and sounds that are no speech.

    python tools/measure_speech.py --clips CLIPS... [--sounds FILES...] [--languages] [--head HEAD]

Clips are talking faces (files or folders): the sound is spoiled in each way, and the mouth driven by it is compared
with the lips tracked in the clip. Sounds are files in which nobody speaks, such as instrumental music: how far does the
mouth open? Languages are made with espeak-ng (apt-get install espeak-ng, and fortunes of those languages): do lips
close on /p b m/? Prints markdown tables; docs/audio.md has them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.linalg import solve_toeplitz
from scipy.signal import butter, lfilter, resample_poly, sosfilt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mggtalk_core.evaluation import lip_sync  # noqa: E402
from mggtalk_core.evaluation.clips import find_clips  # noqa: E402
from mggtalk_core.evaluation.lip_closures import closure_test  # noqa: E402
from mggtalk_core.evaluation.lip_tracking import track_lips  # noqa: E402
from mggtalk_core.media.audio import read_audio  # noqa: E402
from mggtalk_core.motion.audio.drive import drive_with_audio  # noqa: E402
from mggtalk_core.motion.audio.encoders import load_encoder  # noqa: E402
from mggtalk_core.motion.audio.mouth import REST_APERTURE, SPEECH_APERTURE  # noqa: E402
from mggtalk_core.motion.audio.windows import loudness  # noqa: E402

RATE = 16_000
SPEED = 1.25
SOUND_S = 30.0
"""At most so much of each sound is listened to, from its middle."""

JAPANESE = ["おはようございます みなさん", "まどのそばで ほんをよむ", "みぎのみちをまがって ばすにのる"]
"""Sentences in kana: Debian has no Japanese fortunes."""


def whispered(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Speech (n,) with its voice replaced by noise: LPC of order 18 over 32 ms frames, half overlapping."""
    frame, hop, order = 512, 256, 18
    window = np.hanning(frame)
    whisper = np.zeros(len(samples) + frame)
    for start in range(0, len(samples) - frame, hop):
        part = samples[start : start + frame] * window
        correlation = np.correlate(part, part, "full")[frame - 1 : frame + order]
        if correlation[0] < 1e-9:
            continue
        correlation[0] *= 1 + 1e-4
        predictor = solve_toeplitz(correlation[:order], correlation[1:])
        excitation = lfilter(np.r_[1, -predictor], 1, part).std() * rng.standard_normal(frame)
        whisper[start : start + frame] += lfilter([1], np.r_[1, -predictor], excitation) * window
    return whisper[: len(samples)]


def shouted(samples: np.ndarray) -> np.ndarray:
    """Speech (n,) made bright and clipped."""
    bright = samples + 2 * sosfilt(butter(2, 1500, "high", fs=RATE, output="sos"), samples)
    return np.clip(8 * bright / (np.abs(bright).max() + 1e-9), -1, 1)


def with_noise(samples: np.ndarray, rng: np.random.Generator, decibels: float) -> np.ndarray:
    """Speech (n,) in white noise `decibels` below it."""
    noise = rng.standard_normal(len(samples))
    return samples + noise * np.sqrt(np.mean(samples**2)) * 10 ** (-decibels / 20)


CONDITIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "as recorded": lambda samples, rng: samples,
    "whispered (voice removed by LPC)": whispered,
    "shouted (clipped, bright)": lambda samples, rng: shouted(samples),
    "-40 dB": lambda samples, rng: samples / np.abs(samples).max() * 0.01,
    "8 kHz": lambda samples, rng: resample_poly(resample_poly(samples, 1, 2), 2, 1),
    "10 dB white noise": lambda samples, rng: with_noise(samples, rng, 10),
    "0 dB white noise": lambda samples, rng: with_noise(samples, rng, 0),
    "1.25x speed and pitch": lambda samples, rng: resample_poly(samples, 4, 5),
}


def of_speed(lips: lip_sync.LipCurves, speed: float) -> lip_sync.LipCurves:
    """Lip curves played faster."""
    clock = np.arange(0, len(lips.aperture) - 1, speed)
    return lip_sync.LipCurves(*(np.interp(clock, np.arange(len(curve)), curve) for curve in vars(lips).values()))


def measure_conditions(clips: list[Path], head: Path | None) -> None:
    """Prints a row per condition, the mean over the clips."""
    sounds = [read_audio(clip, sample_rate=RATE, channels=1).waveform[0].astype(np.float64) for clip in clips]
    tracked = [track_lips(clip) for clip in clips]
    print("| condition | lip gap r | width r | pucker r | closure F1 |\n|---|---|---|---|---|")
    for name, change in CONDITIONS.items():
        scores = []
        for index, (samples, lips) in enumerate(zip(sounds, tracked)):
            spoiled = change(samples, np.random.default_rng(index)).astype(np.float32)
            motion = drive_with_audio(spoiled, RATE, lip_sync.RATE, encoder=head)
            true = of_speed(lips, SPEED) if len(spoiled) < 0.9 * len(samples) else lips
            scores.append(lip_sync.lip_scores(lip_sync.driven_curves(motion), true))
        mean = lip_sync.mean_scores(scores)
        print(f"| {name} | {mean.lip_corr:.2f} | {mean.width_corr:.2f} | {mean.pucker_corr:.2f} "
              f"| {mean.closure_f1:.2f} |", flush=True)  # fmt: skip


def measure_sounds(files: list[Path], head: Path | None) -> None:
    """Prints how far the mouth opens in sounds without speech, of the 95th percentile of speech."""
    speech = SPEECH_APERTURE[2] - REST_APERTURE
    tops, everything = {}, []
    for file in files:
        samples = read_audio(file, sample_rate=RATE, channels=1).waveform
        length = int(SOUND_S * RATE)
        start = max(0, (samples.shape[1] - length) // 2)
        motion = drive_with_audio(samples[:, start : start + length], RATE, lip_sync.RATE, encoder=head)
        opening = lip_sync.driven_curves(motion).aperture - REST_APERTURE
        everything.append(opening)
        tops[file.name] = np.percentile(opening, 95) / speech
    everything = np.concatenate(everything)
    worst = sorted(tops, key=tops.get)[-3:][::-1]
    print(
        f"\n{len(files)} sounds without speech, {len(everything) / lip_sync.RATE / 60:.0f} minutes: "
        f"95th percentile of the gap {np.percentile(everything, 95) / speech:.1%} of speech's, "
        f"more than 10 % open in {(everything > 0.1 * speech).mean():.1%} of the time; "
        f"by file: median {np.median(list(tops.values())):.1%}, worst "
        + ", ".join(f"{name} {tops[name]:.0%}" for name in worst)
    )


def measure_languages(head: Path | None) -> None:
    """Prints closures and gaps of espeak-ng's languages on three new streams each."""
    from mggtalk_core.training.audio_data import Stream
    from mggtalk_core.training.audio_speech import espeak_utterances, speech_stream, texts

    encoder, mouth = load_encoder(head)
    print("\n| language | /p b m/ closed | false closures | bilabials |\n|---|---|---|---|")
    for language, sentences in {**texts(), "ja": JAPANESE}.items():
        streams = []
        for seed in range(3):
            rng = np.random.default_rng([777, seed])
            samples, segments = speech_stream(espeak_utterances(rng, {language: sentences}), rng)
            samples = (0.3 * samples).astype(np.float32)
            streams.append(Stream(encoder(samples), loudness(samples), segments))
        found = closure_test(mouth, streams)
        closed, false, count = (found[name] for name in ("bilabials_closed", "false_closures", "bilabials"))
        print(f"| {language} | {closed:.0%} | {false:.0%} | {count} |", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="*", default=[])
    parser.add_argument("--sounds", nargs="*", type=Path, default=[])
    parser.add_argument("--languages", action="store_true")
    parser.add_argument("--head", type=Path, help="a mouth head instead of the one that ships")
    options = parser.parse_args()
    if options.clips:
        measure_conditions(find_clips(options.clips), options.head)
    if options.sounds:
        measure_sounds(options.sounds, options.head)
    if options.languages:
        measure_languages(options.head)


if __name__ == "__main__":
    main()
