"""Load MGGTalk: the learned part of the pipeline, through ComfyUI's model management."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import torch
from comfy_api.latest import io
from torch import nn

from ..mggtalk_core.model import MGGTalkModel
from . import host, types

EMBEDDED = "embedded"


@dataclass(frozen=True)
class LoadedModel:
    """A MGGTalk model whose networks ComfyUI moves between devices."""

    model: MGGTalkModel
    patcher: Any  # comfy.model_patcher.ModelPatcher around the networks; None when every stage runs on its prior

    def on_device(self) -> MGGTalkModel:
        """The model, its networks on their device for the work that follows."""
        if self.patcher is None:
            return self.model
        import comfy.model_management

        comfy.model_management.load_models_gpu([self.patcher])
        return replace(self.model, device=self.patcher.load_device)


def managed(model: MGGTalkModel, device: torch.device) -> LoadedModel:
    """The model under ComfyUI's model management, to run on `device`."""
    import comfy.model_patcher

    networks = [value for value in vars(model).values() if isinstance(value, nn.Module)]
    if not networks:
        return LoadedModel(model, None)
    return LoadedModel(model, comfy.model_patcher.ModelPatcher(nn.ModuleList(networks), device, torch.device("cpu")))


class LoadMGGTalk(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MGGTalkLoadModel",
            display_name="Load MGGTalk",
            category="MGGTalk",
            description="Loads the weights that turn a portrait into a talking head. The embedded ones come with the "
            "pack, so nothing is downloaded.",
            search_aliases=["talking head", "talking portrait", "gaussian avatar", "mggtalk checkpoint"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=[EMBEDDED, *host.model_files(".safetensors")],
                    default=EMBEDDED,
                    tooltip="'embedded' is the checkpoint that comes with the pack. Your own trained .safetensors "
                    "files appear here when they lie in ComfyUI/models/mggtalk.",
                ),
                io.Combo.Input(
                    "device",
                    options=["default", "cpu"],
                    default="default",
                    advanced=True,
                    tooltip="'default' is the device ComfyUI works on; 'cpu' keeps the graphics card free. The "
                    "network runs once per portrait, so the difference is small.",
                ),
            ],
            outputs=[
                types.Model.Output(
                    display_name="model", tooltip="For Estimate Depth, the Predict and the render nodes."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint, device):
        return None if checkpoint == EMBEDDED else os.stat(host.model_path(checkpoint)).st_mtime_ns

    @classmethod
    def execute(cls, checkpoint, device) -> io.NodeOutput:
        import comfy.model_management

        from ..mggtalk_core.weights import load_model

        with host.errors_named("Load MGGTalk", "checkpoint"):
            model = load_model(None if checkpoint == EMBEDDED else host.model_path(checkpoint))
        run_on = torch.device("cpu") if device == "cpu" else comfy.model_management.get_torch_device()
        return io.NodeOutput(managed(model, run_on))
