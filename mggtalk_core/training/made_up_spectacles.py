"""Made-up spectacles: their shape around a person's eyes, and their look, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..portrait.spectacles import RIM, TEMPLE

LENS_POINTS, TEMPLE_POINTS, BRIDGE_POINTS = 48, 12, 9

BRIDGE, LEFT_EAR, RIGHT_EAR, PUPILS = 168, 454, 234, (468, 473)
"""Landmarks."""

LENS = 3
"""Part number beside RIM and TEMPLE: lenses, dark or not."""

DARK = 0.6
"""Opacity from which on a lens is dark."""

KINDS, KIND_SHARES = ("full", "half", "browline", "rimless"), (0.57, 0.14, 0.11, 0.18)

COLORS = {
    "black": (0.07, 0.07, 0.08), "brown": (0.22, 0.13, 0.08), "navy": (0.08, 0.1, 0.22), "silver": (0.6, 0.6, 0.62),
    "gold": (0.66, 0.52, 0.3), "gunmetal": (0.25, 0.25, 0.27), "tortoise": (0.36, 0.2, 0.1), "red": (0.6, 0.1, 0.12),
    "clear": (0.8, 0.75, 0.72), "grey": (0.42, 0.42, 0.45),
}  # fmt: skip
COLOR_SHARES = (0.3, 0.13, 0.07, 0.12, 0.1, 0.1, 0.07, 0.03, 0.04, 0.04)

MIRRORING = 0.4
"""Share of dark lenses that mirror what is before them."""


@dataclass(frozen=True)
class Look:
    """How made-up spectacles look; colours (3,) sRGB."""

    color: np.ndarray
    amount: float  # opacity of rims and temples
    mottled: float  # how much their colour varies
    shine: float
    lens: np.ndarray
    tint: float  # opacity of lenses
    mirrors: bool  # whether they show what is before them
    shadow: float


def sample_look(rng: np.random.Generator) -> Look:
    """A colour, a finish and lenses at random; a fifth are sunglasses."""
    name = rng.choice(list(COLORS), p=COLOR_SHARES)
    metal, sunglasses = name in ("silver", "gold", "gunmetal"), rng.random() < 0.2
    return Look(
        color=(np.array(COLORS[name]) * rng.uniform(0.6, 1.3) + rng.normal(0, 0.03, 3)).clip(0, 1),
        amount=rng.uniform(0.35, 0.7) if name == "clear" else rng.uniform(0.8, 1.0),
        mottled=rng.uniform(0.3, 0.8) if name == "tortoise" else rng.uniform(0, 0.3),
        shine=rng.uniform(0.1, 0.7) if metal else rng.uniform(0, 0.5) * (rng.random() < 0.6),
        lens=rng.uniform(0.02, 0.25, 3),
        tint=rng.uniform(0.8, 1.0) if sunglasses else rng.uniform(0, 0.3) * (rng.random() < 0.4),
        mirrors=sunglasses and rng.random() < MIRRORING,
        shadow=rng.uniform(0, 0.35),
    )


@dataclass(frozen=True)
class Shape:
    """A mesh of spectacles in canonical metres."""

    vertices: np.ndarray  # (n, 3)
    faces: np.ndarray  # (m, 3)
    parts: np.ndarray  # (m,) RIM, TEMPLE or LENS
    bare_edges: bool  # whether lenses have edges without a rim


@dataclass
class _Mesh:
    """Ribbons, one after the other."""

    pieces: list[tuple[np.ndarray, np.ndarray, int]] = field(default_factory=list)

    def ribbon(self, first: np.ndarray, second: np.ndarray, part: int, closed: bool = False) -> None:
        """Between two lines (k, 3), or two rings."""
        count = len(first)
        at = np.arange(count if closed else count - 1)
        after = (at + 1) % count
        quads = [np.stack([at, after, at + count], 1), np.stack([after, after + count, at + count], 1)]
        self.pieces.append((np.concatenate([first, second]), np.concatenate(quads), part))

    def shape(self, bare_edges: bool) -> Shape:
        """All of them as one mesh."""
        starts = np.cumsum([0] + [len(points) for points, _, _ in self.pieces])
        return Shape(
            vertices=np.concatenate([points for points, _, _ in self.pieces]),
            faces=np.concatenate([index + start for (_, index, _), start in zip(self.pieces, starts)]),
            parts=np.concatenate([np.full(len(index), part) for _, index, part in self.pieces]),
            bare_edges=bare_edges,
        )


@dataclass(frozen=True)
class _Front:
    """The outline of a lens, its rim, and where lenses are before a face."""

    inner: np.ndarray  # (k, 2) m, outline of a lens about its middle, x outward
    outer: np.ndarray  # (k, 2) m, of its rim
    height: float  # m, of a lens
    thick: float  # m, of the rim
    kind: str
    middle: float  # m, of a lens from the person's middle
    centre: float  # m, of a lens below the eyes
    bridge: np.ndarray  # (3,) m, of the nose
    stand: float  # m, before the bridge
    wrap: float  # 1/m, how it curves to the sides
    tilt: float  # how much farther back it is per metre below the bridge

    def placed(self, points: np.ndarray, side: int) -> np.ndarray:
        """Points (k, 2) of a lens's own plane on one side, 1 or -1, of the face: (k, 3) m."""
        x, y = points[:, 0] + self.middle, points[:, 1] + self.centre
        return np.stack([side * x, y, self.depth(y) + self.wrap * x**2], 1)

    def depth(self, y: np.ndarray) -> np.ndarray:
        """Depth m in the person's middle at heights y m."""
        return self.bridge[2] - self.stand + self.tilt * (y - self.bridge[1])


