"""Stand-in for `comfy_api.latest`: the V3 schema and the data types our nodes use."""

from abc import ABC, abstractmethod

from . import _io as io
from . import _ui as ui
from ._types import InputImpl, Types


class ComfyExtension(ABC):
    async def on_load(self) -> None:  # noqa: B027 (as in ComfyUI: optional)
        pass

    @abstractmethod
    async def get_node_list(self) -> list[type[io.ComfyNode]]: ...


__all__ = ["ComfyExtension", "InputImpl", "Types", "io", "ui"]
