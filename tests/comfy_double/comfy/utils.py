"""Stand-in for the progress bar; keeps what was shown."""


class ProgressBar:
    last = None

    def __init__(self, total, node_id=None):
        self.total, self.value, self.previews = total, 0, []
        ProgressBar.last = self

    def update_absolute(self, value, total=None, preview=None):
        self.total, self.value = total or self.total, value
        if preview is not None:
            self.previews.append(preview)
