"""The pack in ComfyUI's web page, in headless Chromium, with both node renderers.

Needs COMFYUI_PATH, and playwright-core in NODE_PATH; CHROMIUM names the browser (default /usr/bin/chromium).
MGGTALK_SCREENSHOTS keeps the screenshots in a folder.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
from real_host import RealHost

WALK = Path(__file__).parent / "browser" / "walk.mjs"
NEEDED = ("COMFYUI_PATH", "NODE_PATH")
pytestmark = pytest.mark.skipif(
    any(name not in os.environ for name in NEEDED), reason="COMFYUI_PATH and NODE_PATH (playwright-core) are not set"
)
MIN_UPDATES = float(os.environ.get("MGGTALK_MIN_UPDATES", "0"))
"""Pictures per second asked for; 12 on two free cores."""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with RealHost(tmp_path_factory.mktemp("comfyui"), pack_name="ComfyUI-MGGTalk") as server:
        yield server


@pytest.mark.parametrize("renderer", ["canvas", "vue"])
def test_newcomer_opens_a_template_runs_it_and_moves_the_head(host, renderer, tmp_path):
    shots = Path(os.environ.get("MGGTALK_SCREENSHOTS", tmp_path))
    walk = subprocess.run(
        ["node", str(WALK), host.url, host.pack_name, renderer, str(shots)], capture_output=True, text=True, timeout=900
    )
    assert walk.returncode == 0, walk.stderr[-3000:]
    seen = json.loads(walk.stdout.splitlines()[-1])
    print(f"\n{renderer}: {seen['updatesPerSecond']:.1f} pictures/s while dragging, then {seen['latency']:.0f} ms")
    assert seen["errors"] == [] and seen["missing"] == [] and seen["scripts"]
    assert seen["slider"] > 0.5, "the mouth opens in the picture"
    assert json.loads(seen["text"])["jawOpen"] == 0.8, "the slider is in the node's widget"
    assert seen["orbit"] > 3, "dragging turns the view"
    assert seen["firstStill"] != seen["secondStill"], "the new expression was rendered"
    assert seen["updatesPerSecond"] >= MIN_UPDATES
