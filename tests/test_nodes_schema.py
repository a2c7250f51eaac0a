"""The nodes' schemas: what workflows saved yesterday rely on. Runs on the stand-in for ComfyUI (comfy_double)."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from comfy_double import ROOT, load_pack

pytest.importorskip("aiohttp")
SNAPSHOT = Path(__file__).parent / "comfy_double" / "node_schemas.json"


@pytest.fixture(scope="module")
def nodes():
    return load_pack()[1]


@pytest.fixture(scope="module")
def described(nodes):
    return json.loads(json.dumps({name: node.describe() for name, node in nodes.items()}))


def test_schemas_are_those_of_the_snapshot(described):
    """Renamed inputs, changed types or lost options break users' workflows: change the snapshot knowingly.

    Rewrite it with: python tests/test_nodes_schema.py
    """
    assert described == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def all_inputs(description, prefix=""):
    """Every input with its options' own inputs: (name, type, properties)."""
    for group in description.values():
        for name, (kind, properties) in group.items():
            yield prefix + name, kind, properties
            for option in properties.get("options") or []:
                if isinstance(option, dict):
                    yield from all_inputs(option["inputs"], f"{prefix}{name}.")


def test_every_node_and_socket_explains_itself(described):
    for name, node in described.items():
        assert name.startswith("MGGTalk") and node["category"].startswith("MGGTalk"), name
        assert len(node["description"]) > 40 and node["search_aliases"], name
        for input_name, _, properties in all_inputs(node["input"]):
            assert len(properties.get("tooltip", "")) > 9, f"{name}.{input_name} has no tooltip"
        assert all(node["output_tooltips"]), name


def test_sliders_name_both_ends(described):
    """A number's tooltip says what its ends mean, not only that it exists."""
    for name, node in described.items():
        for input_name, kind, properties in all_inputs(node["input"]):
            if kind == "FLOAT":
                assert re.search(r"\d|negative|right|up", properties["tooltip"]), f"{name}.{input_name}"
                assert {"min", "max", "step", "default"} <= properties.keys(), f"{name}.{input_name}"


def test_help_pages_and_english_names_are_those_of_the_schemas():
    """Rewrite them with: python tools/make_node_docs.py"""
    spec = importlib.util.spec_from_file_location("make_node_docs", ROOT / "tools" / "make_node_docs.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for path, text in tool.files().items():
        assert path.exists() and path.read_text(encoding="utf-8") == text, path


def test_chinese_names_cover_every_node_and_socket(described):
    translated = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert translated.keys() == described.keys()
    for name, node in described.items():
        inputs = {input_name.replace(".", "_") for input_name, _, _ in all_inputs(node["input"])}
        assert translated[name]["inputs"].keys() == inputs, name
        assert len(translated[name]["outputs"]) == len(node["output"]), name


def test_pack_loads_under_any_name_and_twice():
    """ComfyUI imports a pack by its path; nothing may lean on the folder's name or on the module `nodes`."""
    _, first = load_pack("ComfyUI-MGGTalk-main")
    _, second = load_pack("/a/path with spaces/custom_nodes/x_x_y")
    assert first.keys() == second.keys()
    assert first["MGGTalkRender"] is not second["MGGTalkRender"]


def test_importing_the_pack_touches_neither_torch_hub_nor_kernels():
    """ComfyUI waits for every pack: mediapipe, numba and transformers are imported when a node runs."""
    import subprocess
    import sys

    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from comfy_double import load_pack; load_pack();"
        "print(*sorted({'mediapipe', 'numba', 'transformers', 'av', 'kornia', 'cv2'} & set(sys.modules)))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == []


def test_kernels_are_cached_per_module_name():
    """numba's own cache names the module: compiled by the command line it would fail in ComfyUI, and the reverse."""
    for path in (ROOT / "mggtalk_core").rglob("*.py"):
        if path.name not in ("kernel_cache.py", "benchmark_references.py"):
            assert "njit" not in path.read_text(encoding="utf-8"), f"{path.name}: use rendering.kernel_cache.kernel"


def test_nothing_of_ours_uses_the_network():
    forbidden = (
        "urllib.request",
        "import requests",
        "httpx",
        "huggingface_hub",
        "urlopen",
        "socket.socket",
        "http.client",
    )
    for folder in ("nodes", "mggtalk_core"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not [word for word in forbidden if word in text], path


if __name__ == "__main__":
    pack = load_pack()[1]
    text = json.dumps({name: node.describe() for name, node in pack.items()}, indent=1, ensure_ascii=False)
    SNAPSHOT.write_text(text + "\n", encoding="utf-8")
