"""The rasterizer: every backend against gsplat's semantics, gradients, bad input, threads, memory."""

import builtins
import inspect
import os
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
import torch

from mggtalk_core.errors import InputError
from mggtalk_core.rendering import rasterizer
from mggtalk_core.rendering.rasterize_cpu import CpuRenderer, Rasterize
from mggtalk_core.rendering.rasterize_torch import covariance
from mggtalk_core.rendering.rasterizer import render

from .raster_reference import dense_render

FULL = [0, 1, 2, 1, 3, 4, 2, 4, 5]


def scene(n=400, width=64, height=48, channels=3, seed=0, dtype=torch.float32):
    """A cloud of overlapping splats, opaque enough that pixels stop, some across the border, some behind the camera."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0, [0.5, 0.4, 0.25], (n, 3)) + [0, 0, 2.0]
    means[: n // 50, 2] -= 3.0
    arrays = [
        means, rng.normal(size=(n, 4)), np.exp(rng.normal(-3.0, 0.7, (n, 3))),
        rng.uniform(0.02, 1.0, n), rng.uniform(0, 1, (n, channels)),
    ]  # fmt: skip
    turn = 0.2
    viewmat = np.eye(4)
    viewmat[:3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    viewmat[:3, 3] = [-0.3, 0.05, 0.1]
    K = np.array([[1.4 * width, 0, 0.5 * width + 1], [0, 1.3 * width, 0.5 * height - 2], [0, 0, 1]])
    return [torch.tensor(a, dtype=dtype) for a in (*arrays, viewmat, K)] + [width, height]


def fields(rendered):
    return rendered.rgb, rendered.alpha, rendered.depth


def psnr(a, b):
    return float(-10 * torch.log10(((a - b) ** 2).mean().detach()))


def assert_same_picture(a, b, outliers=2, mean_error=1e-6):
    """Mean error 1e-6 and PSNR 90 dB, except for a few pixels whose stop or skip decision rounds the other way."""
    for x, y in zip(a, b):
        difference = (x.double() - y.double()).abs()
        assert (difference > 1e-3).sum() <= outliers
        assert difference[difference <= 1e-3].mean() <= mean_error
        assert outliers > 0 or psnr(x.double(), y.double()) >= 90


def dense(means, quats, scales, opacities, colors, viewmat, K, width, height):
    covars = covariance(quats, scales)[:, FULL].reshape(-1, 3, 3)
    return dense_render(means, covars, opacities, colors, viewmat, K, width, height)


def gradients(outputs, inputs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(o.shape, generator=generator).to(o.dtype) for o in outputs]
    return torch.autograd.grad(outputs, inputs, weights)


def relative(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


# ---- the picture -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("channels", [1, 3, 8])
def test_backend_agrees_with_plain_gsplat(backend, channels):
    s = scene(channels=channels, seed=channels)
    assert_same_picture(fields(render(*s, backend=backend)), dense(*s), outliers=0)


def test_image_sizes_that_are_no_multiple_of_a_tile():
    for width, height in ((1, 1), (7, 3), (33, 65), (100, 31)):
        s = scene(width=width, height=height)
        assert_same_picture(fields(render(*s, backend="cpu")), dense(*s), outliers=0)


def test_large_and_thin_splats():
    """Long rows, thin diagonals and splats larger than the image take the row-by-row path or long runs."""
    s = scene(n=120, width=96, height=96, seed=3)
    s[2] = s[2] * torch.tensor([12.0, 0.1, 3.0])
    assert_same_picture(fields(render(*s, backend="cpu")), fields(render(*s, backend="torch")), outliers=0)
    # Needle-shaped covariances are ill-conditioned; how far rounding goes depends on the CPU (1.03e-6 on an EPYC).
    assert_same_picture(fields(render(*s, backend="cpu")), dense(*s), outliers=2, mean_error=2e-6)


def test_agrees_with_gsplats_own_torch_code():
    references = pytest.importorskip("mggtalk_core.benchmark_references")
    if not references.available():
        pytest.skip("gsplat and nerfacc are not installed")
    s = scene(n=3000, width=120, height=100, seed=5)
    inputs = [t.requires_grad_() for t in s[:5]]
    ours, theirs = fields(render(*s, backend="cpu")), references.gsplat_torch(*s)
    assert_same_picture(ours, theirs)
    for a, b in zip(gradients(ours, inputs), gradients(theirs, inputs)):
        assert relative(a, b) <= 1e-4


def test_covars_equal_quats_and_scales():
    s = scene()
    covars = covariance(s[1], s[2])
    expected = render(*s, backend="cpu")
    for given in (covars, covars[:, FULL].reshape(-1, 3, 3)):
        got = render(s[0], None, None, *s[3:], covars=given, backend="cpu")
        for a, b in zip(fields(got), fields(expected)):
            assert (a - b).abs().max() < 2e-4 and (a - b).abs().mean() < 1e-6


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_background(backend):
    s = scene()
    plain = render(*s, backend=backend)
    picture = torch.rand(s[-1], s[-2], 3)
    for background in (torch.tensor([0.2, 0.5, 0.9]), picture):
        over = render(*s, background, backend=backend)
        assert torch.allclose(over.rgb, plain.rgb + (1 - plain.alpha)[..., None] * background, atol=1e-6)
        assert torch.equal(over.alpha, plain.alpha)


def test_uint8_frames_are_the_rounded_picture():
    for width, height in ((64, 48), (61, 35)):
        s = scene(width=width, height=height)
        background = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        args = [s[0].numpy(), covariance(s[1], s[2]).numpy(), *(t.numpy() for t in s[3:7])]
        rgb, alpha = CpuRenderer().render_uint8(*args, width, height, background)
        expected = render(*s, torch.from_numpy(background).float() / 255, backend="cpu")
        assert rgb.dtype == alpha.dtype == np.uint8
        assert np.abs(rgb - expected.rgb.numpy() * 255).max() <= 0.51
        assert np.abs(alpha - expected.alpha.numpy() * 255).max() <= 0.51
        color, _ = CpuRenderer(1).render_uint8(*args, width, height, (10, 20, 30))
        assert (color[alpha == 0] == (10, 20, 30)).all()


def test_batches_are_stacked_single_views():
    s = scene()
    shifted = torch.stack([s[0], s[0] + 0.1, s[0] * 1.1])
    cameras = torch.stack([s[5], s[5], torch.eye(4)])
    for backend in ("cpu", "torch"):
        batch = render(shifted, *s[1:5], cameras, *s[6:], torch.tensor([0.0, 0.5, 1.0]), backend=backend)
        assert batch.rgb.shape == (3, 48, 64, 3) and batch.depth.shape == (3, 48, 64)
        for k in range(3):
            one = render(shifted[k], *s[1:5], cameras[k], *s[6:], torch.tensor([0.0, 0.5, 1.0]), backend=backend)
            assert all(torch.equal(a[k], b) for a, b in zip(fields(batch), fields(one)))


# ---- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_cpu_gradients_match_autograd_through_the_plain_code(threads):
    s = scene(n=300, seed=1)
    inputs = [t.requires_grad_() for t in s[:5]]
    ours = Rasterize.apply(s[0], None, *s[1:], threads)
    for a, b in zip(gradients(ours, inputs), gradients(dense(*s), inputs)):
        assert relative(a, b) <= 1e-4


def test_covariance_gradients():
    s = scene(n=300, seed=2)
    covars = covariance(s[1], s[2]).detach()
    inputs = [t.requires_grad_() for t in (s[0], covars, s[3], s[4])]
    results = [
        gradients(fields(render(s[0], None, None, *s[3:], covars=covars, backend=backend)), inputs)
        for backend in ("cpu", "torch")
    ]
    for a, b in zip(*results):
        assert relative(a, b) <= 1e-4


def test_gradcheck_of_the_torch_reference():
    s = scene(n=6, width=12, height=10, seed=4, dtype=torch.float64)
    s[0][:, 2] = s[0][:, 2].abs() + 1.0
    inputs = [t.requires_grad_() for t in s[:7]]

    def draw(*tensors):
        return fields(render(*tensors, 12, 10, torch.tensor([0.3, 0.2, 0.1]), backend="torch"))

    assert torch.autograd.gradcheck(draw, inputs, eps=1e-7, atol=1e-4, rtol=1e-3)


def test_gradients_may_be_asked_twice_and_interleaved():
    s, other = scene(seed=1), scene(seed=2)
    a, b = s[0].requires_grad_(), other[0].requires_grad_()
    first, second = render(*s, backend="cpu").rgb, render(*other, backend="cpu").rgb
    again = torch.autograd.grad(first.sum(), a, retain_graph=True)[0]
    torch.autograd.grad(second.sum(), b)
    assert torch.equal(torch.autograd.grad(first.sum(), a)[0], again)


def test_fitting_a_picture_lowers_the_loss():
    s = scene(n=200)
    target = render(*s, backend="cpu").rgb
    colors = torch.full_like(s[4], 0.5).requires_grad_()
    optimizer = torch.optim.Adam([colors], 0.05)
    losses = []
    for _ in range(30):
        loss = (render(*s[:4], colors, *s[5:], backend="cpu").rgb - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


def test_camera_gradients_use_torch():
    s = scene(n=50)
    s[5].requires_grad_()
    assert torch.autograd.grad(render(*s).rgb.sum(), s[5])[0].abs().sum() > 0
    with pytest.raises(InputError, match="viewmat"):
        render(*s, backend="cpu")


# ---- input nobody wants ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_few_gaussians(backend, n):
    s = scene(n=20)
    s[:5] = [t[10 : 10 + n].requires_grad_() for t in s[:5]]
    out = render(*s, torch.tensor([0.1, 0.2, 0.3]), backend=backend)
    assert n > 0 or torch.equal(out.rgb, torch.tensor([0.1, 0.2, 0.3]).expand(48, 64, 3))
    assert_same_picture(fields(render(*s, backend=backend)), dense(*s)) if n else None
    assert [g.shape for g in torch.autograd.grad(out.rgb.sum(), s[:5])] == [t.shape for t in s[:5]]


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("field", range(5))
def test_gaussians_that_are_not_finite_are_not_drawn(backend, bad, field):
    s = scene(n=200)
    keep = torch.ones(200, dtype=torch.bool)
    keep[::7] = False
    expected = render(*(t[keep] for t in s[:5]), *s[5:], backend=backend)
    spoiled = [t.clone() for t in s[:5]]
    spoiled[field].view(200, -1)[~keep, -1] = bad
    inputs = [t.requires_grad_() for t in spoiled]
    got = render(*inputs, *s[5:], backend=backend)
    assert_same_picture(fields(got), fields(expected), outliers=0)
    for gradient in torch.autograd.grad(got.rgb.sum() + got.depth.sum(), inputs):
        assert torch.isfinite(gradient).all() and (gradient[~keep] == 0).all()


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_extreme_values_give_finite_pictures(backend):
    s = scene(n=64)
    s[0][0:4] = 0.0  # at the camera centre's distance
    s[0][4:8] = 1e30
    s[1][8:16] = 0.0  # zero quaternions
    s[2][16:20] = 0.0
    s[2][20:24] = 1e20
    s[2][24:28] = 1e3
    s[3][28:32] = -1.0
    s[3][32:36] = 5.0
    s[0][36:40, 2] = -1e-20
    inputs = [t.requires_grad_() for t in s[:5]]
    out = render(*s, backend=backend)
    assert all(torch.isfinite(f).all() for f in fields(out))
    grads = torch.autograd.grad(out.rgb.sum(), inputs)
    assert all(torch.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_zero_quaternion_means_no_rotation(backend):
    s = scene(n=100)
    unrotated = [*s]
    s[1] = torch.zeros(100, 4)
    unrotated[1] = torch.tensor([1.0, 0, 0, 0]).expand(100, 4)
    for a, b in zip(fields(render(*s, backend=backend)), fields(render(*unrotated, backend=backend))):
        assert torch.equal(a, b)


def test_any_layout_and_dtype():
    s = scene(n=300)
    expected = render(*s, backend="cpu")
    strided = [torch.stack([t, t], -1)[..., 0] for t in s[:5]]
    assert not strided[0].is_contiguous()
    assert all(torch.equal(a, b) for a, b in zip(fields(render(*strided, *s[5:])), fields(expected)))
    doubled = render(*(t.double() for t in s[:7]), *s[7:], backend="cpu")
    assert all(torch.equal(a, b) for a, b in zip(fields(doubled), fields(expected)))
    halved = [t.half() for t in s[:5]]
    rounded = render(*(t.float() for t in halved), *s[5:], backend="cpu")
    for backend in ("cpu", "torch"):
        assert_same_picture(fields(render(*halved, *s[5:], backend=backend)), fields(rounded), outliers=0)


def test_huge_image():
    s = scene(n=50, width=9000, height=40)
    assert_same_picture(fields(render(*s, backend="cpu")), fields(render(*s, backend="torch")))
    with pytest.raises(InputError, match="40000x40"):
        render(*s[:7], 40000, 40)


def test_what_does_not_fit_is_said_in_one_line():
    s = scene(n=20)
    covars = torch.zeros(20, 6)
    for kind, call in {
        "exactly one": lambda: render(*s, covars=covars),
        "exactly": lambda: render(s[0], s[1], None, *s[3:]),
        "opacities": lambda: render(*s[:3], s[3][:5], *s[4:]),
        "means": lambda: render(s[0][:, :2], *s[1:]),
        "covars": lambda: render(s[0], None, None, *s[3:], covars=covars[:, :5]),
        "9 channels": lambda: render(*s[:4], torch.zeros(20, 9), *s[5:]),
        "image size 0x48": lambda: render(*s[:7], 0, 48),
        "unknown": lambda: render(*s, backend="opengl"),
        "background": lambda: render(*s, torch.zeros(4)),
        "batch sizes differ": lambda: render(s[0].expand(2, -1, -1), *s[1:5], s[5].expand(3, 4, 4), *s[6:]),
        "viewmat": lambda: render(*s[:5], torch.eye(3), *s[6:]),
    }.items():
        with pytest.raises(InputError, match=kind) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_video_frames_check_their_input():
    args = head_like(100, 0)
    for position, wrong in ((0, args[0][:, :2]), (1, args[1][:50]), (2, args[2][:-1]), (3, args[3][:, :1]), (4, 0.0)):
        with pytest.raises(InputError, match="expected"):
            CpuRenderer().render_uint8(*args[:position], wrong, *args[position + 1 :])
    with pytest.raises(InputError, match="background"):
        CpuRenderer().render_uint8(*args[:8], np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(InputError, match="contiguous"):
        reversed_rows = np.zeros((180, 200, 3), np.uint8)[::-1], np.zeros((180, 200), np.uint8)
        CpuRenderer().render_uint8(*args, out=reversed_rows)
    with pytest.raises(InputError, match="0x180"):
        CpuRenderer().render_uint8(*args[:6], 0, 180, (0, 0, 0))


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
def test_cameras_that_see_nothing():
    s = scene(n=30)
    for viewmat, K in ((s[5] * float("nan"), s[6]), (s[5], s[6] * 0), (s[5], s[6] * float("inf")), (s[5] * 0, s[6])):
        out = render(*s[:5], viewmat, K, *s[7:], torch.tensor([0.1, 0.2, 0.3]), backend="cpu")
        assert torch.isfinite(out.rgb).all()


# ---- backends --------------------------------------------------------------------------------------------------------


def test_without_numba_torch_draws_and_warns_once(monkeypatch):
    monkeypatch.setattr(rasterizer, "_available", lambda package: False)
    rasterizer._warn_numba_missing.cache_clear()
    s = scene(n=50)
    with pytest.warns(UserWarning, match="numba") as caught:
        first, second = render(*s), render(*s)
    assert len(caught) == 1 and torch.equal(first.rgb, second.rgb)
    with pytest.raises(InputError, match="needs numba"):
        render(*s, backend="cpu")


def test_importing_the_interface_needs_no_numba(monkeypatch):
    code = (
        "import builtins, sys\n"
        "find = builtins.__import__\n"
        "def no_numba(name, *a, **k):\n"
        "    if name.split('.')[0] in ('numba', 'llvmlite'): raise ImportError(name)\n"
        "    return find(name, *a, **k)\n"
        "builtins.__import__ = no_numba\n"
        "import mggtalk_core.rendering.rasterizer\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert builtins.__import__ is not None


class FakeGsplat(types.ModuleType):
    """Stands where gsplat stands: checks the shapes as gsplat 1.5 asserts them, draws with the plain code."""

    def __init__(self):
        super().__init__("gsplat")
        self.calls = []

    def rasterization(
        self, means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, eps2d, packed,
        render_mode, rasterize_mode, covars=None,
    ):  # fmt: skip
        self.calls.append((render_mode, rasterize_mode, near_plane, eps2d, packed))
        lead, n, cameras = means.shape[:-2], means.shape[-2], viewmats.shape[-3]
        assert means.shape == (*lead, n, 3) and opacities.shape == (*lead, n) and colors.shape[:-1] == (*lead, n)
        assert viewmats.shape == (*lead, cameras, 4, 4) and Ks.shape == (*lead, cameras, 3, 3)
        if covars is None:
            assert quats.shape == (*lead, n, 4) and scales.shape == (*lead, n, 3)
            covars = covariance(quats.flatten(0, -2), scales.flatten(0, -2))[:, FULL].reshape(*lead, n, 3, 3)
        assert covars.shape == (*lead, n, 3, 3)
        out = []
        for b in range(lead[0] if lead else 1):
            def pick(t, b=b):
                return t[b] if lead else t
            for c in range(cameras):
                rgb, alpha, depth = dense_render(
                    pick(means), pick(covars), pick(opacities), pick(colors), pick(viewmats)[c], pick(Ks)[c], width,
                    height,
                )  # fmt: skip
                out.append(torch.cat([rgb, depth[..., None], alpha[..., None]], -1))
        image = torch.stack(out).reshape(*lead, cameras, height, width, -1)
        return image[..., :-1], image[..., -1:], {}


@pytest.fixture
def fake_gsplat(monkeypatch):
    fake = FakeGsplat()
    monkeypatch.setitem(sys.modules, "gsplat", fake)
    monkeypatch.setattr(rasterizer, "choose_backend", lambda device, name: "gsplat" if name == "gsplat" else "cpu")
    return fake


def test_gsplat_path_up_to_the_call(fake_gsplat):
    """Single view, several cameras, moving Gaussians, covariances: what gsplat would draw is what the CPU draws."""
    s = scene(n=150)
    covars = covariance(s[1], s[2])
    cameras = torch.stack([s[5], torch.eye(4)])
    moving = torch.stack([s[0], s[0] + 0.05])
    background = torch.tensor([0.3, 0.6, 0.9])
    calls = [
        lambda backend: render(*s, background, backend=backend),
        lambda backend: render(*s[:5], cameras, *s[6:], background, backend=backend),
        lambda backend: render(moving, *s[1:], background, backend=backend),
        lambda backend: render(moving, *s[1:5], cameras, *s[6:], backend=backend),
        lambda backend: render(s[0], None, None, *s[3:], covars=covars, backend=backend),
        lambda backend: render(s[0], None, None, *s[3:], covars=covars.expand(2, -1, -1), backend=backend),
    ]
    for call in calls:
        assert_same_picture(fields(call("gsplat")), fields(call("cpu")))
    assert set(fake_gsplat.calls) == {("RGB+D", "classic", 0.01, 0.3, False)}


def test_gsplat_signature_takes_our_call(fake_gsplat, monkeypatch):
    monkeypatch.delitem(sys.modules, "gsplat")
    gsplat = pytest.importorskip("gsplat")
    parameters = inspect.signature(gsplat.rasterization).parameters
    ours = set(inspect.signature(FakeGsplat.rasterization).parameters) - {"self"}
    assert ours <= set(parameters)


def test_gsplat_by_name_needs_cuda():
    with pytest.raises(InputError, match="gsplat"):
        render(*scene(n=10), backend="gsplat")


# ---- threads, determinism, caches, memory ----------------------------------------------------------------------------


def test_an_error_in_one_thread_waits_for_the_others():
    from mggtalk_core.rendering.rasterize_cpu import run_parallel

    running, lock = [], threading.Lock()

    def work(task):
        with lock:
            running.append(task)
        if task == 0:
            raise InputError("too large")
        time.sleep(0.05)
        with lock:
            running.remove(task)

    with pytest.raises(InputError, match="too large"):
        run_parallel(6, 3, work)
    assert running == [0]


def head_like(n, seed):
    s = scene(n=n, width=200, height=180, seed=seed)
    return [s[0].numpy(), covariance(s[1], s[2]).numpy(), *(t.numpy() for t in s[3:7]), 200, 180, (9, 8, 7)]


def test_the_picture_does_not_depend_on_the_number_of_threads():
    args = head_like(5000, 0)
    expected = CpuRenderer(1).render_uint8(*args)
    for threads in (2, 3, 8):
        got = CpuRenderer(threads).render_uint8(*args)
        assert all(np.array_equal(a, b) for a, b in zip(got, expected))


def hammer(seconds):
    """8 threads render different heads at once; every frame must equal the one made alone."""
    scenes = [head_like(1500 + 400 * k, k) for k in range(8)]
    expected = [CpuRenderer(1).render_uint8(*args) for args in scenes]
    shared, failures, frames = CpuRenderer(2), [], [0] * 8
    deadline = time.monotonic() + seconds

    def work(k):
        try:
            while time.monotonic() < deadline:
                got = shared.render_uint8(*scenes[k])
                if not all(np.array_equal(a, b) for a, b in zip(got, expected[k])):
                    failures.append(k)
                frames[k] += 1
        except Exception as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == [] and min(frames) > 0


def test_eight_threads_at_once():
    hammer(2.0)


@pytest.mark.slow
def test_eight_threads_for_a_minute():
    hammer(60.0)


def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_memory_stays_flat_over_ten_thousand_frames():
    renderer, args = CpuRenderer(), head_like(3000, 1)
    s = scene(n=500)
    means = s[0].requires_grad_()
    marks = []
    for frame in range(10_000):
        renderer.render_uint8(*args)
        if frame % 20 == 0:
            render(means, *s[1:], backend="cpu").rgb.sum().backward()
        if frame in (500, 9_999):
            marks.append(resident_mb())
    assert marks[1] - marks[0] < 8


def test_rendering_after_a_fork():
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    args = head_like(5000, 2)
    expected = CpuRenderer(2).render_uint8(*args)
    child = os.fork()
    if child == 0:
        same = np.array_equal(CpuRenderer(2).render_uint8(*args)[0], expected[0])
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_kernels_compile_and_cache_when_the_installation_is_read_only(tmp_path):
    """Another version has another folder; a read-only package caches under the user's cache folder; none also works."""
    from mggtalk_core.rendering import kernel_cache

    def folder(sources_differ=False, writable=True, user=tmp_path):
        kernel_cache.cache_folder.cache_clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernel_cache, "_user_cache", lambda: user)
            here = kernel_cache.Path(kernel_cache.__file__).resolve().parent
            real = kernel_cache._writable
            patch.setattr(kernel_cache, "_writable", lambda p: (writable or here not in p.parents) and real(p))
            if sources_differ:
                patch.setattr(kernel_cache, "SOURCES", kernel_cache.SOURCES[:-1])
            return kernel_cache.cache_folder()

    try:
        assert folder().parent.name == "__pycache__"
        assert folder(sources_differ=True) != folder()
        assert folder(writable=False).is_relative_to(tmp_path)
        blocked = tmp_path / "file"
        blocked.write_text("")
        assert folder(writable=False, user=blocked) is None
    finally:
        kernel_cache.cache_folder.cache_clear()


