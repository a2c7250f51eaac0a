"""Hostile files: what a careless or unkind world hands to a program that opens files.

`cases(folder, count, seed)` writes them one by one. Half are made by hand to hit one weakness each, the rest are good
files damaged at random; the seed makes a failure repeatable.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save

from mggtalk_core.gaussians import head as head_format
from mggtalk_core.gaussians.splat_io import encode_splat
from mggtalk_core.headmodel.arkit import ARKIT_NAMES
from mggtalk_core.types import Gaussians


@dataclass(frozen=True)
class Case:
    """One hostile file and the door it is shown to."""

    door: str  # photo | audio | video | csv | head | splat | checkpoint | value | array
    name: str  # what is wrong with it
    path: object  # a file or its name; for the last two doors the value itself


def _picture(size: int = 64) -> Image.Image:
    y, x = np.mgrid[:size, :size]
    return Image.fromarray(np.stack([x * 3 % 256, y * 3 % 256, (x + y) % 256], -1).astype(np.uint8))


def _encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def wav(samples: np.ndarray, rate: int = 16_000, channels: int = 1, bits: int = 16, kind: int = 1,
        data_size: int | None = None) -> bytes:  # fmt: skip
    """A RIFF/WAVE file whose header may lie."""
    data = samples.tobytes()
    size = len(data) if data_size is None else data_size
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels & 0xFFFF, rate & 0xFFFFFFFF, (rate * block) & 0xFFFFFFFF,
                       block & 0xFFFF, bits)  # fmt: skip
    return (b"RIFF" + struct.pack("<I", (36 + size) & 0xFFFFFFFF) + b"WAVEfmt " + struct.pack("<I", 16) + form
            + b"data" + struct.pack("<I", size & 0xFFFFFFFF) + data)  # fmt: skip


def video(suffix: str, times: list[int], size: int = 64, sound: bool = True) -> bytes:
    """A short real video with frames at `times` (ms)."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format={"mp4": "mp4", "mkv": "matroska"}[suffix]) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        track = container.add_stream("aac", rate=16_000) if sound else None
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((size, size, 3), 20 * index % 255, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 16_000
            container.mux(track.encode(silence))
            container.mux(track.encode(None))
    return buffer.getvalue()


def sound(codec: str, suffix: str, rate: int = 16_000) -> bytes:
    """Half a second of noise in a container."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, (1, rate // 2)).astype(np.float32)
    with av.open(buffer, "w", format=suffix) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        frame.sample_rate = rate
        for part in av.AudioResampler(format=stream.format, layout="mono", rate=rate).resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def csv_text(rows: int = 5, cell: str = "0.1", names: tuple[str, ...] = ARKIT_NAMES) -> str:
    """A Live Link Face file."""
    lines = [",".join(["Timecode", "BlendShapeCount", *names, "HeadYaw", "HeadPitch", "HeadRoll"])]
    for index in range(rows):
        lines.append(",".join([f"00:00:00:{index:02d}.000", "61", *[cell] * len(names), "0", "0", "0"]))
    return "\n".join(lines) + "\n"


def _gaussians(count: int = 20) -> Gaussians:
    generator = torch.Generator().manual_seed(0)
    return Gaussians(
        torch.rand(count, 3, generator=generator), torch.nn.functional.normalize(torch.ones(count, 4), dim=1),
        torch.full((count, 3), 0.01), torch.full((count,), 0.9), torch.rand(count, 3, generator=generator),
    )  # fmt: skip


def head_tensors() -> dict[str, np.ndarray]:
    """Tensors of a tiny saved head, of the shapes the current format has."""
    sizes = {"N": 12, "V": 8, "F": 6, "S": 32, "H": 40, "W": 48, "E": 52}
    return {
        name: np.zeros([sizes.get(size) or int(size) for size in shape], kind)
        for name, (kind, shape) in head_format._LAYOUT.items()
    }


HEAD_METADATA = {"format": "mggtalk-head", "version": str(head_format.FORMAT_VERSION), "warnings": "[]"}


def _safetensors(header: dict | bytes, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", (len(text) if length is None else length) & (2**64 - 1)) + text + body


def _png(width: int, height: int, chunks: list[tuple[bytes, bytes]]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*part) for part in chunks) + chunk(b"IEND", b"")


def good_files() -> dict[str, list[tuple[str, bytes]]]:
    """door -> (suffix, bytes) of files that are fine: the raw material of random damage."""
    picture, times = _picture(), [0, 40, 80, 120, 160]
    return {
        "photo": [
            ("png", _encoded(picture, "PNG")), ("jpg", _encoded(picture, "JPEG")), ("webp", _encoded(picture, "WEBP")),
            ("tif", _encoded(picture, "TIFF", compression="tiff_lzw")), ("bmp", _encoded(picture, "BMP")),
            ("gif", _encoded(picture.quantize(16), "GIF")), ("ppm", _encoded(picture, "PPM")),
        ],
        "audio": [
            ("wav", wav(np.arange(8000, dtype=np.int16))), ("mp3", sound("libmp3lame", "mp3")),
            ("flac", sound("flac", "flac")), ("ogg", sound("libopus", "ogg", 48_000)), ("mp4", video("mp4", times)),
        ],
        "video": [
            ("mp4", video("mp4", times)), ("mkv", video("mkv", times)), ("mp4", video("mp4", times, sound=False)),
        ],
        "csv": [("csv", csv_text().encode())],
        "head": [("safetensors", save(head_tensors(), HEAD_METADATA))],
        "splat": [(kind, encode_splat(_gaussians(), kind)) for kind in ("ply", "spz", "splat")],
        "checkpoint": [("safetensors", save({"a": np.zeros(9, np.float32)}, {"format": "mggtalk"}))],
    }  # fmt: skip


def handmade() -> Iterator[tuple[str, str, str, bytes]]:
    """(door, what is wrong, suffix, bytes): one weakness each."""
    picture = _picture()
    huge = zlib.compress(b"\0" * (1 << 24), 9)
    for door, suffixes in (("photo", ("png", "jpg", "gif")), ("audio", ("wav", "mp3", "flac")), ("video", ("mp4",)),
                           ("csv", ("csv",)), ("head", ("safetensors",)), ("splat", ("ply", "spz", "splat")),
                           ("checkpoint", ("safetensors",))):  # fmt: skip
        for suffix in suffixes:
            yield door, "empty", suffix, b""
            yield door, "one byte", suffix, b"\0"
            yield door, "text", suffix, b"hello, this is not what you think\n" * 9
            yield door, "zeros", suffix, bytes(4096)
            yield door, "html", suffix, b"<!doctype html><html><body>404 Not Found</body></html>"
            yield door, "a zip", suffix, b"PK\x03\x04" + bytes(64)
            yield door, "a pickle", suffix, b"\x80\x04cos\nsystem\n(S'echo owned > owned'\ntR."
    # playlists and references: FFmpeg would open what they name
    for door in ("audio", "video"):
        for suffix in ("m3u8", "mp4", "wav", "txt"):
            yield door, "playlist", suffix, b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
            yield door, "concat list", suffix, b"ffconcat version 1.0\nfile '/etc/passwd'\n"
            yield door, "remote", suffix, b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"
    # photos
    yield "photo", "bomb", "png", _png(60_000, 60_000, [(b"IDAT", huge)])
    yield "photo", "largest sizes", "png", _png(2**31 - 1, 2**31 - 1, [(b"IDAT", huge)])
    yield "photo", "zero size", "png", _png(0, 0, [(b"IDAT", zlib.compress(b""))])
    yield "photo", "no pixels", "png", _png(64, 64, [])
    yield "photo", "few pixels", "png", _png(64, 64, [(b"IDAT", zlib.compress(b"\0" * 99))])
    yield "photo", "text bomb", "png", _png(64, 64, [(b"zTXt", b"k\0\0" + zlib.compress(b"A" * (1 << 26), 9)),
                                                     (b"IDAT", zlib.compress(b"\0" * 64 * 193))])  # fmt: skip
    yield "photo", "profile bomb", "png", _png(64, 64, [(b"iCCP", b"p\0\0" + zlib.compress(b"A" * (1 << 26), 9)),
                                                        (b"IDAT", zlib.compress(b"\0" * 64 * 193))])  # fmt: skip
    yield "photo", "1x1", "png", _encoded(Image.new("RGB", (1, 1)), "PNG")
    yield "photo", "1x9999", "png", _encoded(Image.new("RGB", (1, 9999)), "PNG")
    yield "photo", "NaN", "tif", _encoded(Image.fromarray(np.full((64, 64), np.nan, np.float32)), "TIFF")
    yield "photo", "infinite", "tif", _encoded(Image.fromarray(np.full((64, 64), np.inf, np.float32)), "TIFF")
    yield "photo", "PostScript", "png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(x) print\nshowpage\n"
    yield "photo", "SVG", "png", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    sizes = struct.pack("<ii", 2**31 - 1, -(2**31))
    yield "photo", "huge BMP", "bmp", _encoded(picture, "BMP")[:18] + sizes + bytes(99)
    yield "photo", "broken profile", "jpg", _encoded(picture, "JPEG", icc_profile=b"\0" * 200)
    yield "photo", "broken EXIF", "jpg", _encoded(picture, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(30))
    yield "photo", "many frames", "gif", _encoded(
        picture.quantize(4), "GIF", save_all=True, append_images=[picture.quantize(4)] * 200)  # fmt: skip
    # sound
    tone = np.arange(4000, dtype=np.int16)
    for rate in (0, 1, 7, 3999, 384_001, 2**31 - 1, 2**32 - 1):
        yield "audio", f"rate {rate}", "wav", wav(tone, rate)
    for channels in (0, 33, 255, 65_535):
        yield "audio", f"{channels} channels", "wav", wav(tone, 16_000, channels)
    for bits in (0, 1, 7, 13, 64, 65_528):
        yield "audio", f"{bits} bits", "wav", wav(tone, bits=bits)
    for size in (0, 1, 2**31, 2**32 - 1):
        yield "audio", f"data size {size}", "wav", wav(tone, data_size=size)
    yield "audio", "no samples", "wav", wav(tone[:0])
    yield "audio", "one sample", "wav", wav(tone[:1])
    yield "audio", "NaN", "wav", wav(np.full(4000, np.nan, np.float32), bits=32, kind=3)
    yield "audio", "infinite", "wav", wav(np.full(4000, np.inf, np.float32), bits=32, kind=3)
    yield "audio", "huge values", "wav", wav(np.full(4000, 3e38, np.float32), bits=32, kind=3)
    yield "audio", "unknown codec", "wav", wav(tone, kind=0x7777)
    title = b"INFOINAM" + struct.pack("<I", 6) + b"caf\xe9\xff\0"
    yield "audio", "tag not UTF-8", "wav", wav(tone) + b"LIST" + struct.pack("<I", len(title)) + title
    yield "audio", "a photo", "wav", _encoded(picture, "JPEG")
    yield "audio", "video without sound", "mp4", video("mp4", [0, 40], sound=False)
    yield "audio", "tag only", "mp3", b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(99)
    # video
    yield "video", "only sound", "mp4", sound("aac", "mp4")
    yield "video", "only sound", "wav", wav(tone)
    yield "video", "a photo", "mp4", _encoded(picture, "PNG")
    yield "video", "uneven times", "mp4", video("mp4", [0, 1, 2, 900, 4000, 4001])
    yield "video", "one frame", "mp4", video("mp4", [0])
    yield "video", "16x16", "mp4", video("mp4", [0, 40], size=16)
    yield "video", "header only", "mp4", video("mp4", [0, 40])[:40]
    # motion
    for cell in ("nan", "inf", "-inf", "1e999", "", "=1+1", "0x10", "ten", "1,5", "\0", "9" * 400, "__import__('os')"):
        yield "csv", f"cell {cell[:12]!r}", "csv", csv_text(cell=cell).encode()
    yield "csv", "no frames", "csv", csv_text(0).encode()
    yield "csv", "one frame", "csv", csv_text(1).encode()
    yield "csv", "short rows", "csv", "\n".join(line[:60] for line in csv_text().splitlines()).encode()
    yield "csv", "no known column", "csv", csv_text(names=("a", "b")).encode()
    yield "csv", "not UTF-8", "csv", b"\xff\xfe" + csv_text().encode("utf-16-le")
    yield "csv", "only commas", "csv", b",,,,\n,,,,\n"
    yield "csv", "one endless cell", "csv", b"Timecode,JawOpen\n" + b'"' + b"a" * 300_000
    for code in ("", "x", "99:99:99:99", "00:00:00", "-1:0:0:0", "nan:0:0:0", "00:00:00:1e30", "00:00:00:00.000"):
        text = csv_text().splitlines()
        yield "csv", f"time code {code!r}", "csv", "\n".join(
            [text[0]] + [code + line[line.index(",") :] for line in text[1:]]).encode()  # fmt: skip
    far = csv_text(3).replace("00:00:00:02", "99:59:59:02")
    yield "csv", "a gap of four days", "csv", far.encode()
    # splats
    for count in (0, -1, 21, 2**31, 2**63):
        data = encode_splat(_gaussians(), "ply")
        yield "splat", f"{count} announced", "ply", data.replace(b"vertex 20", b"vertex %d" % count)
    ply = encode_splat(_gaussians(), "ply")
    yield "splat", "ascii", "ply", ply.replace(b"binary_little_endian", b"ascii")
    yield "splat", "list property", "ply", ply.replace(b"property float x", b"property list uchar int x")
    yield "splat", "word for a count", "ply", ply.replace(b"vertex 20", b"vertex many")
    yield "splat", "no count", "ply", ply.replace(b"vertex 20", b"vertex")
    yield "splat", "short format line", "ply", ply.replace(b"format binary_little_endian 1.0", b"format")
    yield "splat", "twice x", "ply", ply.replace(b"property float y\n", b"property float x\n")
    yield "splat", "NaN", "ply", ply[: ply.index(b"end_header\n") + 11] + b"\xff" * (20 * 17 * 4)
    yield "splat", "gzip bomb", "spz", gzip.compress(bytes(1 << 20), 9) * 1024
    announced = struct.pack("<IIIBBBB", 0x5053474E, 2, 2**32 - 1, 0, 12, 0, 0)
    yield "splat", "announces 2^32", "spz", gzip.compress(announced)
    yield "splat", "cut gzip", "spz", encode_splat(_gaussians(), "spz")[:-9]
    yield "splat", "31 bytes", "splat", bytes(31)
    # safetensors
    for door in ("head", "checkpoint"):
        for length in (0, 1, 2**31, 2**63, 2**64 - 1):
            yield door, f"header length {length}", "safetensors", _safetensors({}, b"x" * 99, length)
        yield door, "no tensors", "safetensors", _safetensors({"__metadata__": HEAD_METADATA})
        yield door, "overlap", "safetensors", _safetensors(
            {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
             "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(16))  # fmt: skip
        yield door, "outside", "safetensors", _safetensors(
            {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, bytes(16))  # fmt: skip
        yield door, "not JSON", "safetensors", _safetensors(b"{" * 500)
        yield door, "deep JSON", "safetensors", _safetensors(b'{"a":' * 5000)
    tensors = head_tensors()
    for name in tensors:
        yield "head", f"without {name}", "safetensors", save(
            {key: value for key, value in tensors.items() if key != name}, HEAD_METADATA)  # fmt: skip
        yield "head", f"empty {name}", "safetensors", save({**tensors, name: tensors[name][:0]}, HEAD_METADATA)
        yield "head", f"flat {name}", "safetensors", save({**tensors, name: tensors[name].reshape(-1)}, HEAD_METADATA)
        yield "head", f"text-like {name}", "safetensors", save(
            {**tensors, name: tensors[name].astype(np.int8)}, HEAD_METADATA)  # fmt: skip
    for name in ("faces", "triangles"):
        yield "head", f"{name} out of range", "safetensors", save(
            {**tensors, name: np.full_like(tensors[name], 10**9)}, HEAD_METADATA)  # fmt: skip
        yield "head", f"{name} negative", "safetensors", save(
            {**tensors, name: np.full_like(tensors[name], -7)}, HEAD_METADATA)  # fmt: skip
    for name in ("positions", "covars", "K", "viewmat", "vertices"):
        yield "head", f"NaN {name}", "safetensors", save(
            {**tensors, name: np.full_like(tensors[name], np.nan)}, HEAD_METADATA)  # fmt: skip
    yield "head", "warnings not JSON", "safetensors", save(tensors, {**HEAD_METADATA, "warnings": "["})
    yield "head", "another version", "safetensors", save(tensors, {**HEAD_METADATA, "version": "999"})
    yield "head", "no metadata", "safetensors", save(tensors)


VALUES = (
    None, "", " ", "NaN", "inf", "-1", "0", "25/0", "1e999", "9" * 400, "25; rm -rf /", "../../etc", "\0", "\ud800",
    "#12", "#gg0000", 0, -1, -25.0, 1e-9, 1e9, 10**400, float("nan"), float("inf"), -float("inf"), True, [], [25], {},
    (1, 2), b"25", object(),
)  # fmt: skip
"""What a workflow or a command line may hold where a number or a colour is expected."""

ARRAYS = (
    ((0,), 0), ((0, 0, 3), 0), ((1, 1, 3), 0), ((64, 64), 0), ((64, 64, 2), 0), ((64, 64, 3), np.nan), ((), 0),
    ((64, 64, 4), np.inf), ((64, 64, 3), -5), ((64, 64, 3), 1e30), ((1, 64, 64, 3), 0), ((5,), 0), ((3, 64, 64), 0),
)  # fmt: skip
"""Shape and value of pictures and waveforms as nodes may hand them over."""


BAD_NAMES = (
    "", " ", ".", "..", "/", "nul\0byte.png", "no/such/folder/x", "x" * 300, "~", "$HOME", "`id`", "; rm -rf x", "-",
    "|cat", "http://127.0.0.1:9/a.mp4", "https://127.0.0.1/a.png", "file:///etc/passwd", "concat:a|b", "pipe:0",
    "data:image/png;base64,AAAA", "rtmp://127.0.0.1/x", "lavfi:color", "subfile,,start,0,end,9,,:/etc/passwd",
    "crypto:/etc/passwd", "line\nbreak.png", "%s%s%n", "\ud800surrogate", "CON",
    "/dev/zero", "/dev/stdin", "/proc/self/mem",
)  # fmt: skip
"""Names that are not the name of a file with content."""


def damage(data: bytes, rng: random.Random) -> bytes:
    """A good file with one kind of damage."""

    def flip(data: bytearray) -> bytearray:
        for _ in range(rng.choice((1, 3, 10, 100))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return data

    def cut(data: bytearray) -> bytearray:
        return data[: rng.randrange(len(data))]

    def drop(data: bytearray) -> bytearray:
        start = rng.randrange(len(data))
        return data[:start] + data[start + rng.randrange(1, 200) :]

    def insert(data: bytearray) -> bytearray:
        start = rng.randrange(len(data))
        return data[:start] + bytearray(rng.randbytes(rng.randrange(1, 64))) + data[start:]

    def extreme(data: bytearray) -> bytearray:
        start = rng.randrange(max(1, min(len(data), 256)))
        number = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"))
        data[start : start + 4] = number
        return data

    def repeat(data: bytearray) -> bytearray:
        return data + data[rng.randrange(len(data)) :]

    kinds: tuple[Callable[[bytearray], bytearray], ...] = (flip, cut, drop, insert, extreme, repeat)
    return bytes(rng.choice(kinds)(bytearray(data)))


def cases(folder: Path, count: int, seed: int = 0) -> Iterator[Case]:
    """`count` cases: as many handmade ones as half of it allows, bad names, the rest damaged at random."""
    rng = random.Random(seed)
    good = good_files()
    doors = list(good)
    made = [Case(door, name, _written(folder, data, suffix)) for door, name, suffix, data in handmade()]
    made += [Case(door, f"name {name[:20]!r}", name) for name in BAD_NAMES for door in doors]
    made += [Case("value", f"value {str(value)[:20]!r}", value) for value in VALUES]
    made += [Case("array", f"array {shape} of {value}", np.full(shape, value, np.float32)) for shape, value in ARRAYS]
    rng.shuffle(made)
    made = made[: max(count // 2, count - 10 * len(made))]
    yield from made
    for index in range(count - len(made)):
        door = doors[index % len(doors)]
        suffix, data = rng.choice(good[door])
        if rng.random() < 0.1:  # a good file of the wrong kind under a right name
            data = rng.choice(good[rng.choice(doors)])[1]
        yield Case(door, f"damaged {suffix} {index}", _written(folder, damage(data, rng), suffix))


def _written(folder: Path, data: bytes, suffix: str) -> Path:
    path = folder / f"{abs(hash(data)):x}.{suffix}"
    path.write_bytes(data)
    return path
