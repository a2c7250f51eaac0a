"""Makes nodes/assets/demo_driving.mp4: the clip that drives the template "video reenactment".

It is rendered by the pack itself from the demo portrait and speech, so it has no rights of its own to clear.
Run: python tools/make_demo_driving.py
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mggtalk_core.assets import DEMO_PORTRAIT, DEMO_SPEECH  # noqa: E402
from mggtalk_core.headmodel.arkit import ARKIT_INDEX  # noqa: E402
from mggtalk_core.media.audio import Audio, read_audio  # noqa: E402
from mggtalk_core.media.image import read_photo  # noqa: E402
from mggtalk_core.media.provenance import make_provenance, mp4_tags  # noqa: E402
from mggtalk_core.media.video_writer import VideoWriter  # noqa: E402
from mggtalk_core.motion.audio import drive_with_audio  # noqa: E402
from mggtalk_core.pipeline import build_head  # noqa: E402
from mggtalk_core.rendering.frames import render_frames  # noqa: E402

SECONDS, FPS, SIZE = 4.0, 25.0, 320


def main() -> None:
    photo = read_photo(DEMO_PORTRAIT)[:, ::-1]  # mirrored, so that it does not look like the portrait it drives
    head = build_head(np.ascontiguousarray(photo), size=SIZE)
    speech = read_audio(DEMO_SPEECH)
    speech = Audio(speech.waveform[:, : round(SECONDS * speech.sample_rate)], speech.sample_rate)
    motion = drive_with_audio(speech.waveform, speech.sample_rate, FPS, seed=4, head_motion_scale=1.8)
    phase = np.linspace(0, np.pi, len(motion))
    expression = motion.expression.copy()
    for name in ("mouthSmileLeft", "mouthSmileRight", "browInnerUp"):
        expression[:, ARKIT_INDEX[name]] += 0.4 * np.sin(phase) ** 2
    motion = replace(motion, expression=expression.clip(0, 1))
    tags = mp4_tags(make_provenance(composite=True, sources={}, settings={}))
    output = ROOT / "nodes" / "assets" / "demo_driving.mp4"
    output.parent.mkdir(exist_ok=True)
    with VideoWriter(output, SIZE, SIZE, FPS, audio=speech, metadata=tags, crf=23) as video:
        for rgb, _ in render_frames(head, motion, size=SIZE):
            video.write(rgb)
    print(output, output.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
