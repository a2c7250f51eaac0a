"""The stages that learn from rendered pictures of real clips, by the paper's loss.

picture    visible Gaussian decoder, mouth tone, deformation network and Densify, through the differentiable rasterizer
inpainter  mouth and eye crops of rendered frames against the camera's, optionally with an adversarial term

The identity encoder and the hidden side's decoder come trained from `start` and stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..gaussians.clamp import clamp_from_bounds
from ..gaussians.decoders import GaussianDecoder, MouthTone, mouth_part, toned
from ..gaussians.deformation_network import DeformationNetwork
from ..gaussians.densify import CHILD_SIZE, CHILDREN, Densify, divide
from ..headmodel.model import load_head_model
from ..model import MGGTalkModel
from ..rendering.frames import render_frames
from ..rendering.inpainter import CROP, Inpainter, crop_boxes, crops_of
from ..rendering.rasterizer import render
from .clips import read_clip
from .losses import PictureLoss, VGGFeatures
from .takes import Moved, Take
from .trainer import Settings, Stage

PICTURE_NETWORKS = {
    "gaussian_decoder": GaussianDecoder, "mouth_tone": MouthTone, "deformation": DeformationNetwork, "densify": Densify,
}  # fmt: skip
HELD_OUT_EVERY = 10
"""Every tenth clip by name is validated on, not trained on: neighbours by name are often of one person."""

VALIDATION_FRAMES = 3
COLOR_TIDY, MOTION_TIDY, CHILD_TIDY = 0.02, 2e-3, 2e-4
"""Weights of the squared residuals, and of children's share: a correction has to pay for itself."""


