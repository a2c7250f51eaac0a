"""Loads the pack the way ComfyUI does, on top of the stand-in (see README.md)."""

import asyncio
import importlib.util
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def load_pack(name: str = "some_folder-name"):
    """The pack's module, imported by path under any name, as ComfyUI does; returns its nodes by id."""
    double = str(Path(__file__).parent)
    if double not in sys.path:
        sys.path.insert(0, double)
    import folder_paths

    folder_paths.use(tempfile.mkdtemp(prefix="comfy_double_"))  # nobody's files from before
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)

    async def nodes():
        extension = await module.comfy_entrypoint()
        await extension.on_load()
        return {node.GET_SCHEMA().node_id: node for node in await extension.get_node_list()}

    return module, asyncio.run(nodes())
