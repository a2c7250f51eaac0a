"""Render & composite: a head and its motion become frames, one at a time and over any background."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image

from ..errors import InputError
from ..gaussians.deformation import HeadDeformer
from ..gaussians.head import GaussianHead
from ..gaussians.light import Relighter
from ..gaussians.opacities import Opacities
from ..portrait.background import person_hole
from ..types import Camera, Motion
from .cpus import available_cpus
from .inpainter import Inpainter, crop_boxes, inpaint
from .rasterizer import choose_backend, render
from .smoothing import SmoothingFilter

Background = Literal["photo", "transparent"] | tuple[float, float, float] | np.ndarray
"""The portrait's own background; nothing; a colour 0..1; or pictures (H, W, 3) or (T, H, W, 3) uint8."""

_Frame = tuple[np.ndarray, np.ndarray]
"""rgb (H, W, 3) and alpha (H, W), uint8."""

MAX_WORKERS = 8
"""Frames in the making at once; each holds some 30 MB of buffers."""

PASTE_FEATHER = 0.03
"""Width of the blend at the border of the pasted crop, in crop sides: hides the small loss of sharpness in it."""


@dataclass(frozen=True)
class _Canvas:
    """Where the head is drawn: a camera, and the picture around it that it is pasted into, if any."""

    camera: Camera
    box: tuple[int, int, int, int] | None = None  # top, bottom, left, right in the photo
    photo: np.ndarray | None = None  # (H, W, 3) uint8
    feather: np.ndarray | None = None  # (h, w, 1) float32, 1 inside the box, 0 at those borders the photo continues