@pytest.mark.slow
def test_a_real_head_agrees_with_gsplats_torch_code():
    """The demo portrait's Gaussians (surfels one pixel wide, stacked opaque layers), from the photo's camera and 20
    degrees aside."""
    references = pytest.importorskip("mggtalk_core.benchmark_references")
    if not references.available():
        pytest.skip("gsplat and nerfacc are not installed")
    from pathlib import Path

    from mggtalk_core import benchmark, pipeline
    from mggtalk_core.media.image import read_photo
    from mggtalk_core.rendering.camera import orbit

    photo = read_photo(Path(benchmark.__file__).parent / "assets" / "demo_portrait.png")
    head = pipeline.build_head(photo, size=256)
    g = head.gaussians()
    for yaw in (0.0, 0.35):
        camera = orbit(head.camera, yaw)
        view = torch.from_numpy(camera.viewmat), torch.from_numpy(np.asarray(camera.K)), camera.width, camera.height
        arrays = [t.float() for t in (g.means, g.quats, g.scales, g.opacities, g.colors)]
        ours = fields(render(*arrays, *view, backend="cpu"))
        theirs = references.gsplat_torch(*arrays, *view)
        for a, b in zip(ours, theirs):
            difference = (a - b).abs()
            assert (difference > 1e-3).float().mean() < 1e-4
            assert difference.mean() <= 1e-6
            assert psnr(a, b) >= 90
