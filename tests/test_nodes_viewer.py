"""The live-view route: who is answered, with what, and for how long."""

import asyncio
import gc
import io
import sys
import time

import numpy as np
import pytest
from PIL import Image

aiohttp = pytest.importorskip("aiohttp")

from aiohttp import web  # noqa: E402
from aiohttp.test_utils import TestClient, TestServer  # noqa: E402
from comfy_double import load_pack  # noqa: E402

from mggtalk_core.assets import DEMO_PORTRAIT  # noqa: E402

WISH = {"frame": 0, "yaw": 0, "pitch": 0, "distance": 1, "size": 96, "expression": "{}", "mode": "add"}


@pytest.fixture(scope="module")
def pack():
    return load_pack("pack_for_viewer")[1]


@pytest.fixture(scope="module")
def viewer(pack):
    return sys.modules["pack_for_viewer.nodes.viewer"]


@pytest.fixture(scope="module")
def saved_head(tmp_path_factory):
    from mggtalk_core.media.image import read_photo
    from mggtalk_core.pipeline import build_head

    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    build_head(read_photo(DEMO_PORTRAIT), size=192).save(path)
    return path


@pytest.fixture
def head(pack, saved_head):
    return sys.modules["pack_for_viewer.mggtalk_core.gaussians.head"].GaussianHead.load(saved_head)


def ask(viewer, *requests):
    """(status, body) of POST requests (path, json, headers) to a server with the pack's routes."""

    async def talk():
        application = web.Application()
        application.router.add_post("/mggtalk/view/{token}", viewer.render_view)
        application.router.add_post("/mggtalk/view/{token}/close", viewer.close_view)
        answers = []
        async with TestClient(TestServer(application)) as client:
            for path, body, headers in requests:
                answer = await client.post(path, json=body, headers=headers)
                answers.append((answer.status, await answer.read()))
        return answers

    return asyncio.run(talk())


def picture(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)


def published(pack, head, **inputs):
    node = pack["MGGTalkExpressionEditor"]
    output = node.execute(**{"mode": "add", "expression": "{}", "head": head, **inputs})
    return output.ui["mggtalk_view"][0]["token"]


def test_sliders_and_camera_change_the_picture(pack, viewer, head):
    path = f"/mggtalk/view/{published(pack, head)}"
    wishes = [WISH, {**WISH, "expression": "jawOpen=0.7"}, {**WISH, "yaw": 30}, {**WISH, "size": 64}, WISH]
    answers = ask(viewer, *((path, wish, {}) for wish in wishes))
    assert [status for status, _ in answers] == [200] * 5
    rest, open_mouth, side, small, again = (picture(data) for _, data in answers)
    assert np.abs(open_mouth - rest).mean() > 0.3 and np.abs(side - rest).mean() > 3
    assert small.shape == (64, 64, 3)
    np.testing.assert_array_equal(rest, again)


def test_only_our_own_page_is_answered(pack, viewer, head):
    path = f"/mggtalk/view/{published(pack, head)}"
    foreign = [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Content-Type": "text/plain"},  # what a form on another page could send without asking first
    ]
    assert [status for status, _ in ask(viewer, *((path, WISH, headers) for headers in foreign))] == [403] * 5


def test_tokens_cannot_be_guessed_and_name_no_paths(pack, viewer, head):
    token = published(pack, head)
    assert len(token) >= 32
    wrong = [token[:-1] + "A", "", "..", "%2e%2e%2fetc%2fpasswd", "1"]
    statuses = [status for status, _ in ask(viewer, *((f"/mggtalk/view/{name}", WISH, {}) for name in wrong))]
    assert set(statuses) <= {404}


@pytest.mark.parametrize(
    "change",
    [
        {"size": 100_000},
        {"size": "../../etc/passwd"},
        {"frame": -1},
        {"frame": 99},
        {"yaw": "left"},
        {"mode": "__import__"},
        {"expression": "jawOpen=__import__('os')"},
        {"expression": "a" * 20_000},
        {"yaw": None},
    ],
)
def test_nonsense_is_refused(pack, viewer, head, change):
    path = f"/mggtalk/view/{published(pack, head)}"
    ((status, _),) = ask(viewer, (path, {**WISH, **change}, {}))
    assert status in (400, 413)


def test_a_head_is_forgotten_when_comfyui_forgets_it(pack, viewer, saved_head):
    core = sys.modules["pack_for_viewer.mggtalk_core.gaussians.head"]
    head = core.GaussianHead.load(saved_head)
    token = published(pack, head)
    assert token in viewer._views
    del head
    gc.collect()
    assert token not in viewer._views
    assert ask(viewer, (f"/mggtalk/view/{token}", WISH, {}))[0][0] == 404


def test_renderers_are_freed_when_closed_idle_or_too_many(pack, viewer, head, monkeypatch):
    viewer._renderers.clear()
    token = published(pack, head)
    path = f"/mggtalk/view/{token}"
    ask(viewer, (path, WISH, {}))
    assert token in viewer._renderers
    ask(viewer, (path + "/close", {}, {}))
    assert token not in viewer._renderers
    ask(viewer, (path, WISH, {}))
    monkeypatch.setattr(viewer, "IDLE_SECONDS", 0.0)
    time.sleep(0.01)
    viewer._drop_idle()
    assert not viewer._renderers
    still = sys.modules["pack_for_viewer.nodes.expressions"].still()
    tokens = [viewer.publish(node_id, head, still)["mggtalk_view"][0]["token"] for node_id in "23456"]
    monkeypatch.setattr(viewer, "IDLE_SECONDS", 60.0)
    ask(viewer, *((f"/mggtalk/view/{each}", WISH, {}) for each in tokens))
    assert len(viewer._renderers) == viewer.MAX_RENDERERS


def test_a_node_shows_one_view_of_a_head(pack, viewer, head):
    first = published(pack, head)
    second = published(pack, head)
    assert first not in viewer._views and second in viewer._views
