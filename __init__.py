"""ComfyUI-MGGTalk: one photo and speech become a talking 3D Gaussian head.

ComfyUI imports this folder by its path, under whatever name it has; everything else happens in `nodes`.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """The extension ComfyUI asks a V3 node pack for."""
    from .nodes import MGGTalkExtension

    return MGGTalkExtension()
