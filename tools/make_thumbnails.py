"""Makes the workflows' thumbnails from real runs: starts ComfyUI, runs each workflow, cuts a picture from its result.

COMFYUI_PATH=/path/to/ComfyUI COMFYUI_PYTHON=/its/python python tools/make_thumbnails.py [workflow ...]

Where ComfyUI's own landmark model is not installed, the workflow that uses it is run with the video in its place.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import workflow_files  # noqa: E402
from real_host import RealHost  # noqa: E402

from mggtalk_core.media.video_reader import VideoReader  # noqa: E402

WIDTH, HEIGHT = 480, 480
SHOWN_AT = (0.22, 0.4, 0.62, 0.85)  # of a clip's duration


def picture_of(paths: list[Path]) -> Image.Image:
    """Four moments of the first clip (two of each of two clips), or the first still."""
    clips = [path for path in paths if path.suffix == ".mp4"]
    if not clips:
        return Image.open(next(path for path in paths if path.suffix == ".png")).convert("RGB").resize((WIDTH, HEIGHT))
    frames = []
    for clip in clips[:2]:
        pictures = [frame.rgb for frame in VideoReader(clip)]
        moments = SHOWN_AT[:: len(clips[:2])]
        frames += [pictures[int(moment * (len(pictures) - 1))] for moment in moments]
    tile = (WIDTH // 2, HEIGHT // 2)
    rows = [np.concatenate([np.asarray(Image.fromarray(f).resize(tile)) for f in frames[i : i + 2]], 1) for i in (0, 2)]
    return Image.fromarray(np.concatenate(rows, 0))


def without_landmark_model(prompt: dict, info: dict) -> dict:
    """The prompt with Drive with Video tracking by itself, where ComfyUI's landmark model is missing."""
    loaders = {"LoadMediaPipeFaceLandmarker", "MediaPipeFaceLandmarker"}
    if not loaders & {node["class_type"] for node in prompt.values()}:
        return prompt
    if info["LoadMediaPipeFaceLandmarker"]["input"]["required"]["model_name"][1]["options"]:
        return prompt
    video = next(node_id for node_id, node in prompt.items() if node["class_type"] == "LoadVideo")
    kept = {node_id: node for node_id, node in prompt.items() if node["class_type"] not in loaders}
    next(n for n in kept.values() if n["class_type"] == "MGGTalkDriveWithVideo")["inputs"]["driving"] = [video, 0]
    return kept


def main() -> None:
    names = sys.argv[1:] or workflow_files.WORKFLOWS
    with tempfile.TemporaryDirectory() as folder, RealHost(Path(folder)) as host:
        info = host.get("/object_info")

        def inputs_of(kind: str) -> set[str]:
            return {name for group in info[kind]["input"].values() for name in group}

        for name in names:
            prompt = workflow_files.to_prompt(workflow_files.load(name), inputs_of)
            run = host.run(without_landmark_model(prompt, info))
            if run.status != "success":
                print(f"{name}: {run.status} {run.node_errors or run.error['exception_message']}")
                continue
            files = [host.folder / item["type"] / item["subfolder"] / item["filename"] for item in run.files()]
            picture_of(files).save(ROOT / "workflows" / f"{name}.jpg", quality=85, optimize=True)
            print(f"{name}: {run.seconds:.1f} s")


if __name__ == "__main__":
    main()
