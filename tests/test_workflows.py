"""The shipped workflows fit the nodes: every type, input, widget value and link exists. Runs without ComfyUI."""

import json

import pytest
import workflow_files
from comfy_double import ROOT

pytest.importorskip("aiohttp")
SCHEMAS = json.loads((ROOT / "tests" / "comfy_double" / "node_schemas.json").read_text(encoding="utf-8"))


def options(schema: dict, name: str, chosen: dict) -> tuple[str, dict] | None:
    """Type and properties of an input, also of the chosen option's own inputs ("combo.name")."""
    parent, _, nested = name.partition(".")
    for group in schema["input"].values():
        if parent in group:
            kind, properties = group[parent]
            if not nested:
                return kind, properties
            option = next(each for each in properties["options"] if each["key"] == chosen[parent])
            return next((inputs[nested] for inputs in option["inputs"].values() if nested in inputs), None)
    return None


@pytest.mark.parametrize("name", workflow_files.WORKFLOWS)
def test_workflow_fits_the_nodes(name):
    workflow = workflow_files.load(name)
    prompt = workflow_files.to_prompt(workflow, lambda _: None)
    types = {node["class_type"] for node in prompt.values()}
    assert "MGGTalkEstimateDepth" in types
    for node_id, node in prompt.items():
        if node["class_type"] not in SCHEMAS:
            assert not node["class_type"].startswith("MGGTalk"), f"{name}: no node {node['class_type']}"
            continue
        schema, inputs = SCHEMAS[node["class_type"]], node["inputs"]
        for required in schema["input"]["required"]:
            assert required in inputs, f"{name}, node {node_id}: '{required}' is missing"
        for input_name, value in inputs.items():
            found = options(schema, input_name, inputs)
            assert found is not None, f"{name}, node {node_id}: {node['class_type']} has no input '{input_name}'"
            kind, properties = found
            if isinstance(value, list):  # a link: [node, output]
                source = prompt[value[0]]
                if source["class_type"] in SCHEMAS:
                    given = SCHEMAS[source["class_type"]]["output"][value[1]]
                    assert given in kind.split(","), f"{name}: {given} into '{input_name}' ({kind})"
            elif kind == "COMBO" and properties["options"]:
                assert value in properties["options"], f"{name}, node {node_id}: {input_name}={value}"
            elif "min" in properties:
                assert properties["min"] <= value <= properties["max"], f"{name}, node {node_id}: {input_name}={value}"


@pytest.mark.parametrize("name", workflow_files.WORKFLOWS)
def test_workflow_uses_only_files_that_come_with_the_pack(name):
    loaders = ("LoadImage", "LoadAudio", "LoadVideo")
    for node in workflow_files.load(name)["nodes"]:
        if node["type"] in loaders:
            assert node["widgets_values"][0] in (
                "mggtalk_demo_portrait.png",
                "mggtalk_demo_speech.flac",
                "mggtalk_demo_driving.mp4",
            )


@pytest.mark.parametrize("name", workflow_files.WORKFLOWS)
def test_workflow_has_a_thumbnail_and_a_note(name):
    thumbnail = workflow_files.FOLDER / f"{name}.jpg"
    assert thumbnail.exists() and thumbnail.stat().st_size < 120_000
    assert any(node["type"] == "MarkdownNote" for node in workflow_files.load(name)["nodes"])


def test_together_the_workflows_show_the_pack():
    """Nodes no workflow uses are nodes nobody finds."""
    used = {node["type"] for name in workflow_files.WORKFLOWS for node in workflow_files.load(name)["nodes"]}
    unused = SCHEMAS.keys() - used
    rare = {"LoadHead", "SaveMotion", "Evaluate", "DriveWithBlendshapes", "Personalize"}
    assert unused <= {f"MGGTalk{name}" for name in rare}
