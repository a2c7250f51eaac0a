"""Speed on a graphics card: `python benchmarks/cuda.py [--size 512]` draws the demo portrait there and on the CPU."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mggtalk_core.assets import DEMO_PORTRAIT  # noqa: E402
from mggtalk_core.gaussians.deformation import HeadDeformer  # noqa: E402
from mggtalk_core.gaussians.head import GaussianHead  # noqa: E402
from mggtalk_core.gaussians.light import Relighter  # noqa: E402
from mggtalk_core.media.image import read_photo  # noqa: E402
from mggtalk_core.pipeline import build_head  # noqa: E402
from mggtalk_core.rendering.frames import LiveRenderer, render_frames  # noqa: E402
from mggtalk_core.rendering.rasterizer import render  # noqa: E402
from mggtalk_core.types import Motion  # noqa: E402
from mggtalk_core.weights import load_model  # noqa: E402

FRAMES, ROUNDS, BATCH = 240, 100, 8


def turning(head: GaussianHead, count: int) -> Motion:
    """A head that opens its mouth and turns, `count` frames."""
    expression = np.repeat(head.source_expression.numpy()[None], count, 0)
    expression[:, 17] = 0.3 + 0.3 * np.sin(np.arange(count) / 5)
    rotation = np.zeros((count, 3), np.float32)
    rotation[:, 1] = 0.3 * np.sin(np.arange(count) / 40)
    return Motion(expression.clip(0, 1), rotation, np.zeros((count, 3), np.float32), 25.0)


def frames_per_second(head: GaussianHead, backend: str, size: int) -> float:
    """Of `render_frames`."""
    motion = turning(head, FRAMES)
    for _ in render_frames(head, motion, size=size, backend=backend, count=10):
        pass
    begin = time.perf_counter()
    for _ in render_frames(head, motion, size=size, backend=backend):
        pass
    return FRAMES / (time.perf_counter() - begin)


def milliseconds(work: Callable[[], object]) -> float:
    """Median over many calls, the card's work waited for."""
    times = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - begin))
    return float(np.median(times))


def measure(head: GaussianHead, size: int) -> dict[str, float]:
    """Frames a second and milliseconds, by name."""
    result = {"gaussians": len(head.opacities)}
    for backend in ("gsplat", "cpu"):
        result[f"render_frames, {backend}, frames a second"] = frames_per_second(head, backend, size)
    motion, camera = turning(head, 2), head.camera.resized(size, size)
    pose = motion.expression[1], motion.rotation[1], motion.translation[1]
    deformer, relighter, live = HeadDeformer(head), Relighter.of(head), LiveRenderer(head)
    result["deformation, ms"] = milliseconds(lambda: deformer.deform(*pose))
    result["light, ms"] = milliseconds(lambda: relighter.colors(*pose[:2]))
    result["one frame on request, ms"] = milliseconds(lambda: live.frame(*pose, camera))

    means, covars = (torch.from_numpy(np.array(array)).cuda() for array in deformer.deform(*pose))
    colors = torch.from_numpy(np.array(relighter.colors(*pose[:2]))).cuda()
    opacities = head.opacities.cuda()
    viewmat, K = torch.from_numpy(camera.viewmat).cuda(), torch.from_numpy(camera.K).cuda()

    def draw(means: torch.Tensor, viewmat: torch.Tensor) -> torch.Tensor:
        return render(means, None, None, opacities, colors, viewmat, K, size, size, covars=covars, backend="gsplat").rgb

    views = viewmat.expand(BATCH, 4, 4)
    result["rasterization, ms"] = milliseconds(lambda: draw(means, viewmat))
    result[f"rasterization, {BATCH} views at once, ms each"] = milliseconds(lambda: draw(means, views)) / BATCH
    learned = means.clone().requires_grad_()
    result["forward and backward, ms"] = milliseconds(lambda: draw(learned, viewmat).sum().backward())
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="pixels (%(default)s)")
    size = parser.parse_args().size
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {size} pixels")
    for name, value in measure(build_head(read_photo(DEMO_PORTRAIT), model=load_model(None), size=size), size).items():
        print(f"{name}: {value:.2f}")


if __name__ == "__main__":
    main()
