"""Synthetic people: the baked head with MakeHuman's CC0 skins, hair, brows, lashes and teeth, lit and photographed.

Every picture comes with what a real one never has, from any side: exact depth, normals, mask, landmarks, coefficients.
Deferred shading on a supersampled z-buffer; no ray tracing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from ..gaussians.light import sh_basis
from ..geometry.mesh_raster import vertex_normals
from ..geometry.projection import PORTRAIT_FOCAL, project, to_camera
from ..headmodel.arkit import ARKIT_INDEX
from ..headmodel.model import LEFT_EYE, LOWER_TEETH, RIGHT_EYE, SKIN, TONGUE, UPPER_TEETH, HeadModel, load_head_model
from ..media.files import require_output
from ..rendering.kernel_cache import kernel
from ..types import Camera
from .makehuman import Proxy, Wardrobe, load_wardrobe

SUPERSAMPLE = 2
IRIS_ANGLE, PUPIL_ANGLE = 0.52, 0.19
"""Half angles, radians, of iris and pupil seen from the eyeball's centre."""

BALD_SHARE = 0.25
"""So many have no hair: a network that sees few of them gives everybody hair."""

GREY_SHARE, CROWN_SHARE, BEARD_SHARE = 0.25, 0.2, 0.25
"""So many have grey or white hair, lost the hair of the crown, wear stubble or a beard (each drawn by itself)."""

MONOCHROME_SHARE, LUMINANCE = 0.06, np.array([0.299, 0.587, 0.114])
"""So many photos are grey; Rec. 601, as cameras and programs make them so."""

CROP_METRES = 0.37
"""Width of what the camera sees at the head: as wide as the crop of a real portrait."""

IRIS_COLORS = np.array(
    [(0.30, 0.18, 0.09), (0.18, 0.10, 0.05), (0.32, 0.42, 0.50), (0.33, 0.38, 0.26), (0.42, 0.33, 0.18)], np.float32
)
HAIR_TINTS = np.array(
    [(0.9, 0.85, 0.8), (1.5, 1.2, 0.9), (0.5, 0.45, 0.42), (1.3, 0.8, 0.5), (1.6, 1.6, 1.65), (0.75, 0.62, 0.5)],
    np.float32,
)


WHITE_HAIR = np.array([0.62, 0.61, 0.58], np.float32)
"""Linear albedo of hair that has lost its pigment."""


@dataclass(frozen=True)
class Person:
    """Who is photographed; indices into the wardrobe."""

    identity: np.ndarray  # (I,) standard deviations
    skin: str
    skin_gain: np.ndarray  # (3,)
    hair: int  # -1: bald
    hair_tint: np.ndarray  # (3,)
    grey: float  # 0..1, how far hair, brows and lashes have turned white
    crown: float  # radius, m, of the bald crown
    beard: float  # 0..1, how much hair covers jaw and chin
    brow: int
    lash: int
    teeth: int
    iris: np.ndarray  # (3,) sRGB
    cloth: np.ndarray  # (3,) sRGB


@dataclass(frozen=True)
class Light:
    """Distant light in the camera's axes, linear."""

    ambient: np.ndarray  # (9, 3) spherical-harmonic irradiance
    key_direction: np.ndarray  # (3,) unit, towards the light
    key_color: np.ndarray  # (3,)

    def turned(self, rotation: np.ndarray) -> Light:
        """The same light seen from axes turned by `rotation` (3, 3): new = rotation @ old."""
        # Nine normals in general position determine the nine coefficients.
        normals = Rotation.random(32, random_state=0).as_matrix()[:, 0]
        values = sh_basis(normals @ rotation) @ self.ambient
        ambient = np.linalg.lstsq(sh_basis(normals), values, rcond=None)[0]
        return replace(self, ambient=ambient, key_direction=rotation @ self.key_direction)


@dataclass(frozen=True)
class Grade:
    """How a camera and its owner render colours: (picture ** exponent) @ mix, in sRGB."""

    mix: np.ndarray  # (3, 3)
    exponent: float


