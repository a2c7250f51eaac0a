"""Gaussians as the files other 3D tools read: .ply (3DGS), .spz (Niantic version 2) and .splat (antimatter15).

All three keep our frame as it is (x right, y down, z forward: what 3DGS viewers and ComfyUI's SPLAT expect), so a
file read back lies where it was. Only .ply is exact; .spz and .splat quantise.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..media.files import atomic_path, require_file
from ..types import Gaussians

SH_C0 = 0.28209479177387814
"""Spherical-harmonic constant of band 0: colour = 0.5 + SH_C0 * coefficient."""

_PLY_FIELDS = (
    *("x", "y", "z", "nx", "ny", "nz"),
    *("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacity",
    *("scale_0", "scale_1", "scale_2"),
    *("rot_0", "rot_1", "rot_2", "rot_3"),
)
_PLY_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4"},
    **{"float": "<f4", "double": "<f8", "float32": "<f4", "float64": "<f8"},
}
_SPZ_MAGIC = 0x5053474E  # "NGSP"
_SPZ_MOST_BYTES = 1 << 28  # 14 million splats: a small gzip file may unpack to any size
_SPZ_FRACTION_BITS = 16  # positions in steps of 15 micrometres, +-128 m: a head needs finer steps than the usual 12
_SPZ_COLOR_SCALE = SH_C0 / 0.15
_SPLAT_RECORD = np.dtype([("xyz", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])


def colors_to_sh(colors: torch.Tensor) -> torch.Tensor:
    """sRGB colours (..., 3) 0..1 as band-0 spherical-harmonic coefficients (..., 3)."""
    return (colors - 0.5) / SH_C0


def sh_to_colors(coefficients: torch.Tensor) -> torch.Tensor:
    """Band-0 spherical-harmonic coefficients (..., 3) as sRGB colours (..., 3) 0..1."""
    return (0.5 + SH_C0 * coefficients).clamp(0, 1)


def encode_splat(gaussians: Gaussians, file_format: str) -> bytes:
    """The Gaussians as the bytes of a "ply", "spz" or "splat" file.

    Raises InputError for another format and for an empty scene.
    """
    if len(gaussians.means) == 0:
        raise InputError("There are no Gaussians to write: the head is empty.")
    return _format(file_format)[0](_as_numpy(gaussians))


def decode_splat(data: bytes, file_format: str) -> Gaussians:
    """Gaussians from the bytes of a "ply", "spz" or "splat" file; of spherical harmonics only band 0 is read.

    Raises InputError when the bytes are not such a file.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # damaged numbers become infinite or NaN, refused below
        fields = _format(file_format)[1](data)
    if len(fields["means"]) == 0:
        raise InputError(f"The .{file_format} file holds no Gaussians; export it again.")
    if any(not np.isfinite(array).all() for array in fields.values()):
        raise InputError(f"The .{file_format} file has NaN or infinite values; export it again.")
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array, np.float32)) for name, array in fields.items()}
    tensors["quats"] = torch.nn.functional.normalize(tensors["quats"], dim=-1)
    return Gaussians(**tensors)


def write_splat_file(gaussians: Gaussians, path: str | os.PathLike) -> None:
    """Write a .ply, .spz or .splat file (by its suffix); the file appears whole or not at all."""
    path = Path(path)
    data = encode_splat(gaussians, path.suffix.lstrip(".").lower())
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def read_splat_file(path: str | os.PathLike) -> Gaussians:
    """Read a .ply, .spz or .splat file (by its suffix).

    Raises InputError when there is no such file or it is damaged.
    """
    path = require_file(path, "splat file")
    return decode_splat(path.read_bytes(), path.suffix.lstrip(".").lower())


def _as_numpy(gaussians: Gaussians) -> dict[str, np.ndarray]:
    """Named float32 arrays of the Gaussians, quaternions of unit length with w >= 0."""
    arrays = {
        name: getattr(gaussians, name).detach().cpu().numpy().astype(np.float32)
        for name in ("means", "quats", "scales", "opacities", "colors")
    }
    quats = arrays["quats"] / np.linalg.norm(arrays["quats"], axis=1, keepdims=True)
    arrays["quats"] = np.where(quats[:, :1] < 0, -quats, quats)
    return arrays


