"""Every alteration of images, by name. No torch here: sweep files are checked against this list.

Corruptions: the fifteen of Hendrycks & Dietterich, ICLR 2019, arXiv 1903.12261. Factors: what may differ
between two images of one class, drawn from the image itself; they leave its label as it is.
"""

from __future__ import annotations

_CORRUPTIONS = {
    "gaussian-noise": "normal noise is added to every value",
    "shot-noise": "as of few photons: Poisson counts in place of the values",
    "impulse-noise": "some values become 0 or 1",
    "defocus-blur": "every point becomes a disk",
    "glass-blur": "every pixel is replaced by one nearby, between two slight blurs",
    "motion-blur": "every point leaves a fading trail, within 45 degrees of the horizontal",
    "zoom-blur": "the mean of the image and of enlargements about its centre",
    "snow": "flakes that fall in one direction, on a whitened image",
    "frost": "drawn ice needles are laid on, where ImageNet-C has photographs, so that results differ",
    "fog": "clouds of fractal noise are laid on, with less contrast",
    "brightness": "the value of HSV is raised",
    "contrast": "all values move towards their channel's mean",
    "elastic": "the image is sheared, and distorted locally",
    "pixelate": "made smaller, then as large as before, in blocks",
    "jpeg": "compressed as JPEG, with colour at half the resolution",
}

_FACTORS = {
    "pose": "turned to one side, 10 to 50 degrees give or take a fifth",
    "smaller": "0.9 to 0.5 of the size, on black",
    "larger": "1.1 to 1.6 times the size; what is off the edges is lost",
    "background": "a two-coloured cloudy texture in place of what is black",
    "pattern": "stripes of a random hue, on what is not black",
    "color": "a random hue, on what is not black",
    "partial-view": "black over 8 to 40 % of the object's extent, from a random side",
    "brighter": "1.3 to 5 times the light, less of it towards white",
    "darker": "0.8 to 0.2 times the light",
}

DESCRIPTIONS = {**_CORRUPTIONS, **_FACTORS}
CORRUPTIONS = tuple(_CORRUPTIONS)
FACTORS = tuple(_FACTORS)
ALTERATIONS = tuple(DESCRIPTIONS)
SEVERITIES = (1, 2, 3, 4, 5)
