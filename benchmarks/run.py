"""Run all speed measurements and write one dated result: `python benchmarks/run.py [--comfyui FOLDER --python PYTHON]`.

With a ComfyUI folder (and a Python that can import it) the core's own Render Splat node is timed on the same scene.
The result says which machine, which commit, and how loaded the machine was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mggtalk_core import benchmark  # noqa: E402

RENDER_SPLAT_SIZE, RENDER_SPLAT_GAUSSIANS = 512, 60_000

COLD_START = """
import time
import numpy as np
from mggtalk_core.rendering.rasterize_cpu import CpuRenderer
begin = time.process_time()
a = np.ones
CpuRenderer(1).render_uint8(a((9, 3)), a((9, 6)), a(9), a((9, 3)), np.eye(4), np.eye(3), 8, 8, (0, 0, 0))
print(time.process_time() - begin)
"""


def render_splat(folder: str, python: str) -> dict:
    """CPU ms of ComfyUI's Render Splat for the benchmark's head at 60k / 512."""
    arrays = benchmark.head_scene(RENDER_SPLAT_GAUSSIANS)
    viewmat, _ = benchmark.head_camera(RENDER_SPLAT_SIZE)
    with tempfile.TemporaryDirectory() as scratch:
        scene = Path(scratch) / "scene.npz"
        names = ("means", "quats", "scales", "opacities", "colors")
        np.savez(scene, eye=-viewmat[:3, :3].T @ viewmat[:3, 3], size=RENDER_SPLAT_SIZE, **dict(zip(names, arrays)))
        script = Path(__file__).with_name("comfyui_render_splat.py")
        done = subprocess.run([python, str(script), folder, str(scene)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def cold_start() -> dict:
    """CPU seconds until the first picture: kernels compiled, and kernels loaded from the cache."""
    with tempfile.TemporaryDirectory() as scratch:
        empty = (
            "import pathlib\nfrom mggtalk_core.rendering import kernel_cache\n"
            f"kernel_cache.cache_folder = lambda: pathlib.Path({scratch!r})\n"
        )
        seconds = {}
        for name, code in (("compiling", empty + COLD_START), ("from the cache", empty + COLD_START)):
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
            seconds[name] = float(done.stdout)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comfyui", help="folder of a ComfyUI")
    parser.add_argument("--python", default=sys.executable, help="a Python that can import it")
    options = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    reports = {"commit": commit.strip(), "cold start, CPU s": cold_start(), "render": benchmark.run("render")}
    if options.comfyui:
        ours = next(
            row for row in reports["render"]["rows"]
            if (row["size"], row["gaussians"]) == (RENDER_SPLAT_SIZE, RENDER_SPLAT_GAUSSIANS)
        )  # fmt: skip
        theirs = render_splat(options.comfyui, options.python)
        reports["ComfyUI Render Splat at 60k / 512"] = theirs | {"ratio to video": theirs["CPU ms"] / ours["video"]}
    reports["pipeline"] = benchmark.run("pipeline")
    folder = Path(__file__).with_name("results")
    folder.mkdir(exist_ok=True)
    name = f"{reports['render']['date']}-{reports['commit']}"
    (folder / f"{name}.json").write_text(json.dumps(reports, indent=1) + "\n")
    parts = [f"# Speed, {reports['render']['date']}, commit {reports['commit']}", ""]
    for key, value in reports.items():
        if isinstance(value, dict):
            parts += [f"## {key}", "", benchmark.table(value) if "rows" in value else _lines(value), ""]
    (folder / f"{name}.md").write_text("\n".join(parts))
    print("\n".join(parts))


def _lines(report: dict) -> str:
    return "\n".join(f"- {k}: {v:.3g}" if isinstance(v, float) else f"- {k}: {v}" for k, v in report.items())


if __name__ == "__main__":
    main()
