"""The workflows the pack ships, as saved by ComfyUI's page, and as the prompts its API runs."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "workflows"
WORKFLOWS = sorted(path.stem for path in FOLDER.glob("*.json"))
SEED_CONTROL = {"control_after_generate", "fixed"}  # the page's own widget beside a seed, under either name
PAGE_ONLY = {"MarkdownNote", "Note", "Reroute"}


def load(name: str) -> dict:
    """The workflow as the page saved it."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def to_prompt(workflow: dict, inputs_of) -> dict:
    """The API prompt the page would send; `inputs_of(type)` gives the names of a node's inputs, None for all."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in PAGE_ONLY:
            continue
        known = inputs_of(node["type"])
        inputs = {
            name: value
            for name, value in node.get("widgets_values_named", {}).items()
            if name not in SEED_CONTROL and (known is None or name.split(".")[0] in known)
        }
        if "viewport_state" in inputs:
            inputs["viewport_state"] = {"camera_info": None, "model_3d_info": []}  # the page fills it when it draws
        inputs |= {slot["name"]: links[slot["link"]] for slot in node["inputs"] if slot.get("link") is not None}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt
