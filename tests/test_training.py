"""Training: resuming and several processes change nothing, clips survive the disk, the expression map learns."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mggtalk_core.errors import InputError
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.headmodel.expression_map import EXPRESSION_MAP_FILE, load_expression_map
from mggtalk_core.headmodel.model import load_head_model
from mggtalk_core.training.clips import Clip, read_clip, to_jpeg, write_clip
from mggtalk_core.training.expression_map import (
    canonical_landmarks,
    expression_mirror,
    gather,
    landmark_mirror,
    save_map,
    train_map,
)
from mggtalk_core.training.trainer import Settings, Stage, fit, train

ROOT = Path(__file__).resolve().parents[1]


def line_stage() -> Stage:
    """Learn y = 2 x - 1 with a linear layer called geo_refine (any checkpointable name does)."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))

    def batches(rng):
        while True:
            x = torch.from_numpy(rng.uniform(-1, 1, (8, 1)).astype(np.float32))
            yield {"x": x, "y": 2 * x - 1}

    def loss(networks, batch):
        return {"loss": ((networks["geo_refine"](batch["x"]) - batch["y"]) ** 2).mean()}

    def validate(networks):
        x = torch.linspace(-1, 1, 9, device=next(networks["geo_refine"].parameters()).device)[:, None]
        return {"error": float(((networks["geo_refine"](x) - (2 * x - 1)) ** 2).mean())}

    return Stage({"geo_refine": network}, batches, loss, validate)


SETTINGS = Settings(stage="line", steps=60, validate_every=20, learning_rate=0.05)


def weights_after(folder, resume=False):
    stage = line_stage()
    report = fit(stage, SETTINGS, folder, resume=resume)
    return stage.networks["geo_refine"].state_dict(), report


def test_the_loop_learns_and_writes_its_log(tmp_path):
    _, report = weights_after(tmp_path)
    assert report["error"] < 0.2
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "step,seconds,loss,error" and [line.split(",")[0] for line in lines[1:]] == ["20", "40", "60"]
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_resuming_equals_not_stopping(tmp_path):
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
    whole, _ = weights_after(tmp_path / "whole")

    class Stopped(Exception):
        pass

    stage, calls = line_stage(), []

    def stopping_loss(networks, batch):
        calls.append(1)
        if len(calls) > 40:
            raise Stopped
        return stage.loss(networks, batch)

    with pytest.raises(Stopped):
        fit(Stage(stage.networks, stage.batches, stopping_loss, stage.validate), SETTINGS, tmp_path / "halves")
    resumed, _ = weights_after(tmp_path / "halves", resume=True)
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, rtol=0, atol=0)


WORKER = """
import sys, torch
sys.path[:0] = [{tests!r}, {root!r}]
from pathlib import Path
from test_training import line_stage
from mggtalk_core.training.trainer import Settings, fit, _join_processes
rank, world = _join_processes()
stage = line_stage()
fit(stage, Settings(stage="line", steps=25, learning_rate=0.05), Path(sys.argv[1]), rank=rank, world=world)
if rank == 0:
    from safetensors.torch import save_file
    save_file(stage.networks["geo_refine"].state_dict(), sys.argv[1] + "/result.safetensors")
"""