def sample_shape(rng: np.random.Generator, landmarks: np.ndarray) -> Shape:
    """Spectacles at random for a person with these landmarks (478, 3), canonical metres."""
    front, mesh = _sample_front(rng, landmarks), _Mesh()
    solid = max(front.thick, rng.uniform(0.0008, 0.0018))
    height = min(solid * rng.uniform(0.8, 2.0), 0.009)
    level, reach = rng.uniform(-0.45, 0.05), rng.uniform(0.45, 1.0) if rng.random() < 0.6 else 1.0
    bridge_level, arch = rng.uniform(-0.4, 0.0), rng.uniform(0, 0.004)
    for side, ear in ((1, landmarks[LEFT_EAR]), (-1, landmarks[RIGHT_EAR])):
        if front.kind != "rimless":
            mesh.ribbon(front.placed(front.inner, side), front.placed(front.outer, side), RIM, closed=True)
        hub = np.repeat(front.placed(np.zeros((1, 2)), side), LENS_POINTS, axis=0)
        mesh.ribbon(front.placed(front.inner, side), hub, LENS, closed=True)
        _add_temple(rng, mesh, front, side, ear, height, level, reach)
    ends = np.linspace(-1, 1, BRIDGE_POINTS)
    inner_end = front.middle + front.inner[:, 0].min() + 0.0005
    up = [0, solid * rng.uniform(0.7, 1.6) / 2, 0]
    for lift in (0.0, 0.01)[: 2 if rng.random() < 0.12 else 1]:
        y = front.centre + bridge_level * front.height / 2 - arch * (1 - ends**2) - lift
        line = np.stack([ends * inner_end, y, front.depth(y) - 0.002], 1)
        mesh.ribbon(line - up, line + up, RIM)
    return mesh.shape(bare_edges=front.kind in ("rimless", "half"))


def _sample_front(rng: np.random.Generator, landmarks: np.ndarray) -> _Front:
    """From round to square, lower or wider below, with raised ends or drops; rims of four kinds."""
    pupils = np.abs(landmarks[list(PUPILS), 0]).mean()
    angles = np.linspace(0, 2 * np.pi, LENS_POINTS, endpoint=False)
    middle = pupils + rng.uniform(-0.001, 0.006)
    width = 2 * (middle - rng.uniform(0.007, 0.012))
    height = width * rng.uniform(0.45, 1.05)
    power = 2 / rng.uniform(2, 5)
    x = np.sign(np.cos(angles)) * np.abs(np.cos(angles)) ** power
    y = np.sign(np.sin(angles)) * np.abs(np.sin(angles)) ** power
    x = x * (1 - rng.uniform(-0.05, 0.25) * y)
    y = y - rng.uniform(-0.1, 0.3) * x.clip(0) ** 2 * (y < 0) + rng.uniform(-0.1, 0.2) * x.clip(None, 0) ** 2 * (y > 0)
    centre = rng.uniform(-0.003, 0.009)
    kind = rng.choice(KINDS, p=KIND_SHARES)
    thick = np.exp(rng.uniform(np.log(0.0006), np.log(0.006)))
    rim = np.full(LENS_POINTS, thick)
    if kind == "browline":
        rim *= 1 + rng.uniform(0.5, 3) * (0.5 - 0.5 * y).clip(0, 1) ** 2
    if kind == "half":
        rim *= (0.3 - y).clip(0, 0.5) * 2
    if kind == "rimless":
        rim *= 0.0
    inner = np.stack([width / 2 * x, height / 2 * y], 1)
    outward = inner / np.linalg.norm(inner, axis=1, keepdims=True)
    wrap, tilt, stand = rng.uniform(0.3, 3.5), np.tan(np.radians(rng.uniform(0, 14))), rng.uniform(0.001, 0.007)
    return _Front(
        inner=inner, outer=inner + rim[:, None] * outward, height=height, thick=thick, kind=kind, middle=middle,
        centre=centre, bridge=landmarks[BRIDGE], stand=stand, wrap=wrap, tilt=tilt,
    )  # fmt: skip


def _add_temple(
    rng: np.random.Generator, mesh: _Mesh, front: _Front, side: int, ear: np.ndarray, height: float, level: float,
    reach: float,
) -> None:
    """An end piece and the temple from there to above an ear (3,) m, or a share `reach` of it: hair covers the rest.

    `height` is its own, m; `level` where it begins, in heights of a lens below its middle.
    """  # fmt: skip
    outer, half = front.outer, height / 2
    begin = outer[np.abs(outer[:, 1] / front.height - level + 10 * (outer[:, 0] < 0)).argmin()]
    hinge = front.placed(begin[None] + [rng.uniform(0.001, 0.004), 0], side)[0] + [0, 0, 0.004]
    below, above = (front.placed(begin + [[-0.001, y], [0.003, y]], side) for y in (half, -half))
    mesh.ribbon(below, above, RIM)
    end = np.array([ear[0] + side * rng.uniform(0.0, 0.004), ear[1] - rng.uniform(0.014, 0.026), ear[2] + 0.02])
    line = hinge + (end - hinge) * np.linspace(0, reach, TEMPLE_POINTS)[:, None]
    up, out = np.array([0, half, 0]), np.array([side * 0.0008, 0, 0])
    mesh.ribbon(line - up, line + up, TEMPLE)
    mesh.ribbon(line - out - up, line + out - up, TEMPLE)
