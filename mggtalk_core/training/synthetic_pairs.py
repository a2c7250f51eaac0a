"""What the networks learn from synthetic people: the prior's view of a picture beside the truth.

A sample is one person seen once. Geo. Refine gets the prior's depth and the true one. The decoders get the points the
prior built from the picture and, for each hidden one, the colour the true person has there, looked up in pictures taken
from other sides under the same light on the head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from scipy.ndimage import gaussian_filter, map_coordinates

from ..gaussians.decoders import hidden_inputs
from ..gaussians.identity_encoder import encoder_input
from ..gaussians.light import surface_normals
from ..gaussians.sgp import VisibleGaussians, predict_visible, prior_hidden_colors
from ..gaussians.turning_tone import as_turned, turned_changes
from ..geometry.dsgr import build_points, estimate_depth
from ..geometry.projection import PORTRAIT_FOCAL, project, to_camera
from ..geometry.refine import REFINE_SIZE, GeoRefineUNet, refine_depth, refine_inputs
from ..headmodel.fitting import camera_of, fit_landmarks, generic_landmark_model
from ..headmodel.model import load_head_model
from ..headmodel.warp import warp_to_landmarks
from ..media.files import atomic_path
from ..model import MGGTalkModel
from ..portrait.background import already
from ..portrait.parsing import refine_edges
from ..types import Camera, DepthMap, PointCloud, Portrait, is_hidden
from .makehuman import Wardrobe, load_wardrobe
from .synthetic import (
    PLAIN,
    Grade,
    Light,
    Person,
    SyntheticView,
    graded,
    head_camera,
    photograph,
    sample_background,
    sample_expression,
    sample_grade,
    sample_light,
    sample_person,
)

LANDMARK_NOISE = 0.008
"""Standard deviation of the simulated tracker, inter-ocular distances."""

MASK_BLUR, MASK_WAVES = (1.5, 2.7), 1 / 25
"""The simulated segmenter's blur, pixels of 256, and how long its edge's errors are, crop sides. Refined, its mask is
as far from the truth as a real one (tools/measure_edges.py: .013 to .02 at 192 and 256 pixels)."""

WITNESS_VIEWS = (
    (-70, 0), (-35, -15), (35, -15), (70, 0), (-40, 25), (40, 25), (0, 30), (-115, 10), (115, 10), (180, 15),
)  # fmt: skip
"""Yaw and pitch, degrees from the source, of the pictures that show what the source hides."""

SURFACE_TOLERANCE = 0.006
"""A point shows what a picture has there if it is that near, metres, to the surface the picture sees."""

FLOATING = 0.012
"""A point that far in front of what a picture sees there hangs in the air."""

WITNESSES = 6
"""Of these, so many are taken for one sample."""

KEPT_POINTS = 5000


@dataclass(frozen=True)
class Scene:
    """A synthetic person, photographed, and what the pipeline makes of the photograph."""

    person: Person
    expression: np.ndarray
    light: Light  # in the source camera's axes
    grade: Grade
    view: SyntheticView
    portrait: Portrait


def make_scene(rng: np.random.Generator, wardrobe: Wardrobe, size: int, grade: Grade = PLAIN) -> Scene:
    """A random person from a random side up to 30 degrees."""
    head = load_head_model()
    person, light = sample_person(rng, wardrobe, head), sample_light(rng)
    expression, background = sample_expression(rng), sample_background(rng, size)
    if rng.random() < 0.5:
        expression = expression * rng.uniform(0, 0.5)  # photos are mostly near neutral
    camera = head_camera(
        rng.normal(0, 13), rng.normal(0, 7), size, roll=rng.normal(0, 4),
        shift=(rng.normal(0, 0.012), 0.01 + rng.normal(0, 0.012)),
    )  # fmt: skip
    view = photograph(person, expression, camera, light, background, wardrobe, seed=int(rng.integers(1 << 30)))
    view = graded(view, grade)
    return Scene(person, expression, light, grade, view, simulated_portrait(view, rng))


def simulated_portrait(view: SyntheticView, rng: np.random.Generator) -> Portrait:
    """What portrait analysis finds in a synthetic picture: landmarks a little wrong, a mask as wrong as a real one."""
    head = load_head_model()
    size = len(view.image)
    K = np.array([[PORTRAIT_FOCAL * size, 0, size / 2], [0, PORTRAIT_FOCAL * size, size / 2], [0, 0, 1]], np.float32)
    ocular = np.linalg.norm(view.landmarks[468] - view.landmarks[473])
    landmarks = view.landmarks + rng.normal(0, LANDMARK_NOISE * ocular, view.landmarks.shape)
    landmarks += rng.normal(0, 0.4 * LANDMARK_NOISE * ocular, 2)
    scores = np.clip(view.expression + rng.normal(0, 0.1, 52) * (rng.random(52) < 0.5), 0, 1)
    fit = fit_landmarks(landmarks, scores, generic_landmark_model(head), K)
    return Portrait(
        image=view.image,
        photo=view.image,
        crop_to_photo=np.array([[1.0, 0, 0], [0, 1.0, 0]]),
        alpha=refine_edges(view.image, segmented(view.alpha, rng)),
        filling=already(view.background),
        landmarks=landmarks.astype(np.float32),
        scores=scores.astype(np.float32),
        fit=fit,
        vertices=warp_to_landmarks(head, head.shape(fit.identity, fit.expression), fit, landmarks, K),
        camera=camera_of(fit, K, size),
    )


def segmented(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a segmenter makes of a person whose true mask is `alpha` (S, S): blurred, its edge displaced in waves."""
    size = len(alpha)
    blur = rng.uniform(*MASK_BLUR)
    waves = gaussian_filter(rng.normal(size=(2, size, size)), (0, MASK_WAVES * size, MASK_WAVES * size))
    where = np.indices(alpha.shape) + waves * ((blur - 1) * size / 256 / waves.std())
    return map_coordinates(gaussian_filter(alpha, blur * size / 256), where, order=1, mode="nearest").astype(np.float32)


