"""Checkpoints: the embedded one and users' own, one safetensors file each with its configuration in the header."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ..errors import InputError
from ..gaussians.decoders import GaussianDecoder, MouthTone, SymGaussianDecoder
from ..gaussians.deformation_network import DeformationNetwork
from ..gaussians.densify import Densify
from ..gaussians.identity_encoder import IdentityEncoder
from ..geometry.refine import GeoRefineUNet
from ..media.files import atomic_path, require_file
from ..model import MGGTalkModel
from ..portrait.matting import MattingUNet
from ..portrait.spectacles import SpectaclesUNet
from ..rendering.inpainter import Inpainter

log = logging.getLogger(__name__)

EMBEDDED = Path(__file__).parent / "mggtalk.safetensors"
FORMAT = "mggtalk-checkpoint-2"

NETWORKS: dict[str, type[nn.Module]] = {
    "matting": MattingUNet,
    "spectacles": SpectaclesUNet,
    "geo_refine": GeoRefineUNet,
    "identity_encoder": IdentityEncoder,
    "gaussian_decoder": GaussianDecoder,
    "sym_gaussian_decoder": SymGaussianDecoder,
    "mouth_tone": MouthTone,
    "densify": Densify,
    "deformation": DeformationNetwork,
    "inpainter": Inpainter,
}
"""Field of `MGGTalkModel` -> the class a checkpoint builds for it."""


def load_model(checkpoint: str | None = None, device: str = "cpu") -> MGGTalkModel:
    """The networks of a checkpoint on a device; None is the embedded one, or the prior alone when none is embedded.

    Raises:
        InputError: there is no such checkpoint, or it is not one of ours.
    """
    if checkpoint is None:
        if not EMBEDDED.exists():
            log.warning("no embedded weights in this installation; every stage runs on its analytic prior alone")
            return MGGTalkModel(device=torch.device(device))
        return read_checkpoint(EMBEDDED, device, name="embedded")
    return read_checkpoint(require_file(checkpoint, "checkpoint"), device)


def read_checkpoint(path: Path, device: str = "cpu", name: str | None = None) -> MGGTalkModel:
    """The networks of a file written by `write_checkpoint`.

    Raises:
        InputError: another kind of file, another format version, or weights that do not fit the configuration.
    """
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(
                    f"{path} is not a MGGTalk checkpoint of this version (format {metadata.get('format')}, expected "
                    f"{FORMAT}); use one written by `mggtalk train`"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); copy it again") from None
    networks = {}
    for field, settings in json.loads(metadata["config"])["networks"].items():
        if field not in NETWORKS:
            raise InputError(f"{path} has a network {field!r} this version does not know; update MGGTalk")
        network = NETWORKS[field](**settings)
        prefix = f"{field}."
        weights = {key.removeprefix(prefix): value.float() for key, value in tensors.items() if key.startswith(prefix)}
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise InputError(
                f"{path}: the weights of {field} do not fit ({str(error).splitlines()[-1].strip()})"
            ) from None
        networks[field] = network.eval().to(device)
    return MGGTalkModel(checkpoint=name or path.stem, device=torch.device(device), **networks)


def write_checkpoint(path: Path, networks: dict[str, nn.Module], settings: dict[str, dict], notes: dict) -> None:
    """Write networks as float16 with their constructor settings and notes (data, commit, metrics) in the header."""
    tensors = {
        f"{field}.{key}": value.detach().half().contiguous().cpu()
        for field, network in networks.items()
        for key, value in network.state_dict().items()
    }
    config = {"networks": {field: settings.get(field, {}) for field in networks}, **notes}
    with atomic_path(path, (".safetensors",)) as partial:
        save_file(tensors, str(partial), {"format": FORMAT, "config": json.dumps(config)})


def checkpoint_notes(path: Path = EMBEDDED) -> dict:
    """The configuration and notes in a checkpoint's header."""
    with safe_open(str(path), "pt") as file:
        return json.loads((file.metadata() or {})["config"])