def split(files: list[Path]) -> tuple[list[Path], list[Path]]:
    """Training and held-out clips."""
    held_out = files[HELD_OUT_EVERY // 2 :: HELD_OUT_EVERY]
    return [file for file in files if file not in held_out], held_out


def picture_loss(settings: Settings, device: torch.device) -> PictureLoss:
    """The paper's loss, with VGG features where the settings name their weights."""
    return PictureLoss(features=VGGFeatures(Path(settings.vgg)).to(device) if settings.vgg else None)


def picture_stage(settings: Settings, files: list[Path], start: MGGTalkModel, device: torch.device) -> Stage:
    """Visible decoder, mouth tone, deformation network and Densify, or those of them that the settings name.

    With Densify the loss is the sum of that of the parents' picture and that of the picture with their children.
    """
    chosen = settings.networks or {name: {} for name in PICTURE_NETWORKS}
    networks = {name: PICTURE_NETWORKS[name](**options) for name, options in chosen.items()}
    train, held_out = split(files)
    take_of = lru_cache(maxsize=None)(lambda path: Take(read_clip(path), start, device))
    loss_of = picture_loss(settings, device)

    def batches(rng: np.random.Generator) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            takes = rng.integers(len(train), size=settings.batch)
            frames = [int(rng.integers(1, len(take_of(train[take])))) for take in takes]
            yield {"take": torch.from_numpy(takes), "frame": torch.tensor(frames)}

    def loss(nets, batch) -> dict[str, torch.Tensor]:
        total: dict[str, torch.Tensor] = {}
        for index, frame in zip(batch["take"].tolist(), batch["frame"].tolist()):
            take = take_of(train[index])
            moved = take.moved(frame)
            terms: dict[str, torch.Tensor] = {}
            for prefix, drawn in before_and_after(nets).items():
                picture, tidy = draw(drawn, take, moved)
                of_picture = loss_of(picture[None], moved.truth[None], moved.mask[None])
                terms["loss"] = terms.get("loss", 0) + of_picture.pop("loss") + tidy
                terms |= {prefix + name: value for name, value in of_picture.items()}
            total = {name: total.get(name, 0) + value / len(batch["take"]) for name, value in terms.items()}
        return total

    def validate(nets) -> dict[str, float]:
        errors: dict[str, list[float]] = {"psnr": [], "psnr_prior": [], "mouth_psnr": [], "mouth_psnr_prior": []}
        for path in held_out:
            take = take_of(path)
            for frame in np.linspace(1, len(take) - 1, VALIDATION_FRAMES).astype(int):
                moved = take.moved(frame)
                for name, used in (("", nets), ("_prior", {})):
                    error = ((draw(used, take, moved)[0] - moved.truth) ** 2).mean(-1)
                    for region, mask in (("", moved.mask.clamp(max=1)), ("mouth_", (moved.mask > 1).float())):
                        value = (error * mask).sum() / mask.sum().clamp_min(1)
                        errors[f"{region}psnr{name}"].append(-10 * np.log10(value.item() + 1e-9))
        return {name: float(np.mean(values)) for name, values in errors.items()}

    def picture(nets) -> np.ndarray:
        rows = []
        for path in held_out[:4]:
            take = take_of(path)
            moved = take.moved(len(take) - 1)
            tiles = [moved.truth, draw({}, take, moved)[0], draw(nets, take, moved)[0]]
            rows.append(torch.cat(tiles, 1))
        return torch.cat(rows).cpu().numpy()

    return Stage(networks, batches, loss, validate, picture, device)


def before_and_after(nets: dict[str, nn.Module]) -> dict[str, dict[str, nn.Module]]:
    """The networks of the pictures that the paper's loss compares, by the prefix of their terms' names."""
    if "densify" not in nets:
        return {"": nets}
    return {"parents_": {name: net for name, net in nets.items() if name != "densify"}, "": nets}


def draw(nets: dict[str, nn.Module], take: Take, moved: Moved) -> tuple[torch.Tensor, torch.Tensor]:
    """A take's frame (S, S, 3) as networks would have it, and the price of what they changed.

    Networks that are missing leave the head as it is. A visible Gaussian's extent is not trained here: the compiled
    deformer passes no gradient to it.
    """
    head, means = take.head_on_device, moved.means
    colors, opacities = head.colors, moved.opacities
    tidy = colors.new_zeros(())
    if "gaussian_decoder" in nets:
        residual = nets["gaussian_decoder"](take.features, take.identity, take.code)
        colors = colors.index_add(0, take.visible.nonzero()[:, 0], residual.color)
        odds = torch.logit(opacities.clamp(0.005, 0.995))
        opacities = torch.sigmoid(odds.index_add(0, take.visible.nonzero()[:, 0], residual.opacity))
        tidy = tidy + COLOR_TIDY * ((residual.color**2).mean() + (residual.opacity**2).mean() / 16)
        tidy = tidy + (residual.log_scale**2).mean()
    if "mouth_tone" in nets:
        part = torch.from_numpy(mouth_part(take.head.faces.numpy(), load_head_model())).to(colors.device)
        part = torch.where(take.visible, -1, part)
        colors = toned(colors, part, nets["mouth_tone"](take.code))
    if "deformation" in nets:
        field = torch.tensordot(moved.expression, nets["deformation"](take.code), 1)
        shift = (field[head.triangles[head.faces.long()].long()] * head.barycentric[..., None]).sum(1)
        shift = shift * head.expression_weight[:, None]
        pose = head.pose_weight[:, None]
        means = means + (1 - pose) * shift + pose * (shift @ moved.rotation.T)
        tidy = tidy + MOTION_TIDY * ((1000 * field) ** 2).mean()
    covars, light = moved.covars, moved.light
    if "densify" in nets:
        children = nets["densify"](take.parents, take.identity, take.code)
        seen = take.visible.nonzero()[:, 0]
        # A child sits within its parent's extent, where the head's turn is all that moves it relative to its parent.
        pose = head.pose_weight[seen, None, None]
        tangents = (1 - pose) * take.tangents + pose * (take.tangents @ moved.rotation.T)
        divided = divide(means[seen], tangents, colors[seen], opacities[seen], children)
        means = torch.cat([means, divided.means.flatten(0, 1)])
        covars = torch.cat([covars, (CHILD_SIZE**2 * covars[seen]).repeat_interleave(CHILDREN, 0)])
        light = torch.cat([light, light[seen].repeat_interleave(CHILDREN, 0)])
        colors = torch.cat([colors, divided.colors.flatten(0, 1)])
        opacities = torch.cat([opacities.index_copy(0, seen, divided.parent_opacities), divided.opacities.flatten()])
        tidy = tidy + COLOR_TIDY * (children.colors**2).mean() + CHILD_TIDY * children.share.mean()
    shown = clamp_from_bounds(clamp_from_bounds(colors, 0, 1) * light, 0, 1)
    camera = take.head.camera
    drawn = render(
        means, None, None, opacities, shown, torch.from_numpy(camera.viewmat),
        torch.from_numpy(camera.K), camera.width, camera.height, head.background.float() / 255, covars=covars,
    )  # fmt: skip
    return drawn.rgb, tidy


class PatchCritic(nn.Module):
    """Judges 64 x 64 crops patch by patch: real or rendered (Isola et al. 2017, at this size three strides)."""

    def __init__(self, width: int = 24):
        super().__init__()
        widths = (3, width, 2 * width, 4 * width)
        layers = [
            nn.Sequential(nn.Conv2d(near, far, 4, 2, 1), nn.LeakyReLU(0.2)) for near, far in zip(widths, widths[1:])
        ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, 1, 1))

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Logits (B, 1, 8, 8), > 0 for real."""
        return self.layers(crops - 0.5)


class _Reversed(torch.autograd.Function):
    """Identity whose gradient is scaled by a negative weight: critic and inpainter train by one loss (Ganin 2015)."""

    @staticmethod
    def forward(ctx, values, weight):
        ctx.weight = weight
        return values.view_as(values)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.weight * gradient, None


def adversarial_loss(critic: nn.Module, made: torch.Tensor, real: torch.Tensor, weight: float) -> torch.Tensor:
    """The critic's loss; what made the crops receives its gradient reversed and scaled by `weight`."""
    logits_made, logits_real = critic(_Reversed.apply(made, weight)), critic(real)
    bce = nn.functional.binary_cross_entropy_with_logits
    return bce(logits_made, torch.zeros_like(logits_made)) + bce(logits_real, torch.ones_like(logits_real))


