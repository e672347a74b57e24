"""Alterations of images: what all have in common, then each against another source of the same numbers."""

from __future__ import annotations

import colorsys
import io
import itertools
import subprocess
import sys
from typing import Literal

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as vision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from scipy import ndimage, stats
from scipy.fft import dct
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from trainables.alterations import corruptions, draws, factors, jpeg, resampling, textures
from trainables.alterations.alter import alter
from trainables.alterations.draws import Draws
from trainables.alterations.names import ALTERATIONS, CORRUPTIONS, DESCRIPTIONS, FACTORS, SEVERITIES
from trainables.alterations.registry import REGISTERED
from trainables.data import registry
from trainables.data.fit import Fit
from trainables.pixels import to_pixels

CPU = torch.device("cpu")
UNALIKE = (36, 31)
LARGE = (64, 70)
BLURS = ("defocus-blur", "glass-blur", "motion-blur", "zoom-blur")
SAME_FOR_ALL = (
    *("defocus-blur", "zoom-blur", "brightness", "contrast", "pixelate", "jpeg"),
    *("smaller", "larger", "brighter", "darker"),
)
"""Alterations without anything random."""

NOT_MONOTONE = ("glass-blur", "motion-blur", "frost", "elastic")
"""As CIFAR-10-C's tables have them: glass-blur's sigma goes 0.4, 0.25, 0.4; motion-blur's third and fourth
kernels differ in what is beyond their third sigma; frost keeps less of the image as it lays on more; and
elastic's shear falls as its distortions grow."""


def embedded(count: int = 24, name: str = "fashion-mnist-8k") -> tuple[Tensor, np.ndarray]:
    images = registry.load(name, "test", Fit((28, 28))).take(np.arange(count))
    return to_pixels(images.pixels(), CPU), images.numbers


