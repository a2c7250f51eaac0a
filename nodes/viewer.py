"""The live view in the page: a small route that renders heads of this session with our own renderer.

A node publishes its head here and tells the page that queued it a random token over the websocket. Only requests that
carry the token, come from ComfyUI's own page and name nothing but numbers are answered. Heads are freed when the page
closes them, when its connection is gone, or when newer ones need the room.
"""

from __future__ import annotations

import asyncio
import io
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlparse

import numpy as np
from aiohttp import web
from PIL import Image
from server import PromptServer

from ..mggtalk_core.errors import InputError
from ..mggtalk_core.gaussians.head import GaussianHead
from ..mggtalk_core.types import Motion
from . import cameras, expressions

MAX_VIEWS = 6
"""Heads kept for live views: a 512 head with its renderer takes about 60 MB."""

GONE_SECONDS = 60.0
"""A page that was reloaded is back sooner than this; after it, a view without its page is freed."""

MAX_BODY = 16_384
SIDES = range(64, 1025)


@dataclass
class View:
    """A head some page looks at."""

    client: str  # the page's websocket id
    node: str
    head: GaussianHead
    motion: Motion
    seen: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)  # the renderer is not for several threads
    renderer: object = None  # LiveRenderer, made by the first request


_views: OrderedDict[str, View] = OrderedDict()  # token -> view, least recently used first


def publish(node_id: str, head: GaussianHead, motion: Motion, sound: str | None = None) -> None:
    """Lets the page that queued this run look at a head; replaces what the node showed before.

    `sound` is the address of the sound to play with the motion.
    """
    server = PromptServer.instance
    if server.client_id is None:  # queued by a script: nobody looks
        return
    _free(lambda view: view.client == server.client_id and view.node == node_id)
    _free(lambda view: view.client not in server.sockets and time.monotonic() - view.seen > GONE_SECONDS)
    token = secrets.token_urlsafe(24)
    _views[token] = View(server.client_id, node_id, head, motion)
    while len(_views) > MAX_VIEWS:
        _views.popitem(last=False)
    message = {"node": node_id, "token": token, "frames": len(motion), "fps": motion.fps, "sound": sound}
    server.send_sync("mggtalk.view", message, server.client_id)


def _free(unwanted) -> None:
    """Drops the views for which `unwanted(view)` holds."""
    for token in [token for token, view in _views.items() if unwanted(view)]:
        del _views[token]


def own_page(request: web.Request) -> bool:
    """Whether a request comes from ComfyUI's own page, also when foreign ones are let in elsewhere (CORS)."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("Origin")
    return origin is None or urlparse(origin).netloc.lower() == request.headers.get("Host", "").lower()


def _view_of(request: web.Request) -> View:
    """The view a request's token names.

    Raises HTTPForbidden for foreign pages and HTTPNotFound for unknown tokens.
    """
    if not own_page(request) or request.content_type != "application/json":
        raise web.HTTPForbidden(text="Only ComfyUI's own page may look at heads.")
    token = request.match_info["token"]
    view = _views.get(token)
    if view is None:
        raise web.HTTPNotFound(text="This head is no longer in memory; queue the workflow again.")
    _views.move_to_end(token)
    view.seen = time.monotonic()
    return view


async def render_view(request: web.Request) -> web.Response:
    """POST /mggtalk/view/{token}: one picture as JPEG."""
    view = _view_of(request)
    if (request.content_length or MAX_BODY + 1) > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length or 0)
    try:
        wish = await request.json()
        picture = await asyncio.get_running_loop().run_in_executor(None, _render, view, wish)
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise web.HTTPBadRequest(text=str(error)) from None
    return web.Response(body=picture, content_type="image/jpeg", headers={"Cache-Control": "no-store"})


async def close_view(request: web.Request) -> web.Response:
    """POST /mggtalk/view/{token}/close: the page needs the head no more."""
    view = _view_of(request)
    _free(lambda other: other is view)
    return web.Response()


def _render(view: View, wish: dict) -> bytes:
    """The picture a page wishes for: {frame, yaw, pitch, distance, size} and, from the editor, {expression, mode}."""
    from ..mggtalk_core.rendering.frames import LiveRenderer

    size, frame = int(wish["size"]), int(wish["frame"])
    if size not in SIDES or not 0 <= frame < len(view.motion):
        raise InputError(f"size {size} or frame {frame} is out of range")
    yaw, pitch = (float(np.clip(wish[name], -90, 90)) for name in ("yaw", "pitch"))
    distance = float(np.clip(wish["distance"], 0.3, 4))
    part = slice(frame, frame + 1)
    motion = Motion(
        view.motion.expression[part], view.motion.rotation[part], view.motion.translation[part], view.motion.fps
    )
    if "expression" in wish:
        if wish["mode"] not in expressions.MODES:
            raise InputError(f"mode {wish['mode']!r} is not one of {', '.join(expressions.MODES)}")
        motion = expressions.apply_edit(motion, expressions.parse_edit(wish["expression"]), wish["mode"])
    camera = cameras.around_head(view.head.camera.resized(size, size), yaw, pitch, distance)
    with view.lock:
        if view.renderer is None:
            view.renderer = LiveRenderer(view.head)
        rgb, _ = view.renderer.frame(motion.expression[0], motion.rotation[0], motion.translation[0], camera)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def add_routes() -> None:
    """Adds the routes to ComfyUI's server; called once, when the pack loads."""
    routes = PromptServer.instance.routes
    routes.post("/mggtalk/view/{token}")(render_view)
    routes.post("/mggtalk/view/{token}/close")(close_view)


def sound_address(sound) -> str:
    """Where the page finds the sound ComfyUI saved for a preview (ui.PreviewAudio)."""
    saved = sound.values[0]
    return "/view?" + urlencode({name: saved[name] for name in ("filename", "subfolder", "type")})
