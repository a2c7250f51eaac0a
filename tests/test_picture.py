"""Learning from rendered pictures of clips: takes start at the prior, every network gets a gradient, recipes chain."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mggtalk_core.errors import InputError
from mggtalk_core.rendering.frames import render_frames
from mggtalk_core.training import trainer
from mggtalk_core.training.clips import Clip, to_jpeg, write_clip
from mggtalk_core.training.losses import VGGFeatures
from mggtalk_core.training.picture import (
    PICTURE_NETWORKS,
    PatchCritic,
    adversarial_loss,
    draw,
    inpainter_stage,
    picture_stage,
    split,
)
from mggtalk_core.training.preprocess import SHEET_COLUMNS, SHEET_TILE, contact_sheet
from mggtalk_core.training.takes import Take
from mggtalk_core.training.trainer import Settings, train
from mggtalk_core.types import Motion
from mggtalk_core.weights import load_model, read_checkpoint

SIZE, FRAMES = 128, 4


def clip_of(portrait, head, name="redder") -> Clip:
    """The head of a portrait opening its mouth and turning, as a tracked clip; redder than the prior, as a lesson."""
    camera, fit = head.camera, portrait.fit
    expression = np.repeat(head.source_expression.numpy()[None], FRAMES, 0)
    expression[1:, 17] += np.linspace(0.2, 0.5, FRAMES - 1)
    rotation = np.zeros((FRAMES, 3), np.float32)
    rotation[1:, 1] = 0.08
    motion = Motion(expression.clip(0, 1), rotation, np.zeros((FRAMES, 3), np.float32), 25.0)
    redder = replace(head, colors=(head.colors * torch.tensor([1.1, 0.95, 0.9])).clamp(0, 1))
    frames = [to_jpeg(rgb / 255) for rgb, _ in render_frames(redder, motion, size=SIZE)]
    frames[0] = to_jpeg(portrait.image)
    turn = np.array([[[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]] for a in rotation[:, 1]])
    neck = head.neck.numpy()
    shift = fit.translation + (neck - turn @ neck) @ fit.rotation.T
    return Clip(
        name, tuple(frames), (to_jpeg(portrait.alpha),) * FRAMES, np.repeat(portrait.landmarks[None], FRAMES, 0),
        np.repeat(portrait.scores[None], FRAMES, 0), motion.expression, (fit.rotation @ turn).astype(np.float32),
        shift.astype(np.float32), np.zeros((478, 3), np.float32), camera.K,
    )  # fmt: skip


@pytest.fixture(scope="module")
def portrait():
    from mggtalk_core.assets import DEMO_PORTRAIT
    from mggtalk_core.media.image import read_photo
    from mggtalk_core.portrait.analysis import analyze_portrait

    return analyze_portrait(read_photo(DEMO_PORTRAIT), size=SIZE)


@pytest.fixture(scope="module")
def clip(portrait):
    from mggtalk_core.gaussians.sgp import predict_invisible, predict_visible
    from mggtalk_core.geometry.dsgr import build_points, estimate_depth

    model = load_model()
    points = build_points(portrait, estimate_depth(portrait))
    return clip_of(portrait, predict_invisible(model, predict_visible(model, points)))


@pytest.fixture(scope="module")
def take(clip):
    return Take(clip, load_model(), torch.device("cpu"))


@pytest.fixture(scope="module")
def clips(clip, tmp_path_factory):
    """A folder with the clip under seven names."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(7):
        write_clip(clip, folder / f"c{number}.safetensors")
    return folder


def test_a_take_moves_as_the_renderer_does(take):
    """Untrained networks draw what render_frames draws of the take's head and motion."""
    torch.manual_seed(0)
    networks = {name: network() for name, network in PICTURE_NETWORKS.items()}
    expected = [rgb for rgb, _ in render_frames(take.head, take.motion, size=SIZE)]
    for index in range(FRAMES):
        with torch.no_grad():
            picture, tidy = draw(networks, take, take.moved(index))
        assert tidy == 0
        difference = np.abs(picture.numpy() * 255 - expected[index])
        assert difference.mean() < 0.7 and np.percentile(difference, 99) < 5


def test_densify_is_judged_before_and_after(clips):
    """The paper's loss compares the parents' picture and that with their children; untrained both are the same."""
    settings = Settings(stage="picture", steps=1, batch=2, networks={"densify": {}})
    stage = picture_stage(settings, sorted(clips.glob("*")), load_model(), torch.device("cpu"))
    batch = next(stage.batches(np.random.default_rng(0)))
    terms = stage.loss(stage.networks, batch)
    assert terms["parents_l1"] == terms["l1"] and terms["parents_ssim"] == terms["ssim"]
    settings = replace(settings, networks={"mouth_tone": {}})
    plain = picture_stage(settings, sorted(clips.glob("*")), load_model(), torch.device("cpu"))
    once = plain.loss(plain.networks, batch)["loss"]
    torch.testing.assert_close(terms["loss"], 2 * once, rtol=1e-4, atol=0)
    terms["loss"].backward()
    assert stage.networks["densify"].head.bias.grad[0] != 0  # untrained shares are 0, at their bound


def test_a_take_is_aligned_with_its_clip(take):
    """The clip was rendered from the same head: pose and expression of later frames must come out again."""
    moved = take.moved(FRAMES - 1)
    picture, _ = draw({}, take, moved)
    still, _ = draw({}, take, take.moved(0))
    inside = (moved.mask > 0)[..., None]
    error, error_still = (((image - moved.truth).abs() * inside).sum() for image in (picture, still))
    assert error < 0.75 * error_still