def coloured(size: tuple[int, int] = LARGE, count: int = 4, seed: int = 0) -> Tensor:
    """Smooth images in colour of 8 bits, with black and white in them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 7, 7, generator=generator) * 1.6 - 0.3
    smooth = functional.interpolate(coarse, size, mode="bicubic", align_corners=False)
    return (smooth.clamp(0, 1) * 255).round() / 255


def plain(level: float, size: tuple[int, int] = LARGE, count: int = 16) -> Tensor:
    return torch.full((count, 3, *size), level)


def altered(pixels: Tensor, name: str, severity: int = 3, seed: int = 0) -> Tensor:
    return alter(pixels, name, severity, seed=seed, numbers=np.arange(len(pixels)))


def some_draws(count: int = 8, seed: int = 0) -> Draws:
    return Draws(seed, "test", np.arange(count), CPU)


# All


def test_all_that_are_told_are_there() -> None:
    assert set(REGISTERED) == set(ALTERATIONS)
    assert ALTERATIONS == (*CORRUPTIONS, *FACTORS) == tuple(DESCRIPTIONS)
    assert (len(CORRUPTIONS), len(FACTORS)) == (15, 9)
    assert all(len(made.large) == len(made.small) == 5 for made in REGISTERED.values())


def test_names_import_no_torch() -> None:
    script = "import sys, trainables.alterations.names; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("severity", [0, 6])
def test_there_are_five_severities(severity: int) -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        altered(plain(0.5), "contrast", severity)


@pytest.mark.parametrize("name", ALTERATIONS)
@pytest.mark.parametrize("size", [(28, 28), UNALIKE, LARGE])
def test_images_stay_images_and_depend_on_nothing_else(name: str, size: tuple[int, int]) -> None:
    """Neither on the images beside them nor on their order, to the last bit; and what is given is kept."""
    pixels, numbers = coloured(size, 5), np.array([3, 0, 2**40, 7, 11])
    kept, order = pixels.clone(), [4, 1, 3, 0, 2]
    for severity in SEVERITIES:
        whole = alter(pixels, name, severity, seed=1, numbers=numbers)
        assert torch.equal(pixels, kept)
        assert (whole.shape, whole.dtype, whole.device) == (pixels.shape, torch.float32, CPU)
        assert whole.min() >= 0
        assert whole.max() <= 1
        assert not torch.equal(whole, pixels)
        shuffled = alter(pixels[order], name, severity, seed=1, numbers=numbers[order])
        assert torch.equal(shuffled, whole[order])
        alone = alter(pixels[2:3], name, severity, seed=1, numbers=numbers[2:3])
        assert torch.equal(alone, whole[2:3])


@pytest.mark.parametrize("name", ALTERATIONS)
def test_what_is_random_depends_on_seed_and_number(name: str) -> None:
    pixels = embedded(1)[0].expand(3, -1, -1, -1)
    first, second = (alter(pixels, name, 2, seed=seed, numbers=np.array([0, 0, 1])) for seed in (0, 2**40))
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2]) == (name in SAME_FOR_ALL)
    assert torch.equal(first[0], second[0]) == (name in SAME_FOR_ALL)


def test_names_are_streams_of_their_own() -> None:
    """Apart from each other, and from the random starts of attacks."""
    fields = [Draws(0, name, np.array([0]), CPU).field(4).tobytes() for name in ALTERATIONS]
    start = np.random.default_rng((0, 0)).random(4, np.float32).tobytes()
    assert len({*fields, start}) == len(ALTERATIONS) + 1


def test_the_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state(legacy=False)
    for name in ALTERATIONS:
        altered(plain(0.5, (28, 28), 1), name)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_equal(np.random.get_state(legacy=False), before[1])


@pytest.mark.parametrize("name", ALTERATIONS)
def test_each_severity_is_further_from_the_image_than_the_one_before(name: str) -> None:
    pixels, _ = embedded(100)
    distances = [(altered(pixels, name, s) - pixels).flatten(1).norm(dim=1).mean() for s in SEVERITIES]
    assert distances[0] > 0.5
    rises = all(less < more for less, more in itertools.pairwise(distances))
    assert rises or name in NOT_MONOTONE


@pytest.mark.parametrize("size", [(28, 28), LARGE])
def test_on_another_device_everything_is_there_and_nothing_waits(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tensors that have a device but no values: mixed devices, and whatever asks for a value, fail."""
    for module in (draws, resampling, jpeg):
        monkeypatch.setattr(module, "to_device", lambda array, device: torch.tensor(array, device=device))
    with FakeTensorMode():
        pixels = torch.empty(3, 3, *size, device="cuda")
        for name in ALTERATIONS:
            result = altered(pixels, name)
            assert (result.shape, result.dtype) == (pixels.shape, torch.float32)
            assert result.device.type == "cuda"


@pytest.mark.gpu
@pytest.mark.parametrize("name", ALTERATIONS)
def test_a_gpu_gives_the_same_images(name: str) -> None:
    pixels = coloured(count=8)
    for severity in SEVERITIES:
        here, there = (altered(pixels.to(device), name, severity).cpu() for device in ("cpu", "cuda"))
        assert (here - there).abs().mean() < 1e-6


# Noise


@pytest.mark.parametrize(
    ("size", "deviations"), [((28, 28), (0.04, 0.06, 0.08, 0.09, 0.10)), (LARGE, (0.08, 0.12, 0.18))]
)
def test_gaussian_noise_has_the_published_deviation(
    size: tuple[int, int], deviations: tuple[float, ...]
) -> None:
    """As far as nothing is cut off at 0 and 1."""
    for severity, deviation in enumerate(deviations, 1):
        noise = altered(plain(0.5, size), "gaussian-noise", severity) - 0.5
        assert noise.std().item() == pytest.approx(deviation, rel=0.02)
        assert noise.mean().abs() < 5 * deviation / noise.numel() ** 0.5


