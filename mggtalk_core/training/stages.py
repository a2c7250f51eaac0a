"""The stages of training: which networks, what data, what loss.

expression_map  scores -> coefficients, on tracked clips (seconds)
matting         the person's edge, on synthetic people
spectacles      their pixels, on photos of people without any and made-up spectacles
geo_refine      depth offsets, on synthetic people
sym_decoder     identity encoder + Sym-Gaussian decoder, on synthetic people
picture         visible decoder, mouth tone, deformation network, on rendered pictures of tracked clips (picture.py)
inpainter       mouth and eye crops, on the same
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..errors import InputError
from ..gaussians.decoders import SymGaussianDecoder
from ..gaussians.identity_encoder import IdentityEncoder
from ..geometry.refine import GeoRefineUNet
from ..media.files import require_file
from ..model import MGGTalkModel
from ..rendering.cpus import available_cpus
from ..weights import load_model, read_checkpoint
from .matting import make_matting_sample, matting_stage
from .spectacles import make_spectacles_sample, spectacles_stage
from .synthetic_pairs import make_color_sample, make_depth_sample, make_samples, read_sample
from .trainer import Settings, Stage

CLIP_STAGES = ("expression_map", "picture", "inpainter")
"""Stages that learn from clips; the others learn from synthetic people."""

MIN_FILES = 4
POINTS_PER_SAMPLE = 1024
HIDDEN_MIRRORS = [7, 10, 37]
"""Columns of the Sym-Gaussian decoder's features that change sign in a mirrored picture: x of three vectors."""

LEFT_EYE_COLUMN, RIGHT_EYE_COLUMN = 25, 26
"""Columns that swap in a mirrored picture."""


def make_stage(settings: Settings, output: Path, device: torch.device) -> Stage | dict:
    """The stage a settings file asks for; stages with their own short loop are done and return their report.

    Raises:
        InputError: an unknown stage or missing data.
    """
    data = Path(settings.data)
    if settings.stage == "expression_map":
        from .expression_map import train_expression_map

        return train_expression_map({"clips": str(data), "steps": settings.steps, "seed": settings.seed}, output)
    builders = {
        "matting": matting_stage,
        "spectacles": spectacles_stage,
        "geo_refine": _geo_refine,
        "sym_decoder": _sym_decoder,
    }
    if settings.stage not in {*builders, *CLIP_STAGES}:
        raise InputError(f"stage {settings.stage!r} is unknown; use {', '.join((*CLIP_STAGES, *builders))}")
    files = sorted(data.glob("*.safetensors"))
    if len(files) < MIN_FILES:
        raise InputError(
            f"{data} holds {len(files)} samples or clips, at least {MIN_FILES} are needed; make samples with the "
            "setting 'samples', clips with `mggtalk preprocess`"
        )
    if settings.stage in CLIP_STAGES:
        from .picture import inpainter_stage, picture_stage

        start = load_model(settings.start or None)
        return (picture_stage if settings.stage == "picture" else inpainter_stage)(settings, files, start, device)
    held_out = max(1, int(len(files) * settings.held_out))
    return builders[settings.stage](settings, files[:-held_out], files[-held_out:], device)