PLAIN = Grade(np.eye(3), 1.0)


@dataclass(frozen=True)
class SyntheticView:
    """One photograph and its ground truth."""

    image: np.ndarray  # (S, S, 3) float32 0..1 sRGB
    alpha: np.ndarray  # (S, S) float32 0..1
    background: np.ndarray  # (S, S, 3) the same without the person
    depth: np.ndarray  # (S, S) float32 m along the camera's z, NaN off the person
    normals: np.ndarray  # (S, S, 3) float32 camera frame
    on_head: np.ndarray  # (S, S) bool, head model (not hair or clothes)
    landmarks: np.ndarray  # (478, 2) float32 pixels
    camera: Camera  # canonical head frame -> this picture
    expression: np.ndarray  # (52,)


def sample_person(rng: np.random.Generator, wardrobe: Wardrobe, head: HeadModel) -> Person:
    """A random person."""
    identity = rng.normal(size=len(head.identity_basis)).astype(np.float32)
    identity[:20] *= 0.85
    identity[20:] *= 0.6 * (rng.random(len(identity) - 20) < 0.35)
    skin = sorted(wardrobe.skins)[rng.integers(len(wardrobe.skins))]
    return Person(
        identity=identity,
        skin=skin,
        skin_gain=(rng.uniform(0.8, 1.15) * rng.uniform(0.95, 1.05, 3)).astype(np.float32),
        hair=-1 if rng.random() < BALD_SHARE else int(rng.integers(len(wardrobe.hair))),
        hair_tint=HAIR_TINTS[rng.integers(len(HAIR_TINTS))] * rng.uniform(0.7, 1.2),
        grey=float((rng.random() < GREY_SHARE) * rng.uniform(0.4, 1)),
        crown=float((rng.random() < CROWN_SHARE) * rng.uniform(0.05, 0.1)),
        beard=float((rng.random() < BEARD_SHARE) * rng.uniform(0.2, 0.95)),
        brow=int(rng.integers(len(wardrobe.brows))),
        lash=int(rng.integers(len(wardrobe.lashes))),
        teeth=int(rng.integers(len(wardrobe.teeth))),
        iris=IRIS_COLORS[rng.integers(len(IRIS_COLORS))] * rng.uniform(0.7, 1.2),
        cloth=rng.uniform(0.03, 0.8, 3).astype(np.float32),
    )


BEHIND = (0.0, 0.2, 0.4, 0.6)
"""How strong a light from behind is, linear. Without one the hidden side of synthetic heads was a tenth darker than
what real heads show as they turn."""


def sample_light(rng: np.random.Generator) -> Light:
    """Soft light from all around, a key light from the front half and mostly one from behind, on the hair."""
    normals = Rotation.random(64, random_state=int(rng.integers(1 << 31))).as_matrix()[:, 0]
    irradiance = np.full((64, 3), 0.25)
    for _ in range(rng.integers(2, 5)):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        tint = rng.uniform(0.85, 1.15, 3)
        irradiance += rng.uniform(0.1, 0.45) * tint * np.clip(0.5 + 0.5 * normals @ direction, 0, 1)[:, None] ** 2
    behind = np.array([rng.uniform(-1, 1), rng.uniform(-1, 0.2), rng.uniform(0.2, 1)])
    behind /= np.linalg.norm(behind)
    irradiance += rng.choice(BEHIND) * rng.uniform(0.9, 1.1, 3) * np.clip(normals @ behind, 0, 1)[:, None]
    ambient = np.linalg.lstsq(sh_basis(normals), irradiance, rcond=None)[0]
    direction = np.array([rng.uniform(-1.5, 1.5), rng.uniform(-1, 0.2), rng.uniform(-1.5, -0.1)])
    color = rng.uniform(0.0, 0.8) * rng.uniform(0.9, 1.1, 3)
    return Light(ambient, direction / np.linalg.norm(direction), color)