def _encode_ply(arrays: dict[str, np.ndarray]) -> bytes:
    """3DGS' .ply: log scales, logit opacities, band-0 coefficients, quaternions wxyz."""
    opacities = np.clip(arrays["opacities"], 1e-6, 1 - 1e-6)[:, None]
    columns = np.concatenate(
        [
            arrays["means"],
            np.zeros_like(arrays["means"]),  # normals: the format has the fields, nobody reads them
            (arrays["colors"] - 0.5) / SH_C0,
            np.log(opacities / (1 - opacities)),
            np.log(np.maximum(arrays["scales"], 1e-8)),
            arrays["quats"],
        ],
        axis=1,
    )
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(columns)}",
        *(f"property float {field}" for field in _PLY_FIELDS),
        "end_header\n",
    ]
    return "\n".join(header).encode() + columns.astype("<f4").tobytes()


def _decode_ply(data: bytes) -> dict[str, np.ndarray]:
    """Any binary little-endian .ply whose vertices carry 3DGS' fields, in any order and number type."""
    end = data.find(b"end_header\n")
    if not data.startswith(b"ply") or end < 0:
        raise InputError("This is not a .ply file: it has no 'ply' ... 'end_header' header.")
    count, fields, element = 0, [], ""
    for line in data[:end].decode("ascii", "replace").splitlines():
        words = line.split()
        if words[:1] in (["format"], ["element"], ["property"]) and len(words) < 3:
            raise InputError(f"The .ply file's header is damaged at '{line[:60]}'.")
        if words[:1] == ["format"] and words[1] != "binary_little_endian":
            raise InputError(f"The .ply file is '{words[1]}'; save it as binary_little_endian.")
        if words[:1] == ["element"]:
            element = words[1]
            if not words[2].isdecimal():
                raise InputError(f"The .ply file announces '{words[2]}' of '{element}', which is not a count.")
            count = int(words[2]) if element == "vertex" else count
        if words[:1] == ["property"] and element == "vertex":
            if words[1] not in _PLY_TYPES:
                raise InputError(f"The .ply file's vertices have a '{words[1]}' property, which splats don't have.")
            fields.append((words[2], _PLY_TYPES[words[1]]))
    missing = [name for name in _PLY_FIELDS if not name.startswith("n") and name not in dict(fields)]
    if missing or len(dict(fields)) < len(fields):
        what = f"lacks {', '.join(missing)}" if missing else "names a property twice"
        raise InputError(f"The .ply file is not a Gaussian splat: it {what}.")
    layout = np.dtype(fields)
    start = end + len(b"end_header\n")
    if len(data) - start < count * layout.itemsize:
        raise InputError(f"The .ply file is cut short: {count} splats announced, {len(data) - start} bytes there.")
    table = np.frombuffer(data, layout, count, start)
    stack = lambda *names: np.stack([table[name] for name in names], axis=1).astype(np.float32)  # noqa: E731
    return {
        "means": stack("x", "y", "z"),
        "quats": stack("rot_0", "rot_1", "rot_2", "rot_3"),
        "scales": np.exp(stack("scale_0", "scale_1", "scale_2")),
        "opacities": 1 / (1 + np.exp(-table["opacity"].astype(np.float32))),
        "colors": np.clip(0.5 + SH_C0 * stack("f_dc_0", "f_dc_1", "f_dc_2"), 0, 1),
    }


def _encode_spz(arrays: dict[str, np.ndarray]) -> bytes:
    """Niantic's .spz version 2: quantised arrays one after the other, gzip around them."""
    count = len(arrays["means"])
    fixed = np.round(arrays["means"].astype(np.float64) * (1 << _SPZ_FRACTION_BITS)).astype(np.int64)
    words = np.clip(fixed, -(1 << 23), (1 << 23) - 1) & 0xFFFFFF
    positions = np.stack([words & 0xFF, (words >> 8) & 0xFF, words >> 16], axis=-1)
    parts = [
        struct.pack("<IIIBBBB", _SPZ_MAGIC, 2, count, 0, _SPZ_FRACTION_BITS, 0, 0),
        positions.astype(np.uint8).tobytes(),
        _to_bytes(arrays["opacities"] * 255),
        _to_bytes(((arrays["colors"] - 0.5) / _SPZ_COLOR_SCALE + 0.5) * 255),
        _to_bytes((np.log(np.maximum(arrays["scales"], 1e-9)) + 10) * 16),
        _to_bytes((arrays["quats"][:, 1:] + 1) * 127.5),
    ]
    return gzip.compress(b"".join(parts), mtime=0)