def test_two_processes_equal_one(tmp_path):
    """Gloo over two processes, each with half of every batch, ends at the weights of one process."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(tests=str(ROOT / "tests"), root=str(ROOT)))
    results = {}
    for world in (1, 2):
        folder = tmp_path / str(world)
        folder.mkdir()
        port = str(29500 + os.getpid() % 500 + world)
        processes = [
            subprocess.Popen(
                [sys.executable, str(script), str(folder)],
                env={
                    **os.environ,
                    "RANK": str(rank),
                    "WORLD_SIZE": str(world),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": port,
                    "OMP_NUM_THREADS": "1",
                },
                stderr=subprocess.PIPE,
            )  # fmt: skip
            for rank in range(world)
        ]
        for process in processes:
            assert process.wait(timeout=120) == 0, process.stderr.read().decode()[-2000:]
        from safetensors.torch import load_file

        results[world] = load_file(folder / "result.safetensors")
    for key, value in results[1].items():
        torch.testing.assert_close(results[2][key], value, rtol=1e-4, atol=1e-5)


def test_settings_errors_are_one_clear_sentence(tmp_path):
    path = tmp_path / "settings.json"
    for text, match in (("{", "not JSON"), ('{"steps": 3}', "stage"), ('{"stage": "x", "speed": 3}', "speed")):
        path.write_text(text)
        with pytest.raises(InputError, match=match):
            train(str(path), str(tmp_path / "out"))
    path.write_text(json.dumps({"stage": "nothing", "data": "absent"}))
    with pytest.raises(InputError, match="unknown"):
        train(str(path), str(tmp_path / "out"))


def made_clip(rng, frames=12) -> Clip:
    """A clip whose landmarks are exactly the head model's for random expressions; scores are half the coefficients."""
    head = load_head_model()
    expression = rng.uniform(0, 0.6, (frames, 52)).astype(np.float32) * (rng.random((frames, 52)) < 0.3)
    neutral = head.landmarks_of(head.mean)
    points = neutral + np.tensordot(expression, head.landmarks_of(head.expression_basis), 1) + [0, 0, 1.0]
    K = np.array([[1000.0, 0, 128], [0, 1000.0, 128], [0, 0, 1]], np.float32)
    landmarks = K[:2, 2] + 1000 * points[..., :2] / points[..., 2:]
    picture = to_jpeg(np.full((256, 256, 3), 0.5))
    return Clip(
        "made", (picture,) * frames, (to_jpeg(np.ones((256, 256))),) * frames, landmarks.astype(np.float32),
        0.5 * expression, expression, np.broadcast_to(np.eye(3, dtype=np.float32), (frames, 3, 3)),
        np.broadcast_to(np.float32([0, 0, 1]), (frames, 3)), neutral.astype(np.float32), K,
    )  # fmt: skip


def test_clips_survive_the_disk(tmp_path):
    clip = made_clip(np.random.default_rng(0))
    write_clip(clip, tmp_path / "made.safetensors")
    loaded = read_clip(tmp_path / "made.safetensors")
    assert loaded.frames == clip.frames and loaded.size == 256
    np.testing.assert_array_equal(loaded.landmarks, clip.landmarks)
    assert loaded.picture(3).shape == (256, 256, 3) and loaded.alpha(3).min() > 0.98


def test_mirrors_are_involutions():
    for mirror in (landmark_mirror(load_head_model()), expression_mirror()):
        np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    assert expression_mirror()[ARKIT_INDEX["jawLeft"]] == ARKIT_INDEX["jawRight"]


def test_canonical_landmarks_undo_the_camera():
    clip = made_clip(np.random.default_rng(1))
    head = load_head_model()
    fitted = clip.neutral_landmarks + np.tensordot(clip.expression, head.landmarks_of(head.expression_basis), 1)
    observed = canonical_landmarks(clip, head)
    scale = np.linalg.norm(observed[0, 468] - observed[0, 473]) / np.linalg.norm(fitted[0, 468] - fitted[0, 473])
    np.testing.assert_allclose(observed / scale, fitted, atol=1e-5)


def test_the_expression_map_learns_the_scale_of_the_scores(tmp_path):
    head, rng = load_head_model(), np.random.default_rng(2)
    data = gather([made_clip(rng) for _ in range(10)], head)
    network = train_map(data, head, steps=250, seed=0)
    save_map(network, tmp_path / "map.safetensors", {})
    learned = load_expression_map.__wrapped__(tmp_path / "map.safetensors")
    test = made_clip(rng)
    basis = head.landmarks_of(head.expression_basis)
    truth, raw = (np.tensordot(c - c[:1], basis, 1) for c in (test.expression, test.scores))
    mapped = learned(test.scores)
    mapped = np.tensordot(mapped - mapped[:1], basis, 1)
    assert np.abs(mapped - truth).mean() < 0.6 * np.abs(raw - truth).mean()
    np.testing.assert_allclose(
        mapped, np.tensordot((network(torch.from_numpy(test.scores)) - network(torch.from_numpy(test.scores[:1])))
                             .detach().numpy(), basis, 1), atol=1e-4,
    )  # fmt: skip


def test_the_shipped_expression_map_is_sane():
    """Closed stays closed, open opens, gaze keeps its direction."""
    if not EXPRESSION_MAP_FILE.exists():
        pytest.fail("the package lacks weights/expression_map.safetensors")
    shipped, zero = load_expression_map(), np.zeros(52, np.float32)
    same = shipped.expression(zero[None], zero, zero)
    np.testing.assert_allclose(same, 0, atol=1e-6)
    scores = zero.copy()
    scores[ARKIT_INDEX["jawOpen"]] = 0.6
    assert 0.2 < shipped.expression(scores[None], zero, zero)[0, ARKIT_INDEX["jawOpen"]] <= 1
