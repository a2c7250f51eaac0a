"""An hour of speech at constant memory: animates a photo with a long sound and watches the process from outside.

    python benchmarks/long_run.py speech.wav --minutes 60 --size 256 -o long.mp4

The speech is repeated until the minutes are full. Prints one JSON line: resident memory once a minute, its growth after
the first minute of rendering, frames, duration of picture and sound, and where the last second of sound lies.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mggtalk_core.assets import DEMO_PORTRAIT, DEMO_SPEECH
from mggtalk_core.media.audio import read_audio
from mggtalk_core.media.timing import exact_fps, frame_count

RATE = 16_000


def write_speech(source: Path, minutes: float, path: Path) -> int:
    """Repeats a speech file to a WAV of so many minutes with a click in its last half second; returns its samples."""
    speech = read_audio(source, sample_rate=RATE, channels=1).waveform[0]
    samples = round(minutes * 60 * RATE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE)
        stream.layout = "mono"
        for start in range(0, samples, len(speech)):
            part = speech[: samples - start].copy()
            if start + len(part) == samples:
                part[-RATE // 2] = 1.0
            block = np.ascontiguousarray((part.clip(-1, 1) * 32767).astype(np.int16)[None])
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return samples


def resident_mb(pid: int) -> float:
    """Resident memory of a process (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def watch(command: list[str], every: float) -> tuple[list[tuple[float, float]], str, float]:
    """Runs a command; (seconds, MB) every so often, its stdout, and the seconds it took."""
    start, curve = time.perf_counter(), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            time.sleep(every)
            if Path(f"/proc/{process.pid}/status").exists():
                curve.append((round(time.perf_counter() - start, 1), round(resident_mb(process.pid), 1)))
        output = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"the run failed with code {process.returncode}")
    return [point for point in curve if point[1] > 0], output, time.perf_counter() - start


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", nargs="?", type=Path, default=DEMO_SPEECH)
    parser.add_argument("--image", type=Path, default=DEMO_PORTRAIT)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--fps", type=float, default=25)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        speech = Path(folder) / "speech.wav"
        samples = write_speech(options.speech, options.minutes, speech)
        curve, output, seconds = watch(
            [sys.executable, "-m", "mggtalk_core", "animate", "--image", str(options.image), "--audio", str(speech),
             "-o", str(options.output), "--size", str(options.size), "--fps", str(options.fps), "--json"],
            every=2.0,
        )  # fmt: skip
    report = json.loads(output)
    rendering = report["seconds"]["render"] + report["seconds"]["encode"]
    begin = seconds - rendering  # of rendering, about
    after = [mb for time_, mb in curve if time_ > begin + 60]
    at_a_minute = next((mb for time_, mb in curve if time_ > begin + 60), curve[-1][1])
    with av.open(str(options.output)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        picture_s = float(picture.duration * picture.time_base)
        sound_s = float(sound.duration * sound.time_base)
        frames = picture.frames
        container.seek(int((sound_s - 3) / sound.time_base), stream=sound)
        tail = [(frame.time, frame.to_ndarray()[0]) for frame in container.decode(sound)]
    times = np.concatenate([time_ + np.arange(len(wave)) / RATE for time_, wave in tail])
    waves = np.concatenate([wave for _, wave in tail])
    window = times > samples / RATE - 0.6
    click = times[window][np.abs(waves[window]).argmax()]
    print(json.dumps({
        "minutes": options.minutes, "size": options.size, "seconds": round(seconds, 1),
        "frames": frames, "frames_expected": frame_count(samples, RATE, options.fps),
        "picture_s": picture_s, "sound_s": sound_s, "speech_s": samples / RATE,
        "drift_frames": round((picture_s - sound_s) * float(exact_fps(options.fps)), 4),
        "click_off_ms": round(1000 * (click - (samples - RATE // 2) / RATE), 2),
        "rss_mb_after_a_minute": at_a_minute, "rss_mb_most_later": max(after, default=at_a_minute),
        "rss_mb_growth": round(max(after, default=at_a_minute) - at_a_minute, 1),
        "rss_curve": [point for index, point in enumerate(curve) if index % 30 == 0],
        "report": report,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
