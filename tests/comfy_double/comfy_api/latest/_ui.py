"""Results shown in the page."""


class SavedResult(dict):
    def __init__(self, filename, subfolder, type):
        super().__init__(filename=filename, subfolder=subfolder, type=type.value)


class _UI:
    def __init__(self, values=None, **kwargs):
        self.values = values

    def as_dict(self):
        return {type(self).__name__: self.values}


class PreviewImage(_UI): ...


class PreviewVideo(_UI): ...


class PreviewAudio(_UI): ...


class PreviewText(_UI): ...
