"""The picture loss: SSIM against the reference implementation, masks, and that it pulls where it should."""

import numpy as np
import pytest
import torch

from mggtalk_core.evaluation.image_metrics import ssim_map as reference_ssim_map
from mggtalk_core.training.losses import PictureLoss, gradient_difference, ssim_map


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    base = np.cumsum(rng.normal(0, 0.05, (2, 48, 48, 3)), axis=1) + 0.5
    return torch.tensor(base.clip(0, 1)), torch.tensor((base + rng.normal(0, 0.05, base.shape)).clip(0, 1))


def test_ssim_agrees_with_the_evaluations(pictures):
    ours = ssim_map(*pictures)
    for index in range(2):
        reference = reference_ssim_map(pictures[0][index].numpy(), pictures[1][index].numpy())
        np.testing.assert_allclose(ours[index, 6:-6, 6:-6].numpy(), reference[6:-6, 6:-6], atol=1e-9)


def test_the_same_picture_costs_nothing_and_outside_the_mask_nothing_counts(pictures):
    picture, truth = pictures
    everywhere, nowhere = torch.ones(2, 48, 48), torch.zeros(2, 48, 48)
    assert PictureLoss()(picture, picture, everywhere)["loss"].item() == pytest.approx(0, abs=1e-9)
    assert PictureLoss()(picture, truth, nowhere)["loss"].item() == 0
    assert PictureLoss()(picture, truth, everywhere)["loss"].item() > 0.03


def test_blur_costs_more_in_gradients_than_noise_of_the_same_size(pictures):
    sharp = pictures[1].permute(0, 3, 1, 2)
    blurred = torch.nn.functional.avg_pool2d(sharp, 5, 1, 2, count_include_pad=False)
    shifted = sharp + (blurred - sharp).abs().mean()
    assert gradient_difference(blurred, sharp) > 10 * gradient_difference(shifted, sharp)


def test_descending_recovers_the_picture(pictures):
    truth = pictures[0].float()
    picture = torch.full_like(truth, 0.5, requires_grad=True)
    mask = torch.ones(2, 48, 48)
    optimizer = torch.optim.Adam([picture], 0.03)
    first = PictureLoss()(picture, truth, mask)["loss"].item()
    for _ in range(60):
        loss = PictureLoss()(picture, truth, mask)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.15 * first


def test_given_features_are_used(pictures):
    class Brightness(torch.nn.Module):
        def forward(self, image):
            return [image.mean((1, 2, 3))]

    picture, truth = pictures
    terms = PictureLoss(features=Brightness())(picture, truth, torch.ones(2, 48, 48))
    expected = (picture.mean((1, 2, 3)) - truth.mean((1, 2, 3))).abs().mean()
    assert terms["perceptual"].item() == pytest.approx(expected.item())
