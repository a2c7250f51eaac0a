"""The live view in the page: a small route that renders the heads of this session with our own renderer.

A node that shows a head returns a random token among its UI results, which ComfyUI sends to the page that queued the
run (again, when the run was cached). Only requests that carry a token, come from ComfyUI's own page and name nothing
but numbers are answered. The route keeps no head alive: it knows them as long as ComfyUI's cache holds them, and frees
what it made to render them a minute after the last picture.
"""

from __future__ import annotations

import asyncio
import io
import secrets
import threading
import time
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlparse

import numpy as np
from aiohttp import web
from PIL import Image
from server import PromptServer

from ..mggtalk_core.errors import InputError
from ..mggtalk_core.gaussians.head import GaussianHead
from ..mggtalk_core.types import Motion
from . import cameras, expressions

if TYPE_CHECKING:
    from ..mggtalk_core.rendering.frames import LiveRenderer

IDLE_SECONDS = 60.0
"""How long a renderer (about 40 MB for a 512 head) waits for the next request."""

MAX_RENDERERS = 3
MAX_BODY = 16_384
SIDES = range(64, 1025)


@dataclass(frozen=True)
class View:
    """A head some page looks at."""

    node: str
    head: weakref.ReferenceType[GaussianHead]
    motion: Motion


@dataclass
class Renderer:
    """What draws a view; not for several threads at once."""

    live: LiveRenderer
    lock: threading.Lock = field(default_factory=threading.Lock)
    used: float = field(default_factory=time.monotonic)


_views: dict[str, View] = {}  # token -> view, gone with its head
_renderers: OrderedDict[str, Renderer] = OrderedDict()  # token -> renderer, least recently used first


def publish(node_id: str, head: GaussianHead, motion: Motion, sound: str | None = None) -> dict:
    """UI results that let the page look at a head; they replace what the node showed of this head before.

    `sound` is the address of the sound to play with the motion.
    """
    for token in [token for token, view in _views.items() if view.node == node_id and view.head() is head]:
        _forget(token)
    token = secrets.token_urlsafe(24)
    _views[token] = View(node_id, weakref.ref(head), motion)
    weakref.finalize(head, _forget, token).atexit = False
    return {"mggtalk_view": [{"token": token, "frames": len(motion), "fps": motion.fps, "sound": sound}]}


def _forget(token: str) -> None:
    _views.pop(token, None)
    _renderers.pop(token, None)


def _drop_idle() -> None:
    """Frees renderers nobody asked for lately."""
    limit = time.monotonic() - IDLE_SECONDS
    for token in [token for token, renderer in _renderers.items() if renderer.used <= limit]:
        del _renderers[token]


def _renderer(token: str, head: GaussianHead) -> Renderer:
    """The view's renderer, made if need be."""
    from ..mggtalk_core.rendering.frames import LiveRenderer  # compiles kernels: not while ComfyUI starts

    renderer = _renderers.get(token) or _renderers.setdefault(token, Renderer(LiveRenderer(head)))
    _renderers.move_to_end(token)
    while len(_renderers) > MAX_RENDERERS:
        _renderers.popitem(last=False)
    renderer.used = time.monotonic()
    return renderer


def own_page(request: web.Request) -> bool:
    """Whether a request comes from ComfyUI's own page, also when foreign ones are let in elsewhere (CORS)."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("Origin")
    return origin is None or urlparse(origin).netloc.lower() == request.headers.get("Host", "").lower()


def _token_of(request: web.Request) -> str:
    """The token of a request from our own page.

    Raises HTTPForbidden for foreign pages and HTTPNotFound for unknown tokens.
    """
    if not own_page(request) or request.content_type != "application/json":
        raise web.HTTPForbidden(text="Only ComfyUI's own page may look at heads.")
    token = request.match_info["token"]
    if token not in _views:
        raise web.HTTPNotFound(text="This head is no longer in memory; queue the workflow again.")
    return token


async def render_view(request: web.Request) -> web.Response:
    """POST /mggtalk/view/{token}: one picture as JPEG."""
    token = _token_of(request)
    if (request.content_length or MAX_BODY + 1) > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length or 0)
    loop = asyncio.get_running_loop()
    try:
        picture = await loop.run_in_executor(None, _render, token, await request.json())
    except (KeyError, TypeError, ValueError, OverflowError) as error:  # a body of other shape, or an InputError
        raise web.HTTPBadRequest(text=str(error)) from None
    loop.call_later(IDLE_SECONDS, _drop_idle)
    return web.Response(body=picture, content_type="image/jpeg", headers={"Cache-Control": "no-store"})


async def close_view(request: web.Request) -> web.Response:
    """POST /mggtalk/view/{token}/close: the page shows the head no more."""
    _renderers.pop(_token_of(request), None)
    return web.Response()


def _render(token: str, wish: dict) -> bytes:
    """The picture a page wishes for: {frame, yaw, pitch, distance, size} and, from the editor, {expression, mode}."""
    view = _views[token]
    head = view.head()
    size, frame = int(wish["size"]), int(wish["frame"])
    if size not in SIDES or not 0 <= frame < len(view.motion):
        raise InputError(f"size {size} or frame {frame} is out of range")
    yaw, pitch = (float(np.clip(wish[name], -90, 90)) for name in ("yaw", "pitch"))
    distance = float(np.clip(wish["distance"], 0.3, 4))
    motion = expressions.frame_of(view.motion, frame)
    if "expression" in wish:
        if wish["mode"] not in expressions.MODES:
            raise InputError(f"mode {wish['mode']!r} is not one of {', '.join(expressions.MODES)}")
        motion = expressions.apply_edit(motion, expressions.parse_edit(wish["expression"]), wish["mode"])
    camera = cameras.around_head(head.camera.resized(size, size), yaw, pitch, distance)
    renderer = _renderer(token, head)
    with renderer.lock:
        rgb, _ = renderer.live.frame(motion.expression[0], motion.rotation[0], motion.translation[0], camera)
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