def sample_expression(rng: np.random.Generator) -> np.ndarray:
    """Coefficients (52,): neutral, speech-like or strong; both sides mostly alike."""
    expression = np.zeros(52, np.float32)
    kind = rng.random()
    if kind < 0.2:
        return expression
    names = list(ARKIT_INDEX)
    for name in rng.choice(names, rng.integers(2, 9), replace=False):
        amount = rng.beta(1.2, 2.0) * (1.0 if kind > 0.6 else 0.5)
        expression[ARKIT_INDEX[name]] = amount
        for side, other in (("Left", "Right"), ("Right", "Left")):
            if name.endswith(side) and rng.random() < 0.85 and not name.startswith(("mouthLeft", "mouthRight", "jaw")):
                twin = name.removesuffix(side) + other
                if twin in ARKIT_INDEX and "Look" not in name:
                    expression[ARKIT_INDEX[twin]] = amount
    if rng.random() < 0.6:
        expression[ARKIT_INDEX["jawOpen"]] = rng.beta(1.2, 2.5)
    # Both eyes look the same way.
    gaze_x, gaze_y = rng.normal(0, 0.25, 2)
    for name in names:
        if "Look" in name:
            expression[ARKIT_INDEX[name]] = 0
    outward, inward = ("LookOutLeft", "LookInRight"), ("LookInLeft", "LookOutRight")
    for name in outward if gaze_x > 0 else inward:
        expression[ARKIT_INDEX[f"eye{name}"]] = min(abs(gaze_x), 1)
    for side in ("Left", "Right"):
        expression[ARKIT_INDEX[f"eyeLook{'Up' if gaze_y > 0 else 'Down'}{side}"]] = min(abs(gaze_y), 1)
    expression[ARKIT_INDEX["tongueOut"]] *= rng.random() < 0.2
    return expression.clip(0, 1)


