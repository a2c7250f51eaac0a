"""Checkpoints: what is written is what is read, and a wrong file gets one clear sentence."""

import pytest
import torch
from safetensors.torch import save_file

from mggtalk_core.errors import InputError
from mggtalk_core.gaussians.decoders import SymGaussianDecoder
from mggtalk_core.gaussians.identity_encoder import IdentityEncoder
from mggtalk_core.geometry.refine import GeoRefineUNet
from mggtalk_core.weights import checkpoint_notes, load_model, read_checkpoint, write_checkpoint


def networks():
    torch.manual_seed(0)
    parts = {
        "geo_refine": GeoRefineUNet(width=8), "identity_encoder": IdentityEncoder(width=8),
        "sym_gaussian_decoder": SymGaussianDecoder(),
    }  # fmt: skip
    for part in parts.values():
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, 0, 0.1)
    return parts


def test_round_trip(tmp_path):
    parts = networks()
    settings = {"geo_refine": {"width": 8}, "identity_encoder": {"width": 8}}
    write_checkpoint(tmp_path / "own.safetensors", parts, settings, {"data": "none"})
    model = load_model(str(tmp_path / "own.safetensors"))
    assert model.checkpoint == "own" and model.gaussian_decoder is None
    image = torch.randn(1, 11, 64, 64)
    torch.testing.assert_close(model.geo_refine(image), parts["geo_refine"](image), atol=2e-4, rtol=0.02)
    assert checkpoint_notes(tmp_path / "own.safetensors")["data"] == "none"


def test_the_embedded_model_or_the_prior_always_loads():
    assert load_model().checkpoint in ("embedded", "prior")


def test_foreign_files_are_refused_clearly(tmp_path):
    save_file({"x": torch.zeros(1)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(InputError, match="not a MGGTalk checkpoint"):
        read_checkpoint(tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="safetensors"):
        read_checkpoint(tmp_path / "broken.safetensors")
    with pytest.raises(InputError, match="no file"):
        load_model(str(tmp_path / "absent.safetensors"))


def test_weights_of_another_size_are_refused(tmp_path):
    write_checkpoint(tmp_path / "wide.safetensors", networks(), {"geo_refine": {"width": 16}}, {})
    with pytest.raises(InputError, match="do not fit"):
        read_checkpoint(tmp_path / "wide.safetensors")