def test_every_network_of_the_picture_stage_learns(take):
    torch.manual_seed(0)
    networks = {name: network() for name, network in PICTURE_NETWORKS.items()}
    for network in networks.values():  # off the zero where only the last layer has a gradient
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, 0, 0.02)
    moved = take.moved(FRAMES - 1)
    picture, tidy = draw(networks, take, moved)
    (((picture - moved.truth) ** 2 * moved.mask[..., None]).mean() + tidy).backward()
    for name, network in networks.items():
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters()), name
        assert sum(p.grad.abs().sum() for p in network.parameters()) > 0, name


def test_the_picture_stage_brings_rendered_frames_closer(clips, tmp_path):
    settings = Settings(stage="picture", steps=25, batch=1, learning_rate=0.01, validate_every=25)
    stage = picture_stage(settings, sorted(clips.glob("*.safetensors")), load_model(), torch.device("cpu"))
    report = trainer.fit(stage, settings, tmp_path)
    assert report["psnr"] > report["psnr_prior"] + 0.5
    loaded = read_checkpoint(tmp_path / "checkpoint.safetensors")
    assert all(getattr(loaded, name) is not None for name in PICTURE_NETWORKS)
    assert (tmp_path / "samples.png").exists()


def test_the_inpainter_learns_with_a_critic_that_is_not_kept(clips, tmp_path):
    settings = Settings(stage="inpainter", steps=12, batch=4, learning_rate=3e-3, validate_every=12, adversarial=0.01)
    stage = inpainter_stage(settings, sorted(clips.glob("*.safetensors")), load_model(), torch.device("cpu"))
    report = trainer.fit(stage, settings, tmp_path)
    assert report["psnr"] > report["psnr_prior"]
    assert read_checkpoint(tmp_path / "checkpoint.safetensors").inpainter is not None


def test_the_critic_pulls_what_it_judges_towards_the_real():
    torch.manual_seed(0)
    critic, real = PatchCritic(), torch.full((4, 3, 64, 64), 0.8)
    made = torch.full((4, 3, 64, 64), 0.3, requires_grad=True)
    optimizer = torch.optim.Adam(critic.parameters(), 1e-3)
    for _ in range(30):  # the critic alone
        optimizer.zero_grad()
        loss = adversarial_loss(critic, made.detach(), real, 1.0)
        loss.backward()
        optimizer.step()
    assert loss < 0.7  # better than guessing, 1.39
    adversarial_loss(critic, made, real, 1.0).backward()
    assert made.grad.mean() < 0  # descending makes it brighter, as the real is


def test_every_tenth_clip_is_held_out(tmp_path):
    files = [tmp_path / f"{number:02}.safetensors" for number in range(25)]
    kept, held_out = split(files)
    assert [file.stem for file in held_out] == ["05", "15"] and not set(kept) & set(held_out)


def test_vgg_features_are_read_and_foreign_files_refused(tmp_path):
    torch.manual_seed(0)
    sizes = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256)}
    weights = {f"features.{layer}.weight": torch.randn(*size, 3, 3) * 0.05 for layer, size in sizes.items()}
    save_file(weights | {f"features.{layer}.bias": torch.zeros(size[0]) for layer, size in sizes.items()},
              tmp_path / "vgg.safetensors")  # fmt: skip
    maps = VGGFeatures(tmp_path / "vgg.safetensors")(torch.rand(1, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 32, 32), (128, 16, 16), (256, 8, 8)]
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not VGG-16"):
        VGGFeatures(tmp_path / "other.safetensors")


def test_a_recipe_runs_its_stages_and_collects_what_ships(clips, tmp_path, monkeypatch):
    """Two tiny stages: the second starts from what ships of the first; all.safetensors holds everything."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    tiny = {"steps": 2, "batch": 1, "validate_every": 2}
    picture = {"stage": "picture", "networks": {"mouth_tone": {}, "deformation": {"rank": 2}}, **tiny}
    (recipes / "first.json").write_text(json.dumps(picture))
    (recipes / "second.json").write_text(json.dumps({"stage": "inpainter", **tiny}))
    (recipes / "both.json").write_text(json.dumps({"stages": ["first", "second"], "ship": ["mouth_tone"]}))
    monkeypatch.setattr(trainer, "RECIPES", recipes)
    with pytest.raises(InputError, match="give --data"):
        train("both", str(tmp_path / "none"))
    report = train("both", str(tmp_path / "out"), data=str(clips))
    shipped, everything = read_checkpoint(tmp_path / "out/mggtalk.safetensors"), tmp_path / "out/all.safetensors"
    assert report["output"].endswith("mggtalk.safetensors")
    assert shipped.mouth_tone is not None and shipped.deformation is None and shipped.inpainter is None
    assert read_checkpoint(everything).inpainter is not None and read_checkpoint(everything).deformation.rank == 2
    again = train("both", str(tmp_path / "out2"), data=str(clips))
    for name in ("psnr", "mouth_psnr"):
        assert again["first"][name] == report["first"][name]  # the seed decides
    written = (tmp_path / "out/first/checkpoint.safetensors").stat().st_mtime_ns
    resumed = train("both", str(tmp_path / "out"), data=str(tmp_path / "no clips"), resume=True)
    assert resumed["first"]["psnr"] == report["first"]["psnr"]  # finished stages are not run again
    assert (tmp_path / "out/first/checkpoint.safetensors").stat().st_mtime_ns == written


def test_the_contact_sheet_shows_every_clip(clips):
    sheet = contact_sheet(sorted(clips.glob("*.safetensors")))
    assert sheet.shape == (SHEET_TILE, SHEET_COLUMNS * SHEET_TILE, 3)
    tiles = sheet.reshape(SHEET_TILE, SHEET_COLUMNS, SHEET_TILE, 3).std((0, 2, 3))
    assert (tiles[:7] > 10).all() and tiles[7] == 0