def sample_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A blurred room: smooth noise, a gradient and a few soft boxes, (size, size, 3) sRGB 0..1."""
    base = rng.uniform(0.1, 0.85) + rng.normal(0, 0.08, 3)
    picture = np.broadcast_to(base, (size, size, 3)).copy()
    rows, columns = np.mgrid[:size, :size] / size
    for slope in (rows - 0.5, columns - 0.5):
        picture += (rng.normal(0, 0.15) + rng.normal(0, 0.04, 3)) * slope[..., None]
    for _ in range(rng.integers(0, 6)):
        top, left, height, width = rng.uniform(-0.2, 1, 4) * size
        box = (rows * size > top) & (rows * size < top + height) & (columns * size > left)
        picture[box & (columns * size < left + width)] += rng.normal(0, 0.1) + rng.normal(0, 0.04, 3)
    noise = gaussian_filter(rng.normal(size=(size, size, 3)), (size / 20, size / 20, 0)) * size / 20
    picture = gaussian_filter(picture + 0.05 * noise, (*[rng.uniform(0.5, size / 60)] * 2, 0))
    return np.clip(picture + rng.normal(0, 0.008, picture.shape), 0, 1).astype(np.float32)


def sample_grade(rng: np.random.Generator) -> Grade:
    """Contrast, white balance and saturation of a random photo; some are grey, as old ones are."""
    saturation = 0.0 if rng.random() < MONOCHROME_SHARE else rng.normal(1.0, 0.2)
    grey = np.broadcast_to(LUMINANCE[:, None], (3, 3))
    mix = saturation * np.diag(np.exp(rng.normal(0, 0.06, 3))) + (1 - saturation) * grey
    return Grade(mix * np.exp(rng.normal(0, 0.08)), float(np.exp(rng.normal(0, 0.12))))


def graded(view: SyntheticView, grade: Grade) -> SyntheticView:
    """The view as a photo of that grade, its empty background too."""

    def develop(picture: np.ndarray) -> np.ndarray:
        return (picture**grade.exponent @ grade.mix).clip(0, 1).astype(np.float32)

    return replace(view, image=develop(view.image), background=develop(view.background))


def head_camera(
    yaw: float, pitch: float, size: int, roll: float = 0.0, shift: tuple[float, float] = (0.0, 0.02)
) -> Camera:
    """A portrait camera that sees the head turned by degrees (positive yaw: towards the image's right)."""
    turn = Rotation.from_euler("zxy", [roll, -pitch, -yaw], degrees=True).as_matrix()
    pivot = np.array([0, 0.02, 0.06])  # turn about the middle of the head, so that it stays in the picture
    viewmat = np.eye(4, dtype=np.float32)
    viewmat[:3, :3] = turn
    viewmat[:3, 3] = pivot - turn @ pivot + [-shift[0], -shift[1], PORTRAIT_FOCAL * CROP_METRES]
    K = np.array([[PORTRAIT_FOCAL * size, 0, size / 2], [0, PORTRAIT_FOCAL * size, size / 2], [0, 0, 1]], np.float32)
    return Camera(viewmat, K, size, size)


@dataclass(frozen=True)
class _Mesh:
    """One draw call."""

    vertices: np.ndarray  # (n, 3) canonical
    faces: np.ndarray  # (F, 3)
    corner_uv: np.ndarray | None  # (F, 3, 2), v upwards
    texture: np.ndarray | None  # (H, W, 4) uint8
    double_sided: bool


HEAD, CLOTH, FIRST_PROXY = 0, 1, 2


def photograph(
    person: Person,
    expression: np.ndarray,  # (52,)
    camera: Camera,
    light: Light,
    background: np.ndarray,  # (S, S, 3)
    wardrobe: Wardrobe,
    seed: int = 0,
) -> SyntheticView:
    """Render one person in one expression from one camera."""
    head = load_head_model()
    neutral = head.shape(person.identity, np.zeros(52, np.float32))
    vertices = neutral + np.tensordot(expression, head.expression_basis, 1).astype(np.float32)
    skin = load_texture(wardrobe.skins[person.skin])
    drawn = np.flatnonzero((head.parts != UPPER_TEETH) & (head.parts != LOWER_TEETH))
    skin_uv = wardrobe.skin_map.uv[wardrobe.skin_map.face_uv]
    meshes = [_Mesh(vertices, head.faces[drawn], skin_uv[drawn], None, False), _shoulders(vertices, head)]
    worn = [wardrobe.teeth[person.teeth], wardrobe.brows[person.brow], wardrobe.lashes[person.lash]]
    worn += [wardrobe.hair[person.hair]] if person.hair >= 0 else []
    meshes += [_worn_mesh(proxy, vertices, person.crown if rank == 3 else 0.0) for rank, proxy in enumerate(worn)]

    fine = camera.resized(camera.width * SUPERSAMPLE, camera.height * SUPERSAMPLE)
    size = fine.height
    depth = np.full((size, size), np.inf, np.float32)
    mesh_of = np.full((size, size), -1, np.int32)
    face = np.full((size, size), -1, np.int32)
    barycentric = np.zeros((size, size, 3), np.float32)
    opaque = np.full((1, 1), 255, np.uint8)
    for number, mesh in enumerate(meshes):
        points = project(to_camera(mesh.vertices, camera), fine).astype(np.float32)
        textured = mesh.texture is not None
        _draw(
            points,
            mesh.faces.astype(np.int32),
            mesh.corner_uv.astype(np.float32) if textured else np.zeros((1, 3, 2), np.float32),
            np.ascontiguousarray(mesh.texture[..., 3]) if textured else opaque,
            number, np.uint32(seed), depth, mesh_of, face, barycentric,
        )  # fmt: skip

    color, normals = np.zeros((size, size, 3), np.float32), np.zeros((size, size, 3), np.float32)
    for number, mesh in enumerate(meshes):
        pixels = mesh_of == number
        if not pixels.any():
            continue
        faces, weights = face[pixels], barycentric[pixels]
        normal = _interpolate(vertex_normals(to_camera(mesh.vertices, camera), mesh.faces), mesh.faces[faces], weights)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        if mesh.double_sided:
            normal *= -np.sign(normal[:, 2:] + 1e-9)
        gloss, sharpness = 0.05, 12.0
        if number == HEAD:
            albedo, gloss, sharpness = _head_albedo(
                head, drawn[faces], weights, neutral, vertices, skin, mesh.corner_uv[faces], person
            )
            albedo = _bearded(albedo, head, drawn[faces], weights, person, faces * 7 + np.flatnonzero(pixels))
        elif number == CLOTH:
            albedo, gloss = np.broadcast_to(_to_linear(person.cloth), (len(faces), 3)), 0.0
        else:
            uv = (mesh.corner_uv[faces] * weights[..., None]).sum(1)
            texel = _sample(mesh.texture, uv)[:, :3]
            if number == FIRST_PROXY:
                texel = _without_fillings(texel)
            albedo = _to_linear(texel)
            if number == FIRST_PROXY:  # teeth: the farther behind the lips the darker
                inward = _interpolate(mesh.vertices, mesh.faces[faces], weights)[:, 2] - _lip_depth(vertices, head)
                albedo = albedo * np.exp(-25 * np.clip(inward - 0.004, 0, None))[:, None]
                gloss = 0.15
            elif number > FIRST_PROXY:  # brows, lashes and hair share one colour
                albedo = albedo * person.hair_tint ** (2.2 if number == FIRST_PROXY + 3 else 1.1)
                white = WHITE_HAIR * (0.6 + 0.4 * albedo.mean(1) / (albedo.mean() + 1e-6)).clip(0, 1.3)[:, None]
                albedo = albedo + person.grey * (white - albedo)
        color[pixels] = _shade(albedo, normal, light, gloss, sharpness)
        normals[pixels] = normal
    covered = mesh_of >= 0
    alpha = _downsample(covered[..., None].astype(np.float32))
    rgb = _downsample(np.where(covered[..., None], _to_srgb(color), 0))
    middle = np.s_[SUPERSAMPLE // 2 :: SUPERSAMPLE, SUPERSAMPLE // 2 :: SUPERSAMPLE]
    landmarks = project(to_camera(head.landmarks_of(vertices), camera), camera)[:, :2]
    return SyntheticView(
        image=(rgb + (1 - alpha) * background).astype(np.float32),
        alpha=alpha[..., 0],
        background=background,
        depth=np.where(np.isfinite(depth), depth, np.nan)[middle].astype(np.float32),
        normals=normals[middle],
        on_head=(mesh_of == HEAD)[middle],
        landmarks=landmarks.astype(np.float32),
        camera=camera,
        expression=expression,
    )


@kernel(fastmath=True)
def _draw(points, faces, corner_uv, opacity, number, seed, depth, mesh_of, face, barycentric):
    """Z-buffer one mesh; pixels whose texture is transparent are left to what lies behind.

    Partly transparent texture is kept or dropped at random per pixel (stochastic transparency, Enderton et al. 2010).
    """
    height, width = depth.shape
    texture_height, texture_width = opacity.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0, x1, y1, x2, y2 = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        inverse = 1 / area
        iz0, iz1, iz2 = 1 / points[a, 2], 1 / points[b, 2], 1 / points[c, 2]
        for row in range(max(int(np.floor(min(y0, y1, y2))), 0), min(int(np.ceil(max(y0, y1, y2))), height - 1) + 1):
            y = row + 0.5
            for col in range(max(int(np.floor(min(x0, x1, x2))), 0), min(int(np.ceil(max(x0, x1, x2))), width - 1) + 1):
                x = col + 0.5
                w0 = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) * inverse
                w1 = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) * inverse
                w2 = 1 - w0 - w1
                if w0 < -1e-6 or w1 < -1e-6 or w2 < -1e-6:
                    continue
                z = 1 / (w0 * iz0 + w1 * iz1 + w2 * iz2)
                if z >= depth[row, col]:
                    continue
                b0, b1, b2 = w0 * iz0 * z, w1 * iz1 * z, w2 * iz2 * z
                if opacity.size > 1:
                    u = b0 * corner_uv[f, 0, 0] + b1 * corner_uv[f, 1, 0] + b2 * corner_uv[f, 2, 0]
                    v = b0 * corner_uv[f, 0, 1] + b1 * corner_uv[f, 1, 1] + b2 * corner_uv[f, 2, 1]
                    texel_row = min(max(int((1 - v) * texture_height), 0), texture_height - 1)
                    texel_col = min(max(int(u * texture_width), 0), texture_width - 1)
                    noise = (row * 73856093) ^ (col * 19349663) ^ (f * 83492791) ^ seed
                    if opacity[texel_row, texel_col] <= 24 + noise % 208:
                        continue
                depth[row, col] = z
                mesh_of[row, col] = number
                face[row, col] = f
                barycentric[row, col, 0], barycentric[row, col, 1], barycentric[row, col, 2] = b0, b1, b2


