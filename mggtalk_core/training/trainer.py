"""`mggtalk train`: one settings file, one stage, one folder of results.

A stage says what a batch is and what its loss is; the loop here does the rest: several processes (torch.distributed,
as torchrun starts them), moving average of the weights, resuming, CSV and TensorBoard, sample pictures, checkpoints.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ..errors import InputError
from ..media.files import atomic_path, require_file
from ..media.image import as_bytes
from ..weights import NETWORKS, checkpoint_notes, read_checkpoint, write_checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """The settings file, .json."""

    stage: str  # a key of `stages()`
    data: str = ""  # folder of samples or clips; where samples are made if there are fewer than asked for
    steps: int = 2000
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    ema: float = 0.995
    validate_every: int = 200
    held_out: float = 0.1  # share of the data that is never trained on: the last files by name
    seed: int = 0
    networks: dict | None = None  # constructor settings per network
    start: str = ""  # a checkpoint to begin with
    assets: str = ""  # MakeHuman's asset folder, for stages that make people
    photos: str = ""  # folder of photos (.jpg): of people who get spectacles; to stand before, else made-up rooms
    without: Sequence[str] = ()  # names of photos that are left out
    samples: int = 0  # how many samples to make first
    vgg: str = ""  # VGG-16 weights, .safetensors, for the perceptual term; without, gradients stand in
    adversarial: float = 0.0  # weight of the critic's gradient in the inpainter stage

    @staticmethod
    def of(values: dict, path: Path) -> Settings:
        """Settings from the values of a file.

        Raises:
            InputError: a setting that does not exist.
        """
        known = Settings.__annotations__
        unknown = set(values) - set(known)
        if unknown or "stage" not in values:
            raise InputError(f"{path}: {sorted(unknown)[0] if unknown else 'stage'!r} is "
                             f"{'no setting' if unknown else 'missing'}; settings are {', '.join(known)}")  # fmt: skip
        return Settings(**values)


def read_json(path: Path) -> dict:
    """A settings file.

    Raises:
        InputError: not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None


@dataclass(frozen=True)
class Recipe:
    """Several stages, one after the other: what makes a checkpoint from nothing."""

    stages: list[str]  # recipes by name, in order
    ship: list[str]  # fields of MGGTalkModel that go into mggtalk.safetensors; the others help no real clip
    seed: int = 0
    data: str = ""  # what it is trained on, for the checkpoint's header


@dataclass(frozen=True)
class Stage:
    """What is particular to one stage of training."""

    networks: dict[str, nn.Module]
    batches: Callable[[np.random.Generator], Iterator[object]]  # endless training batches of one process
    loss: Callable[[dict[str, nn.Module], object], dict[str, torch.Tensor]]  # "loss" is minimised, others are logged
    validate: Callable[[dict[str, nn.Module]], dict[str, float]]  # on the held-out share
    picture: Callable[[dict[str, nn.Module]], np.ndarray] | None = None  # (H, W, 3) 0..1 for a look
    device: torch.device = torch.device("cpu")  # of the networks and the batches their loss gets


RECIPES = Path(__file__).parent / "recipes"