def make_missing_samples(settings: Settings, rank: int, world: int) -> None:
    """Make this process's share of the samples a stage wants and its folder does not have yet.

    Raises:
        InputError: no assets to make them from, or no photos where there should be.
    """
    workers = max(1, available_cpus() // world)
    if settings.stage == "spectacles":
        photos = _photos_of(settings.photos, "--photos", without=settings.without)
        seeds = range(rank, min(settings.samples, len(photos)), world)
        make_samples(partial(make_spectacles_sample, photos=photos), None, Path(settings.data), seeds, workers)
        return
    if not settings.assets:
        raise InputError("this recipe makes its own people; give --assets, MakeHuman's asset folder")
    maker = make_depth_sample
    if settings.stage == "matting":
        photos = _photos_of(settings.photos, "--photos") if settings.photos else ()
        maker = partial(make_matting_sample, photos=photos)
    if settings.stage == "sym_decoder":
        start = read_checkpoint(require_file(settings.start, "start")) if settings.start else MGGTalkModel()
        maker = partial(make_color_sample, refine=start.geo_refine)
    seeds = range(rank, settings.samples, world)
    make_samples(maker, Path(settings.assets), Path(settings.data), seeds, workers)


def _photos_of(folder: str, option: str, without: Sequence[str] = ()) -> tuple[Path, ...]:
    """The photos in a folder but for those with these names.

    Raises:
        InputError: there are none.
    """
    photos = tuple(path for path in sorted(Path(folder or ".").glob("*.jpg")) if path.stem not in without)
    if not photos:
        raise InputError(f"{folder or 'no folder'} holds no .jpg; give {option} a folder of photos")
    return photos


def _stack(files: list[Path], device: torch.device) -> dict[str, torch.Tensor]:
    """All arrays of all samples, as stored (mostly float16)."""
    samples = [read_sample(path) for path in files]
    return {name: torch.from_numpy(np.stack([s[name] for s in samples])).to(device) for name in samples[0]}


ON_HEAD_WEIGHT = 3.0
"""The face matters more than hair and clothes, and its errors are smaller."""


def _geo_refine(settings: Settings, train: list[Path], test: list[Path], device: torch.device) -> Stage:
    network = GeoRefineUNet(**(settings.networks or {}).get("geo_refine", {}))
    data, held_out = _stack(train, device), _stack(test, device)

    def batches(rng: np.random.Generator) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            index = torch.from_numpy(rng.integers(len(train), size=settings.batch)).to(device)
            batch = {name: values[index] for name, values in data.items()}
            batch["refine_inputs"] = batch["refine_inputs"].float()
            flip = torch.from_numpy(rng.random(settings.batch) < 0.5).to(device)
            for name, values in batch.items():
                batch[name] = torch.where(flip.view(-1, *[1] * (values.ndim - 1)), values.flip(-1), values)
            batch["refine_inputs"][flip, 5] *= -1  # the normals' x
            gain = torch.from_numpy(rng.uniform(0.8, 1.2, (settings.batch, 3, 1, 1)).astype(np.float32))
            batch["refine_inputs"][:, :3] *= gain.to(device)
            yield batch

    def loss(networks, batch) -> dict[str, torch.Tensor]:
        offset = networks["geo_refine"](batch["refine_inputs"])
        error = batch["depth_error"].float() - offset
        known, on_head = batch["depth_known"].float(), batch["depth_on_head"].float()
        weight = known * (1 + (ON_HEAD_WEIGHT - 1) * on_head)
        # Smooth L1 in units of 5 mm: hair edges jump by centimetres and should not rule.
        depth = nn.functional.smooth_l1_loss(error / 0.005, torch.zeros_like(error), reduction="none")
        slope = sum(
            (torch.diff(error, dim=axis).abs() * torch.minimum(*_pairs(known, axis))).mean() / 0.005 for axis in (1, 2)
        )
        return {"loss": (depth * weight).sum() / weight.sum() + 0.5 * slope, "slope": slope.detach()}

    def validate(networks) -> dict[str, float]:
        offset = torch.cat([networks["geo_refine"](part.float()) for part in held_out["refine_inputs"].split(16)])
        before, after = held_out["depth_error"].float(), held_out["depth_error"].float() - offset
        result = {}
        for region in ("known", "on_head"):
            mask = held_out[f"depth_{region}"]
            result[f"{region}_mm_prior"] = 1000 * before[mask].abs().mean().item()
            result[f"{region}_mm"] = 1000 * after[mask].abs().mean().item()
        return result

    def picture(networks) -> np.ndarray:
        inputs = held_out["refine_inputs"][:6].float()
        offset, error = networks["geo_refine"](inputs), held_out["depth_error"][:6].float()
        mask = held_out["depth_known"][:6]
        tiles = [inputs[:, :3] + 0.5]
        for layer in (error, offset, error - offset):
            grey = torch.where(mask, 0.5 + layer / 0.06, 0.5)
            tiles.append(grey[:, None].expand(-1, 3, -1, -1))
        return torch.cat([torch.cat(list(tile), 2) for tile in tiles], 1).permute(1, 2, 0).cpu().numpy()

    return Stage({"geo_refine": network}, batches, loss, validate, picture, device)


def _pairs(mask: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    return mask.narrow(axis, 0, mask.shape[axis] - 1), mask.narrow(axis, 1, mask.shape[axis] - 1)


UNSURE = 0.2
"""Colour error, sRGB 0..1, up to which it counts squared: where it can't be told whether there is hair or skin, the
answer is a mixture, and not the likelier one in patches."""

WHOLE = ("encoder_inputs", "head_map")
"""Arrays of a whole person; the others have a row per point."""


def _sym_decoder(settings: Settings, train: list[Path], test: list[Path], device: torch.device) -> Stage:
    options = settings.networks or {}
    networks = {
        "identity_encoder": IdentityEncoder(**options.get("identity_encoder", {})),
        "sym_gaussian_decoder": SymGaussianDecoder(**options.get("sym_gaussian_decoder", {})),
    }
    data, held_out = _stack(train, device), _stack(test, device)

    def batches(rng: np.random.Generator) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            index = torch.from_numpy(rng.integers(len(train), size=settings.batch)).to(device)
            chosen = torch.from_numpy(rng.integers(data["features"].shape[1], size=POINTS_PER_SAMPLE)).to(device)
            batch = {n: values[index] if n in WHOLE else values[index][:, chosen] for n, values in data.items()}
            batch = {name: values.float() for name, values in batch.items()}
            flip = torch.from_numpy(rng.random(settings.batch) < 0.5).to(device)
            batch["encoder_inputs"][flip] = batch["encoder_inputs"][flip].flip(-1)
            batch["encoder_inputs"][flip, 4] *= -1
            batch["head_map"][flip] = batch["head_map"][flip].flip(-1)
            batch["directions"][flip, :, 0] *= -1
            batch["pixels"][flip, :, 1] = 1 - batch["pixels"][flip, :, 1]
            mirrored = batch["features"][flip]
            mirrored[..., HIDDEN_MIRRORS] *= -1
            swapped = [RIGHT_EYE_COLUMN, LEFT_EYE_COLUMN]
            mirrored[..., sorted(swapped)] = mirrored[..., swapped]
            batch["features"][flip] = mirrored
            yield batch

    def decode(nets, batch):
        feature_map, code = nets["identity_encoder"](batch["encoder_inputs"].float())
        grid = batch["pixels"].float().flip(-1)[:, None] * 2 - 1
        identity = nn.functional.grid_sample(feature_map, grid, padding_mode="border", align_corners=False)
        return nets["sym_gaussian_decoder"](
            batch["features"].float(), identity[:, :, 0].transpose(1, 2), code, batch["head_map"].float(),
            batch["directions"],
        )  # fmt: skip

    def loss(nets, batch) -> dict[str, torch.Tensor]:
        residual = decode(nets, batch)
        prior, truth = batch["prior_colors"].float().flatten(0, 1), batch["true_colors"].float().flatten(0, 1)
        weight = batch["color_weights"].float().flatten().clamp(max=1)
        error = (prior + residual.color - truth) / UNSURE
        error = nn.functional.smooth_l1_loss(error, torch.zeros_like(error), reduction="none").mean(1)
        color = (error * weight).sum() / weight.sum()
        # What hangs in the air should fade; what is known to be surface should stay as opaque as the prior made it.
        floating, solid = batch["floating"].float().flatten(), (weight > 0.5).float()
        fade = (floating * (1 - solid) * torch.sigmoid(residual.opacity + 2)).mean()
        keep = (solid * residual.opacity**2).mean()
        tidy = (residual.log_scale**2).mean() + (((1 - floating) * (1 - solid)) * residual.opacity**2).mean()
        return {"loss": color + 0.05 * fade + 0.05 * keep + 0.01 * tidy, "color": color.detach(), "fade": fade.detach()}

    def validate(nets) -> dict[str, float]:
        result: dict[str, list] = {}
        for sample in range(len(test)):
            batch = {name: values[sample : sample + 1] for name, values in held_out.items()}
            residual = decode(nets, batch)
            prior, truth = batch["prior_colors"][0].float(), batch["true_colors"][0].float()
            decoded = (prior + residual.color).clamp(0, 1)
            for name, origin in (("symmetric", 1), ("interior", 2)):
                mask = (batch["origin"][0] == origin) & (batch["color_weights"][0] > 0.3)
                if mask.sum() > 20:
                    for label, colors in (("_prior", prior), ("", decoded)):
                        error = ((colors - truth)[mask] ** 2).mean().item()
                        result.setdefault(f"{name}_psnr{label}", []).append(-10 * np.log10(error + 1e-9))
        return {name: float(np.mean(values)) for name, values in result.items()}

    return Stage(networks, batches, loss, validate, device=device)