def _worn_mesh(proxy: Proxy, vertices: np.ndarray, crown: float) -> _Mesh:
    """An asset on a head, without its triangles nearer than `crown` metres to the top of the head."""
    fitted = proxy.fit(vertices)
    top = vertices[vertices[:, 1].argmin()]
    kept = np.linalg.norm(fitted[proxy.faces].mean(1) - top, axis=1) >= crown
    return _Mesh(fitted, proxy.faces[kept], proxy.uv[proxy.face_uv[kept]], proxy.texture, True)


def _bearded(albedo, head, faces, weights, person: Person, pixel_seed: np.ndarray) -> np.ndarray:
    """Linear skin albedo (n, 3) with hair on upper lip, jaw and chin, by place on the mean head; lips stay free."""
    if not person.beard:
        return albedo
    place = _interpolate(head.mean, head.faces[faces], weights)
    marks = head.landmarks_of(head.mean)
    nose, upper_lip, lower_lip, chin = (marks[index] for index in (2, 0, 17, 152))
    half_width = 0.5 * np.linalg.norm(marks[61] - marks[291])
    below_nose = np.clip((place[:, 1] - nose[1]) / 0.004, 0, 1)
    above_neck = np.clip((chin[1] + 0.012 - place[:, 1]) / 0.008, 0, 1)
    off_cheek = np.clip((place[:, 1] - nose[1] - 0.02 * (1 - np.abs(place[:, 0]) / 0.06)) / 0.01, 0, 1)
    beside = np.maximum(off_cheek, np.abs(place[:, 0]) < half_width)
    middle = 0.5 * (upper_lip[1] + lower_lip[1])
    height = 0.5 * (lower_lip[1] - upper_lip[1]) + 0.002
    lips = (place[:, 0] / (1.1 * half_width)) ** 2 + ((place[:, 1] - middle) / height) ** 2 < 1
    front = place[:, 2] < 0.5 * (marks[234, 2] + marks[454, 2])
    skin = head.outer_skin[faces] & front & ~lips
    speckle = 0.6 + 0.4 * np.sin(pixel_seed * 12.9898) ** 2
    amount = (person.beard * below_nose * above_neck * beside * skin * speckle)[:, None]
    color = _to_linear(0.16 * person.hair_tint)
    color = color + person.grey * (WHITE_HAIR - color)
    return albedo + amount * (color - albedo)


def _shoulders(vertices: np.ndarray, head: HeadModel) -> _Mesh:
    """Clothes from the neck's cut downwards: the cut's outline, widened in a few rings."""
    rim = _neck_rim()
    rings = [
        (1.0, 1.0, -0.012),
        (1.06, 1.06, 0.0),
        (1.25, 1.12, 0.012),
        (1.9, 1.25, 0.035),
        (2.2, 1.35, 0.07),
        (2.3, 1.4, 0.4),
    ]
    centre = vertices[np.unique(rim)].mean(0)
    layers = []
    for widen_x, widen_z, drop in rings:
        ring = centre + (vertices - centre) * np.array([widen_x, 1, widen_z])
        ring[:, 1] += drop
        layers.append(ring)
    count = len(vertices)
    faces = []
    for level in range(len(rings) - 1):
        upper, lower = rim + level * count, rim + (level + 1) * count
        faces += [np.column_stack([upper, lower[:, 0]]), np.column_stack([upper[:, 1], lower[:, 1], lower[:, 0]])]
    return _Mesh(np.concatenate(layers).astype(np.float32), np.concatenate(faces), None, None, True)


@lru_cache(maxsize=1)
def _neck_rim() -> np.ndarray:
    """Edges (n, 2) where the head model was cut off the body."""
    head = load_head_model()
    skin = head.faces[head.parts == SKIN]
    edges = np.sort(np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]]), axis=1)
    unique, counts = np.unique(edges, axis=0, return_counts=True)
    return unique[(counts == 1) & (head.mean[unique, 1] > 0.13).all(1)]