def render_frames(
    head: GaussianHead,
    motion: Motion,
    *,
    camera: Camera | Sequence[Camera] | None = None,
    size: int = 512,
    background: Background = "photo",
    framing: Literal["crop", "paste"] = "crop",
    start: int = 0,
    count: int | None = None,
    backend: str = "auto",
    inpainter: Inpainter | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames rgb (H, W, 3) uint8 and alpha (H, W) uint8 of a driven head, in constant memory.

    Args:
        camera: None for the photo's own; one for all frames, or one per motion frame.
        size: side of the frames in pixels (with `camera` None and framing "crop").
        framing: "crop" shows the square crop around the head; "paste" puts it back into the whole photo.
        start, count: the part of the motion to render, for rendering in pieces.
        inpainter: corrects mouth and eyes in the finished frame.

    Raises:
        InputError: an empty range, a camera with framing "paste", or too few cameras or background pictures.
    """
    stop = len(motion) if count is None else min(start + count, len(motion))
    if not 0 <= start < stop:
        raise InputError(f"no frames to render: start {start}, count {count}, but the motion has {len(motion)} frames")
    if framing == "paste":
        if camera is not None:
            raise InputError("framing 'paste' shows the photo's own view; use framing 'crop' with another camera")
        canvas = _paste_canvas(head)
    else:
        canvas = _Canvas(head.camera.resized(size, size))
    if isinstance(camera, Camera):
        canvas = _Canvas(camera)
    elif camera is not None and len(camera) < stop:
        raise InputError(f"{len(camera)} cameras for {stop} frames of motion; give one camera or one for each frame")
    pictures = _backgrounds(head, canvas, background, camera, stop)
    device, backend = _backend(backend)
    # On the CPU whole frames are the unit of parallel work: no thread ever waits for another inside a frame.
    workers = min(available_cpus(), MAX_WORKERS, stop - start) if backend == "cpu" else 1
    draw = _drawer(head, device, backend, threads=max(available_cpus() // workers, 1))
    deformer, relighter, opacities = HeadDeformer(head), Relighter.of(head), Opacities.of(head)
    own = threading.local()  # each thread's deformer

    def paint(index: int) -> tuple[np.ndarray, np.ndarray]:
        if not hasattr(own, "deformer"):
            own.deformer = deformer.twin()
        view = camera[index] if isinstance(camera, Sequence) else canvas.camera
        means, covars = own.deformer.deform(motion.expression[index], motion.rotation[index], motion.translation[index])
        colors = relighter.colors(motion.expression[index], motion.rotation[index])
        picture = pictures[index] if pictures.ndim == 4 else pictures
        seen = opacities.seen_by(view, motion.expression[index], motion.rotation[index])
        rgb, alpha = draw(means, covars, seen, colors, view, picture)
        if inpainter is not None:
            rgb = inpaint(inpainter, rgb, crop_boxes(head, view, motion.rotation[index], motion.translation[index]))
        return _paste(canvas, rgb, alpha) if canvas.photo is not None else (rgb, alpha)

    yield from _in_order(paint, range(start, stop), workers)


def _in_order(paint: Callable[[int], _Frame], indices: range, workers: int) -> Iterator[_Frame]:
    """paint(index) for all indices, in order, made by `workers` threads that run at most one frame each ahead."""
    if workers == 1:
        yield from map(paint, indices)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="mggtalk-frame") as pool:
        ahead: deque[Future[_Frame]] = deque()
        try:
            for index in indices:
                ahead.append(pool.submit(paint, index))
                if len(ahead) > workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:  # an interrupted caller waits for no more than the frames already begun
            for future in ahead:
                future.cancel()


class LiveRenderer:
    """Single frames of one head on request, as a live view asks for them. Not to be shared between threads."""

    def __init__(self, head: GaussianHead, backend: str = "auto"):
        self._head = head
        self._deformer = HeadDeformer(head)
        self._relighter, self._opacities = Relighter.of(head), Opacities.of(head)
        self._draw = _drawer(head, *_backend(backend), threads=available_cpus())
        self._background = np.empty((0, 0, 3), np.uint8)

    def frame(
        self, expression: np.ndarray, rotation: np.ndarray, translation: np.ndarray, camera: Camera
    ) -> tuple[np.ndarray, np.ndarray]:
        """rgb (H, W, 3) and alpha (H, W) uint8 of one expression (52,) and pose over the portrait's background."""
        if self._background.shape[:2] != (camera.height, camera.width):
            self._background = _cover(self._head.background.numpy(), camera.width, camera.height)
        means, covars = self._deformer.deform(expression, rotation, translation)
        colors = self._relighter.colors(expression, rotation)
        opacities = self._opacities.seen_by(camera, expression, rotation)
        return self._draw(means, covars, opacities, colors, camera, self._background)


def _backend(name: str) -> tuple[torch.device, str]:
    """Where to draw and with which backend."""
    device = torch.device("cuda" if torch.cuda.is_available() and name in ("auto", "gsplat") else "cpu")
    backend = choose_backend(device, name)
    return (device if backend == "gsplat" else torch.device("cpu")), backend


def _drawer(head: GaussianHead, device: torch.device, backend: str, threads: int):
    """A function (means, covars, opacities, colors, camera, background) -> (rgb, alpha) uint8.

    `threads` are the CPU's per frame. It smooths the covariances in place.
    """
    smoothing = SmoothingFilter(head)
    if backend == "cpu":
        from .rasterize_cpu import CpuRenderer

        renderer = CpuRenderer(threads)

        def draw_cpu(means, covars, opacities, colors, camera: Camera, background: np.ndarray):
            smoothing.smooth(means, covars, camera)
            return renderer.render_uint8(
                means, covars, opacities, colors, camera.viewmat, camera.K, camera.width, camera.height, background
            )

        return draw_cpu

    def draw_torch(means, covars, opacities, colors, camera: Camera, background: np.ndarray):
        smoothing.smooth(means, covars, camera)

        def tensor(array):
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        rendered = render(
            tensor(means), None, None, tensor(opacities), tensor(colors), tensor(camera.viewmat), tensor(camera.K),
            camera.width, camera.height, tensor(background).float() / 255, covars=tensor(covars), backend=backend,
        )  # fmt: skip
        rgb = (rendered.rgb.clamp(0, 1) * 255).round().byte().cpu().numpy()
        return rgb, (rendered.alpha.clamp(0, 1) * 255).round().byte().cpu().numpy()

    return draw_torch


def _backgrounds(head: GaussianHead, canvas: _Canvas, background: Background, camera, stop: int) -> np.ndarray:
    """What the head is composited over: (h, w, 3) uint8, or (T, h, w, 3) where it changes."""
    view = camera[0] if isinstance(camera, Sequence) else canvas.camera
    height, width = view.height, view.width
    if isinstance(background, np.ndarray):
        if background.ndim == 4 and len(background) < stop:
            raise InputError(f"{len(background)} background pictures for {stop} frames; give one, or one per frame")
        pictures = background if background.ndim == 4 else background[None]
        fitted = np.stack([_cover(picture, width, height) for picture in pictures])
        return fitted if background.ndim == 4 else fitted[0]
    if background == "transparent":
        return np.zeros((height, width, 3), np.uint8)
    if background == "photo":
        if canvas.photo is not None:
            return _clean_photo(head, canvas)
        return _cover(head.background.numpy(), width, height)
    color = np.round(np.asarray(background, np.float32) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(color, (height, width, 3)))


def _cover(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """A picture (h, w, 3) uint8 scaled and centre-cropped to fill (height, width)."""
    scale = max(width / picture.shape[1], height / picture.shape[0])
    crop_width, crop_height = width / scale, height / scale
    left, top = (picture.shape[1] - crop_width) / 2, (picture.shape[0] - crop_height) / 2
    box = (left, top, left + crop_width, top + crop_height)
    return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC, box=box))


