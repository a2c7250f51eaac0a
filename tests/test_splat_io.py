"""Splat files: what is written reads back, in our reader and field by field in the published layouts."""

import gzip
import struct

import numpy as np
import pytest
import torch

from mggtalk_core.errors import InputError
from mggtalk_core.gaussians.splat_io import (
    SH_C0,
    decode_splat,
    encode_splat,
    read_splat_file,
    write_splat_file,
)
from mggtalk_core.types import Gaussians


@pytest.fixture
def scene() -> Gaussians:
    generator = torch.Generator().manual_seed(3)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    quats = torch.nn.functional.normalize(torch.randn(500, 4, generator=generator), dim=-1)
    return Gaussians(
        means=(rand(500, 3) - 0.5) * 0.4,
        quats=torch.where(quats[:, :1] < 0, -quats, quats),
        scales=torch.exp(rand(500, 3) * 3 - 8),
        opacities=rand(500) * 0.98 + 0.01,
        colors=rand(500, 3),
    )


def same_rotation_degrees(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.rad2deg(2 * torch.acos((a * b).sum(-1).abs().clamp(max=1)))


def test_ply_round_trip_is_exact_to_float_precision(scene):
    back = decode_splat(encode_splat(scene, "ply"), "ply")
    torch.testing.assert_close(back.means, scene.means, rtol=0, atol=0)
    torch.testing.assert_close(back.scales, scene.scales, rtol=1e-5, atol=0)
    torch.testing.assert_close(back.opacities, scene.opacities, rtol=0, atol=1e-6)
    torch.testing.assert_close(back.colors, scene.colors, rtol=0, atol=1e-6)
    assert same_rotation_degrees(back.quats, scene.quats).max() < 0.1


def test_ply_holds_log_scales_logit_opacities_and_sh_coefficients(scene):
    data = encode_splat(scene, "ply")
    header, _, body = data.partition(b"end_header\n")
    names = [line.split()[2].decode() for line in header.splitlines() if line.startswith(b"property")]
    table = np.frombuffer(body, "<f4").reshape(500, len(names))
    column = lambda name: table[:, names.index(name)]  # noqa: E731
    np.testing.assert_allclose(column("scale_1"), scene.scales[:, 1].log().numpy(), rtol=1e-5)
    np.testing.assert_allclose(column("opacity"), scene.opacities.logit().numpy(), atol=1e-4)
    np.testing.assert_allclose(column("f_dc_2"), (scene.colors[:, 2].numpy() - 0.5) / SH_C0, atol=1e-5)


def test_spz_round_trip_within_its_quantisation(scene):
    back = decode_splat(encode_splat(scene, "spz"), "spz")
    assert (back.means - scene.means).abs().max() < 1e-5
    assert (back.scales / scene.scales).log().abs().max() < 1 / 16
    assert (back.opacities - scene.opacities).abs().max() < 1 / 255
    assert (back.colors - scene.colors).abs().max() < 0.01
    assert same_rotation_degrees(back.quats, scene.quats).median() < 1


def test_spz_header_is_niantic_version_2(scene):
    raw = gzip.decompress(encode_splat(scene, "spz"))
    assert struct.unpack_from("<III", raw) == (0x5053474E, 2, 500)
    assert len(raw) == 16 + 500 * (9 + 1 + 3 + 3 + 3)


def test_splat_round_trip_keeps_every_record(scene):
    back = decode_splat(encode_splat(scene, "splat"), "splat")
    order = np.lexsort(scene.means.numpy().T)
    order_back = np.lexsort(back.means.numpy().T)
    torch.testing.assert_close(back.means[order_back], scene.means[order], rtol=0, atol=0)
    torch.testing.assert_close(back.scales[order_back], scene.scales[order], rtol=0, atol=0)
    assert (back.colors[order_back] - scene.colors[order]).abs().max() < 1 / 255
    assert same_rotation_degrees(back.quats[order_back], scene.quats[order]).max() < 2


def test_files_are_written_whole_and_by_suffix(scene, tmp_path):
    write_splat_file(scene, tmp_path / "head.spz")
    assert [path.name for path in tmp_path.iterdir()] == ["head.spz"]
    assert len(read_splat_file(tmp_path / "head.spz").means) == 500
    with pytest.raises(InputError, match="'obj' is not a splat format"):
        write_splat_file(scene, tmp_path / "head.obj")


@pytest.mark.parametrize(
    "data, file_format, message",
    [
        (b"hello", "ply", "not a .ply"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nend_header\n", "ply", "binary_little_endian"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float x\nend_header\n", "ply", "lacks y"),
        (b"hello", "spz", "not an .spz"),
        (b"hello", "splat", "multiple of 32"),
    ],
)
def test_other_files_are_refused_with_one_line(data, file_format, message):
    with pytest.raises(InputError, match=message):
        decode_splat(data, file_format)


def test_a_cut_ply_is_refused(scene):
    with pytest.raises(InputError, match="cut short"):
        decode_splat(encode_splat(scene, "ply")[:-10], "ply")
