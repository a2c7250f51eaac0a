"""Writes web/docs and locales/en/nodeDefs.json from the schemas, locales/zh/nodeDefs.json and the help texts.

Run it after changing a schema or a text: python tools/make_node_docs.py
The Chinese names and tooltips are written by hand in locales/zh/nodeDefs.json.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENGLISH = {
    "inputs": "Inputs",
    "outputs": "Outputs",
    "name": "Name",
    "type": "Type",
    "range": "Default and range",
    "meaning": "Meaning",
    "optional": "optional",
}


def descriptions() -> dict[str, dict]:
    """The schemas as the page is given them, by node id."""
    sys.path.insert(0, str(ROOT / "tests"))
    from comfy_double import load_pack

    return json.loads(json.dumps({name: node.describe() for name, node in load_pack()[1].items()}))


def inputs_of(description: dict, prefix: str = "") -> list[tuple[str, str, dict, bool]]:
    """(name, type, properties, optional) of every input; those of options as "combo.name", each once."""
    found: dict[str, tuple] = {}
    for group, members in description.items():
        for name, (kind, properties) in members.items():
            found.setdefault(prefix + name, (prefix + name, kind, properties, group == "optional"))
            for option in properties.get("options") or []:
                if isinstance(option, dict):
                    for nested in inputs_of(option["inputs"], f"{prefix}{name}."):
                        found.setdefault(nested[0], nested)
    return list(found.values())


def english(nodes: dict[str, dict]) -> dict:
    """locales/en/nodeDefs.json: what the schemas say, where translators look for it."""
    return {
        name: {
            "display_name": node["display_name"],
            "description": node["description"],
            "inputs": {
                input_name.replace(".", "_"): {"name": input_name.split(".")[-1], "tooltip": properties["tooltip"]}
                for input_name, _, properties, _ in inputs_of(node["input"])
            },
            "outputs": {
                str(index): {"name": output, "tooltip": node["output_tooltips"][index]}
                for index, output in enumerate(node["output_name"])
            },
        }
        for name, node in nodes.items()
    }


def help_texts(language: str) -> dict[str, str]:
    """The hand-written part of each page, by node id."""
    text = (ROOT / "tools" / f"node_help.{language}.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2])}


def value_range(kind: str, properties: dict) -> str:
    """ "25 (1 to 120)", "photo (photo, color)" or nothing."""
    options = [option["key"] if isinstance(option, dict) else option for option in properties.get("options") or []]
    default = properties.get("default", options[0] if options else None)
    if kind == "STRING" or default is None:
        return ""
    if options:
        return f"{default} ({', '.join(map(str, options))})"
    return f"{default} ({properties['min']} to {properties['max']})" if "min" in properties else str(default)


def page(node: dict, words: dict[str, str], language: dict, help_text: str) -> str:
    """The help page of one node."""
    lines = [
        f"# {language['display_name']}",
        "",
        language["description"],
        "",
        help_text,
        "",
        f"## {words['inputs']}",
        "",
    ]
    lines += [f"| {words['name']} | {words['type']} | {words['range']} | {words['meaning']} |", "|---|---|---|---|"]
    for name, kind, properties, optional in inputs_of(node["input"]):
        kind = {"COMFY_DYNAMICCOMBO_V3": "COMBO"}.get(kind, kind).replace(",", ", ")
        kind += f" ({words['optional']})" if optional else ""
        meaning = language["inputs"][name.replace(".", "_")]["tooltip"]
        lines.append(f"| {name} | {kind} | {value_range(kind, properties)} | {meaning} |")
    if node["output"]:
        lines += ["", f"## {words['outputs']}", "", f"| {words['name']} | {words['type']} | {words['meaning']} |"]
        lines += ["|---|---|---|"]
        for index, name in enumerate(node["output_name"]):
            lines.append(f"| {name} | {node['output'][index]} | {language['outputs'][str(index)]['tooltip']} |")
    return "\n".join(lines) + "\n"


def files() -> dict[Path, str]:
    """Every generated file and its content."""
    nodes = descriptions()
    names = {"en": english(nodes), "zh": json.loads((ROOT / "locales/zh/nodeDefs.json").read_text(encoding="utf-8"))}
    generated = {ROOT / "locales/en/nodeDefs.json": json.dumps(names["en"], indent=1, ensure_ascii=False) + "\n"}
    chinese = json.loads((ROOT / "locales/zh/main.json").read_text(encoding="utf-8"))["mggtalkHelp"]
    for language, words in (("en", ENGLISH), ("zh", chinese)):
        texts = help_texts(language)
        for name, node in nodes.items():
            path = ROOT / "web/docs" / (f"{name}.md" if language == "en" else f"{name}/{language}.md")
            generated[path] = page(node, words, names[language][name], texts[name])
    return generated


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