def _lip_depth(vertices: np.ndarray, head: HeadModel) -> float:
    return float(head.landmarks_of(vertices)[[13, 14], 2].mean())


def _head_albedo(head, faces, weights, neutral, vertices, skin, corner_uv, person):
    """Linear albedo (n, 3), gloss (n,) and its sharpness (n,) of head-model pixels."""
    part = head.parts[faces]
    albedo = _to_linear(_sample(skin, (corner_uv * weights[..., None]).sum(1))[:, :3] * person.skin_gain)
    gloss, sharpness = np.full(len(faces), 0.06), np.full(len(faces), 14.0)
    corners = head.faces[faces]
    behind_lips = _interpolate(vertices, corners, weights)[:, 2] - _lip_depth(vertices, head)
    cavity = head.mouth_interior[faces]
    # No light gets far into the mouth.
    albedo[cavity] *= np.exp(-60 * np.clip(behind_lips[cavity] - 0.004, 0, None))[:, None]
    tongue = part == TONGUE
    albedo[tongue] = _to_linear(np.array([0.72, 0.38, 0.38])) * np.exp(-25 * behind_lips[tongue].clip(0))[:, None]
    gloss[tongue] = 0.2
    for eye in (LEFT_EYE, RIGHT_EYE):
        pixels = part == eye
        if not pixels.any():
            continue
        # Painted on the eyeball at rest, so that the iris turns with it.
        centre = neutral[head.part_vertices(eye)].mean(0)
        direction = _interpolate(neutral, corners[pixels], weights[pixels]) - centre
        angle = np.arccos(np.clip(-direction[:, 2] / (np.linalg.norm(direction, axis=1) + 1e-9), -1, 1))
        spoke = 0.8 + 0.2 * np.sin(np.arctan2(direction[:, 1], direction[:, 0]) * 29)
        white = np.array([0.86, 0.83, 0.80]) - np.array([0.05, 0.18, 0.18]) * np.clip(angle - 0.8, 0, 1)[:, None]
        ring = np.clip((IRIS_ANGLE - angle) / 0.05, 0, 1)[:, None]
        limbus = 1 - 0.6 * np.exp(-(((angle - IRIS_ANGLE) / 0.07) ** 2))[:, None]
        iris = person.iris * spoke[:, None] * limbus
        color = white + ring * (iris - white)
        color = color * (1 - np.clip((PUPIL_ANGLE - angle) / 0.03, 0, 1)[:, None] * 0.97)
        albedo[pixels] = _to_linear(color.clip(0, 1))
        gloss[pixels], sharpness[pixels] = 0.6, 180.0
    return albedo, gloss, sharpness


def _without_fillings(texel: np.ndarray) -> np.ndarray:
    """Tooth texels (n, 3) sRGB: gums as they are, the rest as enamel (the texture has metal teeth)."""
    redness = np.clip((texel[:, :1] - texel[:, 1:2] - 0.08) / 0.15, 0, 1)
    enamel = np.array([0.88, 0.85, 0.78]) * np.clip(texel.max(1, keepdims=True), 0.75, 1)
    return redness * texel + (1 - redness) * enamel