@pytest.mark.parametrize(("size", "photons"), [((28, 28), (500, 250, 100, 75, 50)), (LARGE, (60, 25, 12, 5))])
@pytest.mark.parametrize("level", [0.02, 0.1, 0.3])
def test_shot_noise_has_poissons_mean_and_variance(
    size: tuple[int, int], photons: tuple[int, ...], level: float
) -> None:
    for severity, c in enumerate(photons, 1):
        noisy = altered(plain(level, size), "shot-noise", severity).double()
        assert noisy.mean().item() == pytest.approx(level, abs=5 * (level / c / noisy.numel()) ** 0.5)
        assert noisy.var().item() == pytest.approx(level / c, rel=0.07)
        torch.testing.assert_close(noisy * c, (noisy * c).round(), atol=1e-4, rtol=0)


def test_poisson_quantiles() -> None:
    """Those of scipy below a rate of 6; above, one in some hundred is off by one."""
    uniform = (np.arange(20_000) + 0.5) / 20_000
    for rate in (0.0, 0.01, 0.3, 1.0, 2.5, 5.99, 6.0, 8.0, 20.0, 100.0, 500.0):
        u, z = (torch.from_numpy(values).float() for values in (uniform, stats.norm.ppf(uniform)))
        found = corruptions.poisson(torch.full_like(u, rate), u, z).numpy()
        off = np.abs(found - stats.poisson.ppf(uniform, rate))
        assert off.max() <= 1
        assert (off > 0).mean() < (2e-4 if rate < 6 else 5e-3)


