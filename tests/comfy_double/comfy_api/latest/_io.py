"""Stand-in for the V3 schema: the same constructors, and the same V1 description the page is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class FolderType(str, Enum):
    input = "input"
    output = "output"
    temp = "temp"


class NumberDisplay(str, Enum):
    number = "number"
    slider = "slider"


class ControlAfterGenerate(str, Enum):
    fixed = "fixed"
    randomize = "randomize"


class Hidden(str, Enum):
    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"


def _given(values: dict) -> dict:
    return {name: value for name, value in values.items() if value is not None}


class Input:
    io_type = "*"

    def __init__(
        self,
        id,
        display_name=None,
        optional=False,
        tooltip=None,
        lazy=None,
        extra_dict=None,
        raw_link=None,
        advanced=None,
    ):
        self.id, self.display_name, self.optional, self.tooltip = id, display_name, optional, tooltip
        self.lazy, self.extra_dict, self.raw_link, self.advanced = lazy, extra_dict or {}, raw_link, advanced

    def get_io_type(self):
        return self.io_type

    def as_dict(self):
        return _given(
            {
                "display_name": self.display_name,
                "tooltip": self.tooltip,
                "lazy": self.lazy,
                "rawLink": self.raw_link,
                "advanced": self.advanced,
                **self.extra_dict,
            }
        )


class Output:
    io_type = "*"

    def __init__(self, id=None, display_name=None, tooltip=None, is_output_list=False):
        self.id, self.display_name, self.tooltip = id, display_name or id, tooltip
        self.is_output_list = is_output_list


class ComfyType:
    """A socket type: `X.Input(...)`, `X.Output(...)`."""

    def __init__(self, io_type: str, widget_fields: dict[str, str] | None = None):
        self.io_type = io_type
        fields = widget_fields

        class TypeInput(Input):
            def __init__(
                self,
                id,
                *args,
                default=None,
                socketless=None,
                widget_type=None,
                force_input=None,
                display_name=None,
                optional=False,
                tooltip=None,
                lazy=None,
                extra_dict=None,
                raw_link=None,
                advanced=None,
                **own,
            ):
                unknown = set(own) - set(fields or {})
                assert not args and not unknown, f"{io_type}.Input({id!r}): unknown arguments {args} {unknown}"
                super().__init__(id, display_name, optional, tooltip, lazy, extra_dict, raw_link, advanced)
                self.io_type, self.default, self.own = io_type, default, own
                self.own_dict = {"default": default, "socketless": socketless, "forceInput": force_input}
                for name, value in own.items():
                    self.own_dict[fields[name]] = value.value if isinstance(value, Enum) else value

            def as_dict(self):
                return super().as_dict() | _given(self.own_dict)

        class TypeOutput(Output):
            pass

        TypeOutput.io_type = io_type
        self.Input, self.Output, self.Type = TypeInput, TypeOutput, Any


def Custom(io_type: str) -> ComfyType:
    return ComfyType(io_type)


_NUMBER = {
    "min": "min",
    "max": "max",
    "step": "step",
    "display_mode": "display",
    "round": "round",
    "control_after_generate": "control_after_generate",
}
Boolean = ComfyType("BOOLEAN", {"label_on": "label_on", "label_off": "label_off"})
Int = ComfyType("INT", _NUMBER)
Float = ComfyType("FLOAT", _NUMBER)
String = ComfyType(
    "STRING", {"multiline": "multiline", "placeholder": "placeholder", "dynamic_prompts": "dynamicPrompts"}
)
Color = ComfyType("COLOR", {})
Image, Mask, Audio, Video = (ComfyType(name) for name in ("IMAGE", "MASK", "AUDIO", "VIDEO"))
Splat, File3DAny, File3DPLY = ComfyType("SPLAT"), ComfyType("FILE_3D"), ComfyType("FILE_3D_PLY")
File3DSplatAny = ComfyType("FILE_3D_SPLAT_ANY")
AudioEncoderOutput = ComfyType("AUDIO_ENCODER_OUTPUT")
Load3DCamera = ComfyType("LOAD3D_CAMERA")


class Combo(ComfyType):
    class Input(Input):
        io_type = "COMBO"

        def __init__(self, id, options, default=None, **kwargs):
            super().__init__(id, **kwargs)
            self.options, self.default = options, default

        def as_dict(self):
            given = _given({"default": self.default, "options": self.options})
            return super().as_dict() | {"multiselect": False} | given


class MultiType:
    class Input(Input):
        def __init__(self, id, types, **kwargs):
            super().__init__(id, **kwargs)
            self.io_type = ",".join(dict.fromkeys(kind.io_type for kind in types))


class DynamicCombo:
    class Option:
        def __init__(self, key, inputs):
            self.key, self.inputs = key, inputs

    class Input(Input):
        io_type = "COMFY_DYNAMICCOMBO_V3"

        def __init__(self, id, options, display_name=None, optional=False, tooltip=None, lazy=None, extra_dict=None):
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict)
            self.options = options

        def as_dict(self):
            options = [{"key": option.key, "inputs": describe_inputs(option.inputs)} for option in self.options]
            return super().as_dict() | {"options": options}


def describe_inputs(inputs: list[Input]) -> dict:
    described: dict[str, dict] = {"required": {}}
    for item in inputs:
        group = described.setdefault("optional" if item.optional else "required", {})
        group[item.id] = (item.get_io_type(), item.as_dict())
    return described


@dataclass
class Schema:
    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    hidden: list = field(default_factory=list)
    description: str = ""
    search_aliases: list = field(default_factory=list)
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    not_idempotent: bool = False
    enable_expand: bool = False
    has_intermediate_output: bool = False


class NodeOutput:
    def __init__(self, *args, ui=None, expand=None, block_execution=None):
        self.args, self.ui = args, ui

    @property
    def result(self):
        return self.args

    def __getitem__(self, index):
        return self.args[index]


class _HiddenValues:
    unique_id = "1"
    prompt = None
    extra_pnginfo = None


class NodeReplace:
    def __init__(self, new_node_id, old_node_id, old_widget_ids=None, input_mapping=None, output_mapping=None):
        self.new_node_id, self.old_node_id = new_node_id, old_node_id


class ComfyNode:
    hidden = _HiddenValues()

    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        return cls.define_schema()

    @classmethod
    def describe(cls) -> dict:
        """What /object_info says about the node."""
        schema = cls.define_schema()
        ids = [item.id for item in schema.inputs]
        assert len(set(ids)) == len(ids), f"{schema.node_id}: two inputs of the same name in {ids}"
        return {
            "name": schema.node_id,
            "display_name": schema.display_name,
            "category": schema.category,
            "description": schema.description,
            "search_aliases": schema.search_aliases,
            "output_node": schema.is_output_node,
            "deprecated": schema.is_deprecated,
            "experimental": schema.is_experimental,
            "input": describe_inputs(schema.inputs),
            "output": [output.io_type for output in schema.outputs],
            "output_name": [output.display_name or output.io_type for output in schema.outputs],
            "output_tooltips": [output.tooltip for output in schema.outputs],
            "output_is_list": [output.is_output_list for output in schema.outputs],
        }