def witness(
    scene: Scene, wardrobe: Wardrobe, yaw: float, pitch: float, size: int, scale: float
) -> tuple[SyntheticView, Camera]:
    """The same person from a side, lit as in the source, and that camera in the *fitted* canonical frame.

    The source camera is what true and fitted frame have in common, up to `scale`: a photo does not tell distance. The
    camera of the fitted frame carries that scale, so its depths are the true ones.
    """
    source = scene.view.camera
    turn = head_camera(yaw, pitch, size)
    camera = Camera(turn.viewmat.copy(), turn.K, size, size)
    light = scene.light.turned(camera.viewmat[:3, :3] @ source.viewmat[:3, :3].T)
    blank = np.zeros((size, size, 3), np.float32)
    view = graded(photograph(scene.person, scene.expression, camera, light, blank, wardrobe, seed=1), scene.grade)
    to_fitted = np.linalg.inv(source.viewmat) @ np.diag([scale, scale, scale, 1]) @ scene.portrait.camera.viewmat
    return view, Camera((camera.viewmat @ to_fitted).astype(np.float32), turn.K, size, size)


def true_colors(
    points: PointCloud,
    hidden: np.ndarray,
    normals: np.ndarray,
    scene: Scene,
    wardrobe: Wardrobe,
    scale: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the hidden points (n,) should look like: colours (n, 3), weights (n,), and which hang in the air (n,)."""
    size = len(scene.portrait.image)
    positions = points.positions[hidden]
    colors, weights, floating = np.zeros((len(hidden), 3)), np.zeros(len(hidden)), np.zeros(len(hidden))
    for number in rng.permutation(len(WITNESS_VIEWS))[:WITNESSES]:
        yaw, pitch = WITNESS_VIEWS[number]
        view, camera = witness(scene, wardrobe, yaw, pitch, size, scale)
        pixels = project(to_camera(positions, camera), camera)
        inside = ((pixels[:, :2] > 1) & (pixels[:, :2] < size - 1)).all(1)
        coordinates = np.where(inside[:, None], pixels[:, :2], 1.0)[:, ::-1].T - 0.5
        seen_depth = view.depth[tuple(np.round(coordinates).astype(int))]
        gap = np.where(np.isnan(seen_depth), np.inf, seen_depth - pixels[:, 2])  # > 0: in front of the surface
        facing = np.clip(-(normals[hidden] @ camera.viewmat[:3, :3].T)[:, 2] / scale, 0, 1)
        weight = inside * np.exp(-((np.clip(gap, -1, 1) / SURFACE_TOLERANCE) ** 2)) * facing
        picture = np.stack([map_coordinates(view.image[..., c], coordinates, order=1) for c in range(3)], -1)
        colors += picture * weight[:, None]
        weights += weight
        floating = np.maximum(floating, inside * (gap > FLOATING))
    return colors / np.maximum(weights, 1e-6)[:, None], weights, floating


@dataclass(frozen=True)
class PhotoOfSomeone:
    """A graded photograph of the synthetic person of a seed, and the prior's depth beside the true one."""

    scene: Scene
    depth_map: DepthMap
    known: np.ndarray  # (S, S) bool, pixels of the person that have both depths
    scale: float  # true depth / prior's: a photo can't tell distance, what matters is shape

    @staticmethod
    def taken(rng: np.random.Generator, wardrobe: Wardrobe, size: int) -> PhotoOfSomeone:
        """With everything about it drawn from `rng`."""
        scene = make_scene(rng, wardrobe, size, sample_grade(rng))
        depth_map, true = estimate_depth(scene.portrait), scene.view.depth
        known = np.isfinite(depth_map.depth) & np.isfinite(true) & (scene.portrait.alpha > 0.5)
        return PhotoOfSomeone(
            scene, depth_map, known, float(np.median((true / depth_map.depth)[known & depth_map.on_head]))
        )


def make_depth_sample(seed: int, wardrobe: Wardrobe, size: int = 192) -> dict[str, np.ndarray]:
    """What Geo. Refine learns from one person: its inputs, the prior's error in metres, and where it is known."""
    photo = PhotoOfSomeone.taken(np.random.default_rng(seed), wardrobe, size)
    scene, depth_map, known = photo.scene, photo.depth_map, photo.known
    error = np.where(known, scene.view.depth / photo.scale - depth_map.depth, 0)
    shrink = lambda layer: torch.nn.functional.interpolate(  # noqa: E731
        torch.from_numpy(layer.astype(np.float32))[None, None], (REFINE_SIZE, REFINE_SIZE), mode="area"
    )[0, 0].numpy()
    trusted = shrink(known)
    return {
        "refine_inputs": refine_inputs(scene.portrait, depth_map)[0].numpy().astype(np.float16),
        "depth_error": (shrink(error) / np.maximum(trusted, 1e-3)).astype(np.float16),
        "depth_known": trusted > 0.6,
        "depth_on_head": shrink(depth_map.on_head & known) > 0.6,
    }


def make_color_sample(
    seed: int, wardrobe: Wardrobe, refine: GeoRefineUNet | None, size: int = 192
) -> dict[str, np.ndarray]:
    """What the decoders learn from one person: hidden points, on depth that `refine` corrects, and their colours."""
    rng = np.random.default_rng(seed)
    photo = PhotoOfSomeone.taken(rng, wardrobe, size)
    head, depth_map, portrait = load_head_model(), photo.depth_map, photo.scene.portrait
    if refine:
        depth_map = refine_depth(refine, portrait, depth_map)
    visible: VisibleGaussians = predict_visible(MGGTalkModel(), build_points(portrait, depth_map))
    points = prior_hidden_colors(as_turned(visible.points, turned_changes(visible.points, head)))
    normals = surface_normals(points, head)
    hidden = np.flatnonzero(is_hidden(points) & head.outer_skin[points.faces])
    hidden = rng.choice(hidden, KEPT_POINTS, replace=False)
    inputs = hidden_inputs(points, hidden, normals, head)
    colors, weights, floating = true_colors(points, hidden, normals, photo.scene, wardrobe, photo.scale, rng)
    encoder = encoder_input(
        torch.from_numpy(points.portrait.image), torch.from_numpy(portrait.alpha), torch.from_numpy(depth_map.normals)
    )
    return {
        "head_map": inputs.head_map[0].numpy().astype(np.float16),
        "encoder_inputs": encoder[0].numpy().astype(np.float16),
        "features": inputs.features.numpy().astype(np.float16),
        "pixels": (inputs.pixels.numpy() / size).astype(np.float16),
        "directions": inputs.directions.numpy(),
        "prior_colors": points.colors[hidden].astype(np.float16),
        "true_colors": colors.astype(np.float16),
        "color_weights": weights.clip(0, 2).astype(np.float16),
        "floating": floating.astype(np.float16),
        "origin": points.origin[hidden],
    }


def make_samples(
    maker: Callable[..., dict[str, np.ndarray]], assets: Path | None, folder: Path, seeds: range, workers: int
) -> None:
    """Write the samples of these seeds that do not exist yet, one file each, by so many processes.

    `maker` is called with a seed and, if there are MakeHuman's `assets`, their `wardrobe`; it must be known to other
    processes by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in seeds if not _sample_path(folder, seed).exists()]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        parts = [missing[first::workers] for first in range(workers)]
        for done in [pool.submit(_write_samples, maker, assets, folder, part) for part in parts if part]:
            done.result()


def _sample_path(folder: Path, seed: int) -> Path:
    return folder / f"sample_{seed:06d}.safetensors"


def _write_samples(maker: Callable, assets: Path | None, folder: Path, seeds: list[int]) -> None:
    torch.set_num_threads(1)  # the processes share the CPUs
    if assets is not None:
        maker = functools.partial(maker, wardrobe=load_wardrobe(assets))
    for seed in seeds:
        with atomic_path(_sample_path(folder, seed)) as partial:
            save_file({name: np.ascontiguousarray(array) for name, array in maker(seed).items()}, partial)


def read_sample(path: Path) -> dict[str, np.ndarray]:
    """A sample written by `make_samples`."""
    return load_file(path)