@given(low=st.floats(0, 500), more=st.floats(0, 100), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_more_light_never_means_fewer_photons(low: float, more: float, seed: int) -> None:
    """But for the one photon that two approximations differ by where they meet."""
    normal = torch.randn(200, generator=torch.Generator().manual_seed(seed))
    uniform = torch.special.ndtr(normal)
    fewer, counts = (
        corruptions.poisson(torch.full_like(normal, rate), uniform, normal) for rate in (low, low + more)
    )
    assert (counts >= fewer - float(low < 6 <= low + more)).all()


@pytest.mark.parametrize(
    ("size", "shares"),
    [((28, 28), (0.01, 0.02, 0.03, 0.05, 0.07)), (LARGE, (0.03, 0.06, 0.09, 0.17, 0.27))],
)
def test_impulses_are_as_many_as_published_and_half_of_them_white(
    size: tuple[int, int], shares: tuple[float, ...]
) -> None:
    for severity, share in enumerate(shares, 1):
        noisy = altered(plain(0.5, size), "impulse-noise", severity)
        n = noisy.numel()
        for value in (0, 1):
            found = (noisy == value).sum().item()
            assert stats.binomtest(found, n, share / 2).pvalue > 1e-4
        assert set(noisy.unique().tolist()) == {0, 0.5, 1}


# Blur


@pytest.mark.parametrize("name", [*BLURS, "elastic", "pixelate", "larger"])
@pytest.mark.parametrize("size", [(28, 28), LARGE])
def test_a_plain_image_stays_as_it_is(name: str, size: tuple[int, int]) -> None:
    for severity in SEVERITIES:
        pixels = plain(0.3, size, 2)
        torch.testing.assert_close(altered(pixels, name, severity), pixels, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", REGISTERED["defocus-blur"].large + REGISTERED["defocus-blur"].small)
def test_a_disk_is_one(size: tuple[float, float]) -> None:
    kernel = resampling.disk(*size)
    assert kernel.sum() == pytest.approx(1)
    assert np.allclose(kernel, kernel.T)
    assert np.allclose(kernel, kernel[::-1])
    assert kernel[tuple(np.array(kernel.shape) // 2)] == kernel.max()
    sharp = resampling.disk(size[0], 1e-3)
    inside = sum(x**2 + y**2 <= size[0] ** 2 for x, y in itertools.product(range(-11, 12), repeat=2))
    assert np.count_nonzero(sharp) == inside
    assert np.allclose(sharp[sharp > 0], 1 / inside)


def test_defocus_blur_is_the_convolution_of_torch() -> None:
    pixels, kernel = coloured(), resampling.disk(6, 0.5)
    weight = torch.from_numpy(kernel).float().expand(3, 1, -1, -1)
    padded = functional.pad(pixels, (len(kernel) // 2,) * 4, mode="reflect")
    expected = functional.conv2d(padded, weight, groups=3)
    torch.testing.assert_close(altered(pixels, "defocus-blur", 3), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("border", "mode"), [("edge", "nearest"), ("symmetric", "reflect")])
@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.5, 30])
def test_gaussian_blur_is_that_of_scipy(
    border: Literal["edge", "symmetric"], mode: str, sigma: float
) -> None:
    pixels = coloured(UNALIKE)
    expected = ndimage.gaussian_filter(pixels.numpy(), (0, 0, sigma, sigma), mode=mode, truncate=3)
    found = resampling.blurred(pixels, sigma, truncate=3, border=border)
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_glass_blur_takes_pixels_from_above_and_from_the_left() -> None:
    """Where it blurs too little to be seen: each from at most one pixel away."""
    pixels = torch.rand(8, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    glass = altered(pixels, "glass-blur", 1)
    padded = functional.pad(pixels, (1, 0, 1, 0), mode="replicate")
    near = [padded[:, :, y : y + 28, x : x + 28] for y, x in itertools.product((0, 1), repeat=2)]
    taken = torch.stack([(glass == candidate).all(1) for candidate in near]).float()
    assert (taken.amax(0) == 1).all()
    assert ((taken.mean((1, 2, 3)) - 0.25).abs() < 0.04).all()


@pytest.mark.parametrize(("radius", "sigma"), REGISTERED["motion-blur"].large)
def test_a_trail_is_one_and_fades(radius: int, sigma: float) -> None:
    weights = resampling.trail(radius, sigma)
    assert weights.sum() == pytest.approx(1)
    assert len(weights) == 2 * radius + 1
    assert weights[radius] / weights[0] == pytest.approx(stats.norm.pdf(radius / sigma) / stats.norm.pdf(0))


@pytest.mark.parametrize(("degrees", "step"), [(0, (0, 1)), (90, (1, 0)), (-45, (-1, 1)), (180, (0, -1))])
def test_a_trail_leaves_in_its_direction(degrees: int, step: tuple[int, int]) -> None:
    """A pixel sees the point on the other end of it, and along a diagonal every other step is as long."""
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    found = resampling.trailed(point, 5, 3, np.array([float(degrees)]))[0, 0]
    expected = torch.zeros(41, 41)
    for distance, weight in enumerate(resampling.trail(5, 3)):
        away = np.rint(distance * np.hypot(*step) / 2 if all(step) else distance)
        expected[tuple(int(20 - away * s) for s in step)] += weight
    torch.testing.assert_close(found, expected)


def test_motion_blur_stays_within_45_degrees_of_the_horizontal() -> None:
    point = torch.zeros(64, 3, *LARGE)
    point[..., 32, 35] = 1
    blurred = altered(point, "motion-blur", 5)[:, 0]
    rows, columns = torch.arange(LARGE[0])[:, None] - 32, torch.arange(LARGE[1]) - 35
    down, right = ((blurred * places).sum((1, 2)) for places in (rows, columns))
    assert (right < 0).all()
    angles = torch.atan2(down, -right).rad2deg()
    assert angles.abs().max() < 47
    assert angles.min() < -30
    assert angles.max() > 30


def test_zoom_blur_is_the_mean_of_zooms() -> None:
    """By torchvision, whose zooms are about the same centre."""
    pixels = coloured()
    zooms = [1 + 0.02 * k for k in range(11)]
    scaled = [
        vision.affine(pixels, 0, [0, 0], zoom, [0.0, 0.0], vision.InterpolationMode.BILINEAR)
        for zoom in zooms
    ]
    expected = torch.stack([pixels, *scaled]).mean(0)
    torch.testing.assert_close(altered(pixels, "zoom-blur", 3), expected, atol=1e-4, rtol=0)


# Weather


@pytest.mark.parametrize("size", [(28, 28), LARGE])
def test_weather_lays_something_on(size: tuple[int, int]) -> None:
    pixels = coloured(size) * 0.9
    frost, fog = REGISTERED["frost"], REGISTERED["fog"]
    for severity in SEVERITIES:
        assert (altered(pixels, "snow", severity) >= pixels - 1e-6).all()
        kept, ice = (frost.small if size < LARGE else frost.large)[severity - 1]
        frozen = altered(pixels, "frost", severity)
        assert (frozen >= pixels * kept - 1e-6).all()
        assert (frozen <= pixels * kept + ice + 1e-6).all()
        thick = (fog.small if size < LARGE else fog.large)[severity - 1][0]
        brightest = pixels.amax((1, 2, 3), keepdim=True)
        clear = altered(pixels, "fog", severity) * (brightest + thick) / brightest
        assert (clear >= pixels - 1e-5).all()
        assert (clear <= pixels + thick + 1e-5).all()


def test_snow_and_frost_are_less_coloured_than_the_image() -> None:
    pixels = coloured()
    spread = lambda image: (image.amax(1) - image.amin(1)).mean()  # noqa: E731
    assert spread(altered(pixels, "snow", 5)) < 0.6 * spread(pixels)
    assert spread(altered(pixels, "frost", 5)) < 0.8 * spread(pixels)


@pytest.mark.parametrize("size", [(28, 28), (64, 64), (33, 20)])
def test_clouds_range_from_0_to_1_and_are_smoother_the_faster_their_noise_falls(
    size: tuple[int, int],
) -> None:
    roughness = []
    for decay in (1.4, 2, 3):
        clouds = textures.clouds(some_draws(32), *size, decay)
        assert clouds.shape == (32, 1, *size)
        assert clouds.min() >= 0
        assert clouds.max() <= 1
        roughness.append(clouds.diff(dim=-1).abs().mean())
    assert roughness[0] > 1.5 * roughness[1]
    assert roughness[1] > 1.1 * roughness[2]


def test_clouds_are_the_means_of_their_neighbours_and_noise() -> None:
    """Point by point: squares take the mean of their corners, diamonds that of what is nearest."""
    side, decay = 8, 1.5
    noise = 2 * some_draws(1).field(side, side)[0].astype(float) - 1
    heights = np.zeros((side, side))
    step, scale = side, 1.0
    while step > 1:
        half = step // 2
        corners = list(itertools.product((-half, half), repeat=2))
        sides = [(0, half), (0, -half), (half, 0), (-half, 0)]
        for (top, left), near in (((half, half), corners), ((0, half), sides), ((half, 0), sides)):
            for row, column in itertools.product(range(top, side, step), range(left, side, step)):
                around = [heights[(row + down) % side, (column + right) % side] for down, right in near]
                heights[row, column] = np.mean(around) + scale * noise[row, column]
        step, scale = half, scale / decay**2
    expected = (heights - heights.min()) / (heights.max() - heights.min())
    clouds = textures.clouds(some_draws(1), side, side, decay)[0, 0]
    np.testing.assert_allclose(clouds.numpy(), expected, atol=1e-5)


def test_snow_falls_from_both_sides() -> None:
    """On black: white of its own, and each flake with another that is turned by 180 degrees."""
    for severity, kept in enumerate((0.8, 0.7, 0.7, 0.65, 0.55), 1):
        snow = altered(plain(0, count=4), "snow", severity)
        torch.testing.assert_close(snow, snow.flip((2, 3)))
        assert snow.min() >= 0.5 * (1 - kept) - 1e-6
        assert 0.03 < (snow > 0.5 * (1 - kept) + 0.05).float().mean() < 1


# Digital


@given(seed=st.integers(0, 999), severity=st.sampled_from(SEVERITIES))
@settings(max_examples=20)
def test_brightness_raises_the_value_of_hsv_and_nothing_else(seed: int, severity: int) -> None:
    pixels = coloured((8, 8), 1, seed)
    result = altered(pixels, "brightness", severity)
    more = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    for before, after in zip(pixels[0].flatten(1).T.tolist(), result[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(value + more, 1)), abs=1e-5)


@given(seed=st.integers(0, 999), severity=st.sampled_from(SEVERITIES))
@settings(max_examples=20)
def test_contrast_keeps_each_channels_mean_and_a_share_of_its_deviation(seed: int, severity: int) -> None:
    pixels = coloured(UNALIKE, 3, seed)
    result = altered(pixels, "contrast", severity)
    kept = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    torch.testing.assert_close(result.mean((2, 3)), pixels.mean((2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.std((2, 3)), pixels.std((2, 3)) * kept, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("size", "shares"),
    [((28, 28), (0.95, 0.9, 0.85, 0.75, 0.65)), (LARGE, (0.6, 0.5, 0.4, 0.3, 0.25))],
)
def test_pixelate_is_pillows_box_there_and_back(size: tuple[int, int], shares: tuple[float, ...]) -> None:
    pixels = coloured(size)
    for severity, share in enumerate(shares, 1):
        small = int(size[1] * share), int(size[0] * share)
        for image, found in zip(as_images(pixels), altered(pixels, "pixelate", severity), strict=True):
            expected = image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX)
            difference = found - to_pixels(np.asarray(expected)[None], CPU)[0]
            assert difference.abs().max() < 1.01 / 255  # Pillow rounds, first along rows


def as_images(pixels: Tensor) -> list[Image.Image]:
    levels = (pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(image) for image in levels]


def by_pillow(image: Image.Image, quality: int) -> JpegImageFile:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    file.seek(0)
    return JpegImageFile(file)


def by_pillow_as_pixels(pixels: Tensor, quality: int) -> Tensor:
    return to_pixels(np.stack([np.asarray(by_pillow(image, quality)) for image in as_images(pixels)]), CPU)


@pytest.mark.parametrize(
    ("size", "qualities"),
    [((28, 28), (80, 65, 58, 50, 40)), ((35, 29), (80, 65, 58, 50, 40)), (LARGE, (25, 18, 15, 10, 7))],
)
def test_jpeg_is_pillows(size: tuple[int, int], qualities: tuple[int, ...]) -> None:
    """But for a coefficient in some hundred, which is rounded the other way."""
    pixels = torch.cat([coloured(size), embedded(20)[0]]) if size == (28, 28) else coloured(size)
    for severity, quality in enumerate(qualities, 1):
        difference = altered(pixels, "jpeg", severity) - by_pillow_as_pixels(pixels, quality)
        assert difference.abs().mean() < 1 / 255
        assert difference.mean().abs() < 0.2 / 255


@pytest.mark.parametrize("size", [(28, 28), (35, 29), LARGE])
def test_jpeg_at_full_quality_is_pillows_value_by_value(size: tuple[int, int]) -> None:
    difference = jpeg.compressed(coloured(size), 100) - by_pillow_as_pixels(coloured(size), 100)
    assert difference.abs().mean() < 0.5 / 255
    assert difference.abs().max() < 6 / 255


@pytest.mark.parametrize("quality", [1, 7, 25, 49, 50, 51, 80, 100])
def test_quantisation_is_libjpegs(quality: int) -> None:
    tables = by_pillow(as_images(coloured())[0], quality).quantization
    for index, table in enumerate((jpeg.LUMINANCE, jpeg.CHROMINANCE)):
        assert jpeg.steps(table, quality).flatten().tolist() == tables[index]


def test_cosines_are_an_orthonormal_transform_of_eight_values() -> None:
    transform = jpeg.cosines(16)
    assert np.allclose(transform @ transform.T, np.eye(16))
    values = np.random.default_rng(0).random(16)
    assert np.allclose(transform @ values, dct(values.reshape(2, 8), norm="ortho").flatten())


def test_elastic_without_distortions_is_affine() -> None:
    """CIFAR-10-C's first severity: a ramp stays a ramp, but where what is beyond the border is reflected."""
    ramp = (0.3 + 0.01 * torch.arange(28.0)).expand(16, 3, 28, 28)
    inner = altered(ramp, "elastic", 1)[:, :, 10:-10, 10:-10]
    assert inner.diff(n=2, dim=2).abs().max() < 1e-5
    assert inner.diff(n=2, dim=3).abs().max() < 1e-5
    assert inner.std(0).min() > 0.001


@given(size=st.integers(2, 40), position=st.integers(-39, 78))
def test_reflected_is_what_numpy_pads_with(size: int, position: int) -> None:
    position = max(1 - size, min(position, 2 * size - 2))
    padded = np.pad(np.arange(size), size - 1, mode="reflect")
    assert corruptions.reflected(torch.tensor(float(position)), size) == padded[position + size - 1]


# Resampling


@given(seed=st.integers(0, 999), rows=st.integers(1, 9), columns=st.integers(1, 9))
@settings(max_examples=30)
def test_separable_maps_are_matrix_products(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    down, right = (rng.normal(size=(2, *shape)) for shape in ((rows, 6), (columns, 5)))
    maps = list(zip(down * (down > 0), right * (right > 0), strict=True))
    pixels = rng.random((2, 3, 6, 5))
    expected = sum(np.einsum("mh,bchw,nw->bcmn", down, pixels, right) for down, right in maps)
    found = resampling.separable(torch.from_numpy(pixels).float(), *maps)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("turns", [-1, 0, 1, 2])
def test_quarter_turns_are_those_of_torch(turns: int) -> None:
    pixels = coloured((28, 28))
    found = resampling.turned(pixels, np.full(4, 90.0 * turns))
    torch.testing.assert_close(found, pixels.rot90(turns, (2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(28, 28), UNALIKE])
def test_turns_are_those_of_torchvision(size: tuple[int, int]) -> None:
    pixels, degrees = coloured(size), np.array([-50.0, 10.0, 33.0, 170.0])
    found = resampling.turned(pixels, degrees)
    for image, angle, result in zip(pixels, degrees, found, strict=True):
        expected = vision.rotate(image, angle, vision.InterpolationMode.BILINEAR)
        torch.testing.assert_close(result, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("size", [(28, 28), UNALIKE])
@pytest.mark.parametrize("name", ["smaller", "larger"])
def test_sizes_are_those_of_torchvision(name: str, size: tuple[int, int]) -> None:
    pixels = coloured(size)
    for severity, scale in enumerate(REGISTERED[name].small, 1):
        expected = vision.affine(pixels, 0, [0, 0], scale, [0.0, 0.0], vision.InterpolationMode.BILINEAR)
        torch.testing.assert_close(altered(pixels, name, severity), expected, atol=1e-4, rtol=0)


# Factors


@pytest.mark.parametrize("name", ["fashion-mnist-8k", "digits"])
def test_backgrounds_and_surfaces_keep_to_their_places(name: str) -> None:
    pixels, _ = embedded(24, name)
    on = factors.on_object(pixels).expand_as(pixels)
    assert 0.1 < on.float().mean() < 0.7
    for severity in SEVERITIES:
        assert torch.equal(altered(pixels, "background", severity)[on], pixels[on])
        for surface in ("pattern", "color"):
            assert torch.equal(altered(pixels, surface, severity)[~on], pixels[~on])
    assert (altered(pixels, "background", 5)[~on] > 0.1).float().mean() > 0.8
    assert (altered(pixels, "color", 5) != pixels)[on].float().mean() > 0.6


def test_a_turn_is_as_far_as_it_should_be_and_to_both_sides() -> None:
    """By the direction of a bar's second moments."""
    bar = torch.zeros(200, 3, 65, 65)
    bar[:, :, 30:35, 8:57] = 1
    at = torch.arange(65) - 32.0
    for severity, degrees in enumerate((10, 20, 30, 40, 50), 1):
        turned = altered(bar, "pose", severity)[:, 0]
        xx, yy = (turned * at**2).sum((1, 2)), (turned * at[:, None] ** 2).sum((1, 2))
        xy = (turned * at * at[:, None]).sum((1, 2))
        angles = torch.atan2(2 * xy, xx - yy).rad2deg() / 2
        assert angles.abs().min() > 0.8 * degrees - 1
        assert angles.abs().max() < 1.2 * degrees + 1
        assert 0.35 < (angles > 0).float().mean() < 0.65


def test_colours_are_pure_and_of_every_hue() -> None:
    colours = factors.hues(some_draws(300))[:, :, 0, 0]
    hues = []
    for colour in colours.tolist():
        hue, saturation, value = colorsys.rgb_to_hsv(*colour)
        assert (saturation, value) == (1, 1)
        hues.append(hue)
    assert stats.kstest(hues, "uniform").pvalue > 0.01


def test_color_tints_as_far_as_its_severity() -> None:
    """Grey of value v becomes v times a pure colour at the last."""
    grey = plain(0.6, (28, 28))
    last = altered(grey, "color", 5)
    for severity in SEVERITIES:
        expected = grey + (last - grey) * severity / 5
        torch.testing.assert_close(altered(grey, "color", severity), expected)
    torch.testing.assert_close(last.amax(1), grey[:, 0])
    torch.testing.assert_close(last.amin(1), torch.zeros_like(grey[:, 0]))


def test_patterns_are_stripes() -> None:
    """About half of the object is covered, and along some direction nothing changes."""
    striped = altered(plain(0.5), "pattern", 5)
    covered = (striped != 0.5).any(1).float().mean((1, 2))
    assert 0.5 < covered.min() <= covered.max() < 0.85
    crossings = (striped.amin(1) < 0.25).float().diff(dim=2).abs().sum(2).amax(1)
    assert crossings.max() <= 2 * 8 + 1


def test_a_partial_view_hides_a_share_of_the_object() -> None:
    disk = torch.zeros(64, 3, 61, 61)
    at = torch.arange(61) - 30
    disk[:, :, (at**2 + at[:, None] ** 2) <= 20**2] = 0.7
    for severity, share in enumerate((0.08, 0.16, 0.24, 0.32, 0.4), 1):
        seen = altered(disk, "partial-view", severity)
        assert ((seen == disk) | (seen == 0)).all()
        left = seen.sum((1, 2, 3)) / disk.sum((1, 2, 3))
        angle = np.arccos(1 - 2 * share)  # a segment of the circle, as high as the share of its diameter
        hidden = (angle - np.sin(angle) * np.cos(angle)) / np.pi
        torch.testing.assert_close(left, torch.full_like(left, 1 - hidden), atol=0.03, rtol=0)
    centres = (seen[:, 0] * at).sum((1, 2)), (seen[:, 0] * at[:, None]).sum((1, 2))
    quarters = {(bool(right > 0), bool(down > 0)) for right, down in zip(*centres, strict=True)}
    assert len(quarters) == 4


def test_nothing_is_hidden_where_there_is_nothing() -> None:
    black = plain(0.0, (28, 28))
    for name in ("partial-view", "pattern", "color", "brighter", "darker", "pose"):
        assert torch.equal(altered(black, name), black)


@given(severity=st.sampled_from(SEVERITIES), level=st.floats(0, 1), other=st.floats(0, 1))
def test_light_keeps_black_and_the_order_of_levels(severity: int, level: float, other: float) -> None:
    levels = torch.tensor([0.0, 1.0, *sorted((level, other))]).view(1, 1, 1, 4).expand(1, 3, 28, 4)
    brighter, darker = (altered(levels, name, severity)[0, 0, 0] for name in ("brighter", "darker"))
    before = levels[0, 0, 0]
    assert brighter[0] == darker[0] == 0
    assert brighter[1] == pytest.approx(1)
    assert (brighter >= before - 1e-6).all()
    assert brighter[2] <= brighter[3]
    torch.testing.assert_close(darker, before * (0.8, 0.6, 0.45, 0.3, 0.2)[severity - 1])
    light = (1.3, 1.7, 2.4, 3.5, 5.0)[severity - 1]
    torch.testing.assert_close(brighter, light * before / (1 + (light - 1) * before))
