"""Stand-in for the wrapper through which ComfyUI moves models between devices."""


class ModelPatcher:
    def __init__(self, model, load_device, offload_device, size=0):
        self.model, self.load_device, self.offload_device = model, load_device, offload_device


CoreModelPatcher = ModelPatcher
