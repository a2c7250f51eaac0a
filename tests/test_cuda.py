"""What runs on a graphics card gives what the CPU gives: gsplat, networks, training. Skipped without CUDA."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mggtalk_core.gaussians.sgp import predict_invisible, predict_visible
from mggtalk_core.model import MGGTalkModel
from mggtalk_core.rendering.frames import LiveRenderer, render_frames
from mggtalk_core.rendering.inpainter import Inpainter, inpaint
from mggtalk_core.rendering.rasterize_torch import covariance
from mggtalk_core.rendering.rasterizer import render
from mggtalk_core.training import trainer
from mggtalk_core.training.picture import PICTURE_NETWORKS, inpainter_stage, picture_stage
from mggtalk_core.training.trainer import Settings
from mggtalk_core.types import Motion
from mggtalk_core.weights import load_model, read_checkpoint

from .test_picture import SIZE, clip, clips, portrait  # noqa: F401  (fixtures)
from .test_rasterizer import assert_same_picture, fields, relative, scene
from .test_training import SETTINGS, line_stage

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a graphics card with CUDA")

CUDA = torch.device("cuda")


@pytest.fixture
def gsplat():
    return pytest.importorskip("gsplat")


def on_cuda(arguments):
    return [value.to(CUDA) if isinstance(value, torch.Tensor) else value for value in arguments]


def on_cpu(tensors):
    return [tensor.cpu() for tensor in tensors]


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_gsplat_draws_what_the_cpu_draws(gsplat, channels):
    arguments = scene(channels=channels)
    theirs = fields(render(*on_cuda(arguments), backend="gsplat"))
    assert_same_picture(on_cpu(theirs), fields(render(*arguments, backend="cpu")), outliers=6, mean_error=2e-6)


def test_gsplat_draws_batches_of_cameras_and_of_gaussians(gsplat):
    means, quats, scales, opacities, colors, viewmat, K, width, height = scene()
    views = torch.stack([viewmat, viewmat.inverse(), torch.eye(4)])
    moving = torch.stack([means, means + 0.02, means - 0.03])
    covars = covariance(quats, scales)
    for arguments, extents in (
        ((means, quats, scales, opacities, colors, views, K, width, height), {}),
        ((moving, quats, scales, opacities, colors, viewmat, K, width, height), {}),
        ((moving, None, None, opacities, colors, views, K, width, height), {"covars": covars}),
    ):
        on_card = {name: value.to(CUDA) for name, value in extents.items()}
        theirs = fields(render(*on_cuda(arguments), backend="gsplat", **on_card))
        ours = fields(render(*arguments, backend="cpu", **extents))
        assert_same_picture(on_cpu(theirs), ours, outliers=12, mean_error=2e-6)


def test_gsplat_gradients_are_the_cpus(gsplat):
    def gradients_on(device, backend):
        arguments = [v.to(device) if isinstance(v, torch.Tensor) else v for v in scene(n=200)]
        inputs = [tensor.requires_grad_() for tensor in arguments[:5]]
        outputs = fields(render(*arguments, backend=backend))
        generator = torch.Generator().manual_seed(0)
        weights = [torch.randn(output.shape, generator=generator).to(device) for output in outputs]
        return on_cpu(torch.autograd.grad(outputs, inputs, weights))

    for theirs, ours in zip(gradients_on(CUDA, "gsplat"), gradients_on("cpu", "cpu")):
        assert relative(theirs, ours) < 2e-3


def test_a_driven_head_looks_the_same(gsplat, demo_head):
    expression = np.repeat(demo_head.source_expression.numpy()[None], 3, 0)
    expression[1:, 17] = 0.5
    rotation = np.zeros((3, 3), np.float32)
    rotation[2, 1] = 0.3
    motion = Motion(expression, rotation, np.zeros((3, 3), np.float32), 25.0)
    pairs = zip(*(list(render_frames(demo_head, motion, size=256, backend=name)) for name in ("gsplat", "cpu")))
    for (rgb, alpha), (rgb_cpu, alpha_cpu) in pairs:
        for picture, expected in ((rgb, rgb_cpu), (alpha, alpha_cpu)):
            difference = np.abs(picture.astype(int) - expected)
            assert difference.mean() < 0.1 and np.percentile(difference, 99.9) <= 2
    live, _ = LiveRenderer(demo_head).frame(expression[1], rotation[1], motion.translation[1], demo_head.camera)
    assert live.shape == (256, 256, 3)


def test_networks_on_the_card_build_the_same_head(demo_points):
    model = load_model()
    networks = {name: network for name, network in vars(model).items() if isinstance(network, torch.nn.Module)}
    assert networks
    expected = predict_invisible(model, predict_visible(model, demo_points))
    moved = replace(model, device=CUDA, **{name: network.to(CUDA) for name, network in networks.items()})
    head = predict_invisible(moved, predict_visible(moved, demo_points))
    for network in networks.values():
        network.cpu()
    assert not torch.equal(expected.colors, predict_of_prior(demo_points).colors)
    assert (head.colors - expected.colors).abs().max() < 0.01 and head.colors.device.type == "cpu"


def predict_of_prior(points):
    prior = MGGTalkModel()
    return predict_invisible(prior, predict_visible(prior, points))


def test_the_inpainter_on_the_card_paints_the_same():
    torch.manual_seed(0)
    network = Inpainter()
    torch.nn.init.normal_(network.head.weight, 0, 0.2)
    frame = np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(np.uint8)
    boxes = np.array([[64, 80, 30], [40, 40, 15], [88, 40, 15]], np.float32)
    expected = inpaint(network, frame, boxes)
    difference = np.abs(inpaint(network.to(CUDA), frame, boxes).astype(int) - expected)
    assert difference.max() <= 2 and (expected != frame).any()


def test_stages_learn_on_the_card(clips, tmp_path):  # noqa: F811
    files = sorted(clips.glob("*.safetensors"))
    settings = Settings(stage="picture", steps=25, batch=1, learning_rate=0.01, validate_every=25)
    (tmp_path / "picture").mkdir()
    report = trainer.fit(picture_stage(settings, files, load_model(), CUDA), settings, tmp_path / "picture")
    assert report["psnr"] > report["psnr_prior"] + 0.5
    loaded = read_checkpoint(tmp_path / "picture" / "checkpoint.safetensors")
    assert all(getattr(loaded, name) is not None for name in PICTURE_NETWORKS)
    settings = Settings(stage="inpainter", steps=12, batch=4, learning_rate=3e-3, validate_every=12, adversarial=0.01)
    (tmp_path / "inpainter").mkdir()
    report = trainer.fit(inpainter_stage(settings, files, load_model(), CUDA), settings, tmp_path / "inpainter")
    assert report["psnr"] > report["psnr_prior"]


def test_resuming_on_the_card_goes_on(tmp_path):
    stage = replace(line_stage(), device=CUDA)
    trainer.fit(stage, replace(SETTINGS, steps=40), tmp_path)
    report = trainer.fit(replace(line_stage(), device=CUDA), SETTINGS, tmp_path, resume=True)
    assert report["steps"] == SETTINGS.steps and report["error"] < 0.2