def _shade(albedo, normals, light: Light, gloss, sharpness) -> np.ndarray:
    """Linear colour (n, 3): ambient and key light on a matte surface with a Blinn highlight."""
    irradiance = np.clip(sh_basis(normals) @ light.ambient, 0.02, None)
    facing = np.clip(normals @ light.key_direction, 0, 1)[:, None]
    half = light.key_direction + np.array([0, 0, -1])
    half /= np.linalg.norm(half)
    highlight = (gloss * np.clip(normals @ half, 0, 1) ** sharpness)[:, None] * (facing > 0)
    return albedo * (irradiance + facing * light.key_color) + highlight * light.key_color


def _interpolate(field: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (field[corners] * weights[..., None]).sum(1)


def _sample(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear texture (H, W, C) uint8 at uv (n, 2), v upwards, as float 0..1 (n, C)."""
    height, width = texture.shape[:2]
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1.001)
    y = np.clip((1 - uv[:, 1]) * height - 0.5, 0, height - 1.001)
    column, row = x.astype(int), y.astype(int)
    fx, fy = (x - column)[:, None].astype(np.float32), (y - row)[:, None].astype(np.float32)
    upper = texture[row, column] * (1 - fx) + texture[row, column + 1] * fx
    lower = texture[row + 1, column] * (1 - fx) + texture[row + 1, column + 1] * fx
    return (upper * (1 - fy) + lower * fy) / np.float32(255)


def _downsample(picture: np.ndarray) -> np.ndarray:
    size = picture.shape[0] // SUPERSAMPLE
    return picture.reshape(size, SUPERSAMPLE, size, SUPERSAMPLE, -1).mean((1, 3))


def _to_linear(srgb: np.ndarray) -> np.ndarray:
    return np.clip(srgb, 0, 1) ** 2.2


def _to_srgb(linear: np.ndarray) -> np.ndarray:
    # A soft shoulder instead of clipping, as cameras do.
    compressed = np.where(linear < 0.7, linear, 0.7 + 0.3 * (1 - np.exp(-(linear - 0.7) / 0.3)))
    return np.clip(compressed, 0, 1) ** (1 / 2.2)


@lru_cache(maxsize=8)
def load_texture(path: Path) -> np.ndarray:
    """A skin texture (H, W, 3) uint8."""
    return np.asarray(Image.open(path).convert("RGB"))


def preview_sheet(assets: str, output: str, seed: int = 0) -> dict:
    """`mggtalk train synth --preview`: the contact sheet of `preview` from MakeHuman's asset folder, as a PNG."""
    path = require_output(output, suffixes=(".png",))
    preview(load_wardrobe(Path(assets)), path, seed=seed)
    return {"output": str(path)}


def preview(wardrobe: Wardrobe, path: Path, *, people: int = 6, size: int = 224, seed: int = 0) -> None:
    """A contact sheet: each row one person from several sides and in several expressions, then depth and normals."""
    rng = np.random.default_rng(seed)
    head = load_head_model()
    rows = []
    for _ in range(people):
        person, light, background = sample_person(rng, wardrobe, head), sample_light(rng), sample_background(rng, size)
        row = []
        for yaw in (-60, -25, 0, 25, 60):
            camera = head_camera(yaw, rng.uniform(-12, 12), size)
            view = photograph(person, sample_expression(rng), camera, light, background, wardrobe)
            row.append(view.image)
        near = view.camera.viewmat[2, 3]
        row.append(np.repeat(np.nan_to_num((near + 0.15 - view.depth) / 0.3)[..., None].clip(0, 1), 3, axis=2))
        row.append(np.where(view.on_head[..., None], 0.5 - 0.5 * view.normals, 0))
        rows.append(np.concatenate(row, 1))
    Image.fromarray(np.round(np.concatenate(rows) * 255).astype(np.uint8)).save(path)