def inpainter_stage(settings: Settings, files: list[Path], start: MGGTalkModel, device: torch.device) -> Stage:
    """Corrections of mouth and eye crops; with `adversarial` > 0 a critic judges them too."""
    networks: dict[str, nn.Module] = {"inpainter": Inpainter(**(settings.networks or {}).get("inpainter", {}))}
    if settings.adversarial:
        networks["critic"] = PatchCritic()
    train, held_out = (rendered_crops(part, start) for part in split(files))
    held_out = {name: crops.to(device) for name, crops in held_out.items()}
    loss_of = picture_loss(settings, device)

    def batches(rng: np.random.Generator) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            index = torch.from_numpy(rng.integers(len(train["made"]), size=settings.batch))
            batch = {name: values[index].float() / 255 for name, values in train.items()}
            flip = torch.from_numpy(rng.random(settings.batch) < 0.5)[:, None, None, None]
            yield {name: torch.where(flip, values.flip(-1), values) for name, values in batch.items()}

    def loss(nets, batch) -> dict[str, torch.Tensor]:
        made = clamp_from_bounds(batch["made"] + nets["inpainter"](batch["made"]), 0, 1)
        mask = nets["inpainter"].fade.expand(len(made), -1, -1)
        terms = loss_of(made.permute(0, 2, 3, 1), batch["real"].permute(0, 2, 3, 1), mask)
        if settings.adversarial:
            terms["critic"] = adversarial_loss(nets["critic"], made, batch["real"], settings.adversarial)
            terms["loss"] = terms["loss"] + terms["critic"]
        return terms

    def validate(nets) -> dict[str, float]:
        made, real = (held_out[name].float() / 255 for name in ("made", "real"))
        fixed = (made + torch.cat([nets["inpainter"](part) for part in made.split(64)])).clamp(0, 1)
        psnr = lambda picture: -10 * torch.log10(((picture - real) ** 2).mean((1, 2, 3)) + 1e-9).mean().item()  # noqa: E731
        return {"psnr": psnr(fixed), "psnr_prior": psnr(made)}

    def picture(nets) -> np.ndarray:
        chosen = slice(0, None, max(1, len(held_out["made"]) // 10))
        made, real = (held_out[name][chosen].float() / 255 for name in ("made", "real"))
        fixed = (made + nets["inpainter"](made)).clamp(0, 1)
        return torch.cat([torch.cat(list(row), 2) for row in (real, made, fixed)], 1).permute(1, 2, 0).cpu().numpy()

    return Stage(networks, batches, loss, validate, picture, device)


def rendered_crops(files: list[Path], model: MGGTalkModel) -> dict[str, torch.Tensor]:
    """Mouth and eye crops (n, 3, 64, 64) uint8 of all frames of clips: `made` by the renderer, `real` in the clip."""
    made, real = [], []
    for path in files:
        take = Take(read_clip(path), replace(model, inpainter=None), torch.device("cpu"))
        camera = take.head.camera
        for index, (frame, _) in enumerate(render_frames(take.head, take.motion, size=take.clip.size)):
            boxes = crop_boxes(take.head, camera, take.motion.rotation[index], take.motion.translation[index])
            truth = np.round(take.clip.picture(index) * 255).astype(np.uint8)
            for target, source in ((made, frame), (real, truth)):
                target.append((crops_of(source, boxes) * 255).round().byte())
    shape = (0, 3, CROP, CROP)
    return {
        name: torch.cat(crops) if crops else torch.zeros(shape, dtype=torch.uint8)
        for name, crops in (("made", made), ("real", real))
    }
