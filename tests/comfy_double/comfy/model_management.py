"""Stand-in for ComfyUI's device and interrupt state."""

import torch

interrupted = False


class InterruptProcessingException(BaseException):
    pass


def throw_exception_if_processing_interrupted():
    global interrupted
    if interrupted:
        interrupted = False
        raise InterruptProcessingException


def get_torch_device():
    return torch.device("cpu")


def intermediate_device():
    return torch.device("cpu")


def unet_offload_device():
    return torch.device("cpu")


def load_models_gpu(models):
    pass
