"""Stand-in for ComfyUI's web server: keeps what was sent to the page and which routes were added."""

from types import SimpleNamespace


class _Routes:
    def __init__(self):
        self.handlers = {}

    def post(self, path):
        def add(handler):
            self.handlers[path] = handler
            return handler

        return add


class _NodeReplaceManager:
    def __init__(self):
        self.replacements = []

    def register(self, replacement):
        self.replacements.append(replacement)


class PromptServer:
    instance = SimpleNamespace(
        routes=_Routes(),
        client_id="test-client",
        sockets={"test-client": object()},
        sent=[],
        texts=[],
        node_replace_manager=_NodeReplaceManager(),
    )


PromptServer.instance.send_sync = lambda event, data, sid=None: PromptServer.instance.sent.append((event, data, sid))
PromptServer.instance.send_progress_text = lambda text, node_id, sid=None: PromptServer.instance.texts.append(text)