def _paste_canvas(head: GaussianHead) -> _Canvas:
    """The crop's area inside the photo, at the photo's own resolution."""
    photo = head.photo.numpy()
    (scale, _, left), (_, _, top) = head.crop_to_photo.numpy()
    side = scale * head.crop_size
    box = (
        max(0, round(top)), min(photo.shape[0], round(top + side)),
        max(0, round(left)), min(photo.shape[1], round(left + side)),
    )  # fmt: skip
    K = head.K.numpy().copy()
    K[:2] *= scale
    K[0, 2] += left - box[2]
    K[1, 2] += top - box[0]
    height, width = box[1] - box[0], box[3] - box[2]

    def ramp(length: int, begins_at_border: bool, ends_at_border: bool) -> np.ndarray:
        position = (np.arange(length) + 0.5) / (PASTE_FEATHER * side)
        rising = np.ones(length) if begins_at_border else np.clip(position, 0, 1)
        falling = np.ones(length) if ends_at_border else np.clip(position[::-1], 0, 1)
        return np.minimum(rising, falling)

    rows = ramp(height, box[0] == 0, box[1] == photo.shape[0])
    columns = ramp(width, box[2] == 0, box[3] == photo.shape[1])
    feather = np.minimum(rows[:, None], columns[None]).astype(np.float32)[..., None]
    return _Canvas(Camera(head.viewmat.numpy(), K, width, height), box, photo, feather)


def _clean_photo(head: GaussianHead, canvas: _Canvas) -> np.ndarray:
    """The photo inside the box without the person, at the photo's resolution (h, w, 3) uint8."""
    top, bottom, left, right = canvas.box
    (scale, _, crop_left), (_, _, crop_top) = head.crop_to_photo.numpy()
    edges = ((left, crop_left), (top, crop_top), (right, crop_left), (bottom, crop_top))
    area = tuple(float(np.clip((edge - origin) / scale, 0, head.crop_size)) for edge, origin in edges)
    shape = (right - left, bottom - top)
    filled = Image.fromarray(head.background.numpy()).resize(shape, Image.Resampling.BICUBIC, box=area)
    hole = Image.fromarray(person_hole(head.alpha.numpy() / 255)).resize(shape, Image.Resampling.BILINEAR, box=area)
    weight = np.asarray(hole)[..., None]
    photo = canvas.photo[top:bottom, left:right]
    return np.round(photo * (1 - weight) + np.asarray(filled) * weight).clip(0, 255).astype(np.uint8)


def _paste(canvas: _Canvas, rgb: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rendered box in the whole photo, blended at its borders."""
    top, bottom, left, right = canvas.box
    whole = canvas.photo.copy()
    around = whole[top:bottom, left:right]
    whole[top:bottom, left:right] = np.round(around + canvas.feather * (rgb.astype(np.float32) - around))
    whole_alpha = np.zeros(whole.shape[:2], np.uint8)
    whole_alpha[top:bottom, left:right] = alpha
    return whole, whole_alpha