def training_device() -> torch.device:
    """This process's graphics card, where there is one; `CUDA_VISIBLE_DEVICES=` in the environment keeps to the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def train(
    config: str,
    output: str,
    *,
    resume: bool = False,
    data: str | None = None,
    assets: str | None = None,
    photos: str | None = None,
) -> dict:
    """Train as a settings file says; writes checkpoint.safetensors, log.csv, TensorBoard events and pictures.

    `config` is a file or the name of one in recipes/; `data`, `assets` and `photos` replace the settings' own.
    A recipe of several stages (`Recipe`) runs them one after the other.

    Raises:
        InputError: settings or data that can't be used.
    """
    recipe = RECIPES / f"{config}.json"
    path = recipe if recipe.is_file() else require_file(config, "training settings")
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    rank, world = _join_processes()
    values = read_json(path)
    if "stages" in values:
        replaced = {"assets": assets or "", "photos": photos or ""}
        report = _train_stages(Recipe(**values), folder, rank, world, resume, data, replaced)
    else:
        settings = Settings.of(values, path)
        settings = replace(
            settings, data=data or settings.data or str(folder / "samples"), assets=assets or settings.assets,
            photos=photos or settings.photos,
        )  # fmt: skip
        report = _train_stage(settings, folder, rank, world, resume)
    if world > 1:
        torch.distributed.destroy_process_group()
    return report


def _train_stages(
    recipe: Recipe, folder: Path, rank: int, world: int, resume: bool, data: str | None, sources: dict[str, str]
) -> dict:
    """Every stage in its own folder, each on what ships of those before it; then all.safetensors and what ships.

    Raises:
        InputError: a stage learns from clips and there are none.
    """
    from .stages import CLIP_STAGES

    start, reports = "", {}
    for name in recipe.stages:
        path = RECIPES / f"{name}.json"
        settings = Settings.of(read_json(path), path)
        on_clips = settings.stage in CLIP_STAGES
        if on_clips and not data:
            raise InputError(f"stage {name} learns from clips; give --data, a folder made by `mggtalk preprocess`")
        settings = replace(
            settings, seed=recipe.seed, data=data if on_clips else str(folder / name / "samples"), start=start,
            **sources,
        )  # fmt: skip
        (folder / name).mkdir(exist_ok=True)
        reports[name] = _train_stage(settings, folder / name, rank, world, resume)
        if rank == 0:
            _collect(recipe, folder, list(reports))
        _wait_for_all(world)  # the others, for what the first one collects
        shipped = folder / "mggtalk.safetensors"
        if shipped.exists() and set(checkpoint_notes(shipped)["stages"]) <= set(reports):  # not an earlier run's
            start = str(shipped)
    return {"output": str(folder / "mggtalk.safetensors"), **reports}


def _collect(recipe: Recipe, folder: Path, done: list[str]) -> None:
    """Writes all.safetensors, the networks of the stages done, and mggtalk.safetensors, those that ship."""
    networks, options, abouts = {}, {}, {}
    for name in done:
        checkpoint = folder / name / "checkpoint.safetensors"
        if checkpoint.exists():
            abouts[name], model = checkpoint_notes(checkpoint), read_checkpoint(checkpoint)
            networks |= {field: getattr(model, field) for field in abouts[name]["networks"]}
            options |= abouts[name]["networks"]
    for name, fields in (("all", list(networks)), ("mggtalk", [field for field in networks if field in recipe.ship])):
        stages = {stage: about for stage, about in abouts.items() if set(about["networks"]) & set(fields)}
        if stages:
            chosen = {field: networks[field] for field in fields}
            notes = {"seed": recipe.seed, "data": recipe.data, "stages": stages}
            write_checkpoint(folder / f"{name}.safetensors", chosen, options, notes)


def _train_stage(settings: Settings, folder: Path, rank: int, world: int, resume: bool) -> dict:
    from .stages import make_missing_samples, make_stage

    checkpoint = folder / "checkpoint.safetensors"
    if resume and checkpoint.exists():
        notes = checkpoint_notes(checkpoint)
        if notes["steps"] >= settings.steps:  # done by the run before
            return {**notes["validation"], "output": str(checkpoint)}
    if settings.samples:
        make_missing_samples(settings, rank, world)
        _wait_for_all(world)
    torch.manual_seed(settings.seed)
    stage = make_stage(settings, folder, training_device())
    if isinstance(stage, dict):  # a stage that has its own short loop and is done
        return stage
    if settings.start:
        started = read_checkpoint(require_file(settings.start, "start"))
        for name, network in stage.networks.items():
            if getattr(started, name, None) is not None:
                network.load_state_dict(getattr(started, name).state_dict())
    return fit(stage, settings, folder, rank=rank, world=world, resume=resume)


def fit(stage: Stage, settings: Settings, folder: Path, *, rank: int = 0, world: int = 1, resume: bool = False) -> dict:
    """Run a stage's loop on its device; returns the last validation and where the checkpoint is."""
    networks = {name: network.to(stage.device) for name, network in stage.networks.items()}
    parameters = [parameter for network in networks.values() for parameter in network.parameters()]
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
    average = {name: {key: value.clone() for key, value in net.state_dict().items()} for name, net in networks.items()}
    step, seconds = 0, 0.0
    state_path = folder / "state.safetensors"
    if resume and state_path.exists():
        step, seconds = _read_state(state_path, networks, average, optimizer, parameters)
    if world > 1:  # everybody starts from the first process's weights
        for parameter in parameters:
            torch.distributed.broadcast(parameter.data, 0)
    writer = _Log(folder, resume) if rank == 0 else None
    begin, validation = time.perf_counter() - seconds, {}
    while step < settings.steps:
        # Each step draws from its own seed, so that a resumed run sees what an uninterrupted one would have; every
        # process draws the same whole batch and works on its share, so that N processes equal one.
        batch = next(stage.batches(np.random.default_rng([settings.seed, step])))
        share = {name: value.to(stage.device) for name, value in _share(batch, rank, world).items()}
        losses = stage.loss(networks, share)
        optimizer.zero_grad()
        losses["loss"].backward()
        if world > 1:
            _average_gradients(parameters, world)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        optimizer.step()
        step += 1
        decay = min(settings.ema, step / (step + 10))
        for name, network in networks.items():
            for key, value in network.state_dict().items():
                average[name][key].lerp_(value, 1 - decay)
        if rank == 0 and (step % settings.validate_every == 0 or step == settings.steps):
            seconds = time.perf_counter() - begin
            with _weights_of(networks, average):
                validation = stage.validate(networks)
                if stage.picture:
                    _save_picture(folder / "samples.png", stage.picture(networks))
                kept = {name: network for name, network in networks.items() if name in NETWORKS}  # not a critic
                write_checkpoint(
                    folder / "checkpoint.safetensors", kept, settings.networks or {},
                    {"stage": settings.stage, "steps": step, "seconds": seconds, "validation": validation},
                )  # fmt: skip
            row = {name: float(value.detach()) for name, value in losses.items()} | validation
            writer.write(step, seconds, row)
            log.info("step %d of %d, %.0f s: %s", step, settings.steps, seconds,
                     ", ".join(f"{name} {value:.4f}" for name, value in row.items()))  # fmt: skip
            _write_state(state_path, networks, average, optimizer, parameters, step, seconds)
    return {"steps": step, "seconds": time.perf_counter() - begin, **validation,
            "output": str(folder / "checkpoint.safetensors")}  # fmt: skip


WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""


def learning_rate(settings: Settings, step: int) -> float:
    """Linear rise, then a cosine down to 1 %."""
    progress = step / max(settings.steps, 1)
    if progress < WARM_UP:
        return settings.learning_rate * (step + 1) / max(WARM_UP * settings.steps, 1)
    fall = (progress - WARM_UP) / (1 - WARM_UP)
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * fall)))


def _average_gradients(parameters: list[nn.Parameter], world: int) -> None:
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        torch.distributed.all_reduce(parameter.grad)
        parameter.grad /= world


def _write_state(path, networks, average, optimizer, parameters, step: int, seconds: float) -> None:
    """Everything needed to go on, as one safetensors file."""
    tensors = {f"network/{n}/{key}": value for n, net in networks.items() for key, value in net.state_dict().items()}
    tensors |= {f"average/{n}/{key}": value for n, weights in average.items() for key, value in weights.items()}
    for index, parameter in enumerate(parameters):
        tensors |= {f"optimizer/{index}/{key}": value for key, value in optimizer.state[parameter].items()}
    with atomic_path(path) as partial:
        save_file(
            {name: value.contiguous().clone() for name, value in tensors.items()}, str(partial),
            {"step": str(step), "seconds": str(seconds)},
        )  # fmt: skip


def _read_state(path, networks, average, optimizer, parameters) -> tuple[int, float]:
    """Put back what `_write_state` wrote; returns step and seconds."""
    with safe_open(str(path), "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()

    def under(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    for name, network in networks.items():
        network.load_state_dict(under(f"network/{name}/"))
        for key, value in under(f"average/{name}/").items():
            average[name][key].copy_(value)
    for index, parameter in enumerate(parameters):
        state = under(f"optimizer/{index}/")
        optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in state.items()}
    return int(metadata["step"]), float(metadata["seconds"])


def _join_processes() -> tuple[int, int]:
    """Rank and number of processes, as torchrun sets them; joins them over gloo (CPU) or nccl (GPU)."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        if torch.cuda.is_available():
            torch.cuda.set_device(training_device())
    return int(os.environ.get("RANK", "0")), world


def _wait_for_all(world: int) -> None:
    if world > 1:
        torch.distributed.barrier()


def _share(batch, rank: int, world: int):
    """One process's equal part of a batch: tensors cut along their first axis."""
    if world == 1:
        return batch
    count = len(next(iter(batch.values()))) // world
    return {name: value[rank * count : (rank + 1) * count] for name, value in batch.items()}


@contextmanager
def _weights_of(networks: dict[str, nn.Module], weights: dict[str, dict]) -> Iterator[None]:
    """Other weights in the networks, without gradients, for the time of a block."""
    kept = {name: {key: value.clone() for key, value in net.state_dict().items()} for name, net in networks.items()}
    for name, network in networks.items():
        network.load_state_dict(weights[name])
        network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for name, network in networks.items():
            network.load_state_dict(kept[name])
            network.train()


class _Log:
    """log.csv, and TensorBoard events where tensorboard is installed."""

    def __init__(self, folder: Path, resume: bool):
        self._path = folder / "log.csv"
        if not resume:
            self._path.unlink(missing_ok=True)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._board = None
        else:
            self._board = SummaryWriter(str(folder))

    def write(self, step: int, seconds: float, row: dict[str, float]) -> None:
        """Add one line."""
        fresh = not self._path.exists()
        with open(self._path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["step", "seconds", *row])
            if fresh:
                writer.writeheader()
            writer.writerow({"step": step, "seconds": round(seconds, 1), **row})
        if self._board:
            for name, value in row.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()


def _save_picture(path: Path, picture: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(as_bytes(picture)).save(path)