def _decode_spz(data: bytes) -> dict[str, np.ndarray]:
    """Version 2 of .spz; spherical harmonics above band 0 are skipped."""
    if data[:2] != b"\x1f\x8b":
        raise InputError("This is not an .spz file: it is not gzip data.")
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            raw = stream.read(_SPZ_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"This .spz file is damaged: {error}.") from None
    if not 16 <= len(raw) <= _SPZ_MOST_BYTES:
        raise InputError(f"This .spz file holds {len(raw)} bytes or more, expected 16 to {_SPZ_MOST_BYTES}.")
    magic, version, count, _, fraction_bits, _, _ = struct.unpack_from("<IIIBBBB", raw)
    if magic != _SPZ_MAGIC or version != 2:
        raise InputError(f"This .spz file can't be read: version {version}, only version 2 is supported.")
    bytes_left = np.frombuffer(raw, np.uint8, offset=16)
    if len(bytes_left) < 19 * count:
        raise InputError(f"The .spz file is cut short: {count} splats announced, {len(bytes_left)} bytes there.")
    sizes = np.cumsum([9 * count, count, 3 * count, 3 * count, 3 * count])
    positions, alphas, colors, scales, rotations = np.split(bytes_left[: sizes[-1]], sizes[:-1])
    words = positions.reshape(-1, 3, 3).astype(np.int64) @ np.array([1, 1 << 8, 1 << 16])
    xyz = rotations.reshape(-1, 3) / 127.5 - 1
    return {
        "means": (words - ((words >> 23) << 24)) / (1 << fraction_bits),
        "quats": np.concatenate([np.sqrt(np.clip(1 - (xyz**2).sum(1, keepdims=True), 0, None)), xyz], axis=1),
        "scales": np.exp(scales.reshape(-1, 3) / 16 - 10),
        "opacities": alphas / 255,
        "colors": np.clip((colors.reshape(-1, 3) / 255 - 0.5) * _SPZ_COLOR_SCALE + 0.5, 0, 1),
    }


def _encode_splat(arrays: dict[str, np.ndarray]) -> bytes:
    """antimatter15's .splat: 32 bytes each, largest and most opaque first as its viewer expects."""
    records = np.empty(len(arrays["means"]), _SPLAT_RECORD)
    records["xyz"] = arrays["means"]
    records["scale"] = arrays["scales"]
    rgba = np.concatenate([arrays["colors"], arrays["opacities"][:, None]], axis=1)
    records["rgba"] = np.clip(np.round(rgba * 255), 0, 255)
    records["quat"] = np.clip(np.round(arrays["quats"] * 128 + 128), 0, 255)
    importance = arrays["scales"].prod(1) * arrays["opacities"]
    return records[np.argsort(-importance, kind="stable")].tobytes()


def _decode_splat(data: bytes) -> dict[str, np.ndarray]:
    """Records of antimatter15's .splat."""
    if not data or len(data) % _SPLAT_RECORD.itemsize:
        raise InputError(f"This is not a .splat file: {len(data)} bytes are not a multiple of 32.")
    records = np.frombuffer(data, _SPLAT_RECORD)
    return {
        "means": records["xyz"],
        "quats": (records["quat"].astype(np.float32) - 128) / 128,
        "scales": records["scale"],
        "opacities": records["rgba"][:, 3] / 255,
        "colors": records["rgba"][:, :3] / 255,
    }


_FORMATS = {
    "ply": (_encode_ply, _decode_ply),
    "spz": (_encode_spz, _decode_spz),
    "splat": (_encode_splat, _decode_splat),
}
SPLAT_FORMATS = tuple(_FORMATS)


def _format(name: str):
    """Encoder and decoder of a file format."""
    if name not in _FORMATS:
        raise InputError(f"'{name}' is not a splat format; use one of {', '.join(SPLAT_FORMATS)}.")
    return _FORMATS[name]


def _to_bytes(values: np.ndarray) -> bytes:
    """Values rounded and clipped to one byte each."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8).tobytes()
