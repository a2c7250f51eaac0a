"""Data that travels between nodes."""

from io import BytesIO
from types import SimpleNamespace


class SPLAT:
    def __init__(self, positions, scales, rotations, opacities, sh, counts=None):
        self.positions, self.scales, self.rotations = positions, scales, rotations
        self.opacities, self.sh, self.counts = opacities, sh, counts


class File3D:
    def __init__(self, source, file_format=""):
        self.source, self.format = source, file_format

    def get_bytes(self):
        return self.source.getvalue() if isinstance(self.source, BytesIO) else open(self.source, "rb").read()


class VideoFromFile:
    def __init__(self, file, *, start_time=0, duration=0):
        self.file, self.start_time, self.duration = file, start_time, duration

    def get_stream_source(self):
        return self.file

    def get_active_trim_window(self):
        return float(self.start_time), float(self.duration)

    def save_to(self, path, **kwargs):
        with open(self.file, "rb") as source, open(path, "wb") as target:
            target.write(source.read())


Types = SimpleNamespace(SPLAT=SPLAT, File3D=File3D)
InputImpl = SimpleNamespace(VideoFromFile=VideoFromFile)
