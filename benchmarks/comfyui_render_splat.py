"""Times ComfyUI's own Render Splat node on a scene: `python comfyui_render_splat.py COMFYUI_FOLDER scene.npz`.

Runs in ComfyUI's Python, on the CPU. Prints JSON.
"""

import json
import os
import sys
import time

folder, scene = sys.argv[1:3]
sys.argv = [sys.argv[0]]  # ComfyUI reads the command line
scene = os.path.abspath(scene)
os.chdir(folder)
sys.path.insert(0, folder)

import numpy as np  # noqa: E402
from comfy.cli_args import args  # noqa: E402

args.cpu = True

import torch  # noqa: E402
from comfy_extras import nodes_gaussian_splat  # noqa: E402
from comfyui_version import __version__  # noqa: E402

torch.set_num_threads(1)
data = np.load(scene)
means, colors, opacities, scales, quats = [
    torch.from_numpy(data[name]) for name in ("means", "colors", "opacities", "scales", "quats")
]
quats = torch.nn.functional.normalize(quats, dim=-1)
size = int(data["size"])
x, y, z = (float(v) for v in data["eye"])
# three.js world: y up, z toward the viewer; 2 atan(1/4) is the benchmark camera's field of view
camera = {
    "position": {"x": x, "y": -y, "z": -z},
    "target": {"x": 0.0, "y": 0.0, "z": -4.0},
    "fov": 28.0724869,
    "zoom": 1.0,
}
times = []
for _ in range(4):
    begin = time.process_time()
    with torch.no_grad():
        image, mask = nodes_gaussian_splat._render_gaussian(
            means, colors, opacities, scales, quats, size, size, 1.0, (0.0, 0.0, 0.0), camera
        )
    times.append((time.process_time() - begin) * 1e3)
covered = float((mask > 0.5).float().mean())
print(json.dumps({"ComfyUI": __version__, "CPU ms": min(times), "covered": covered}))
