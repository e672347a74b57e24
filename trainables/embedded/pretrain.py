"""Pre-trains clip-tiny, the small CLIP that comes with the project.

    apt-get install dataset-fashion-mnist
    python -m trainables.embedded.pretrain

Image-text contrastive learning on the 54,000 Fashion-MNIST training images that the embedded
subset leaves out and on the training part of scikit-learn's digits. Each step pairs 256 images
with two captions of each of the 20 classes, from random prompt templates; an image's positives
are the captions of its class, a caption's the images of its class (UniCL: Yang et al., CVPR 2022,
arXiv 2204.03610). The logit scale ends at 100, as in released CLIP models, so that published loss
weights, temperatures and concentration scales mean here what they mean there. Seeded; about a quarter
of an hour on two cores. Validation and test images of both sets are never seen.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from trainables.data import registry
from trainables.data.fit import Fit
from trainables.data.sets.embedded import DIGIT_CLASSES, FASHION_CLASSES, SIZE, gray_to_rgb
from trainables.embedded.make_images import remainder

FOLDER = Path(__file__).with_name("clip-tiny")
SEED = 0
STEPS = 5000
BATCH = 256
DIGITS_SHARE = 0.2
CAPTIONS_PER_CLASS = 2
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
WARMUP_STEPS = 300
FIRST_SCALE, LAST_SCALE = 10.0, 100.0
TEMPLATES = (
    "a photo of a {}", "This is a photo of a {}", "a photo of the {}.", "a picture of a {}",
    "an image of a {}", "a blurry photo of a {}", "a low resolution photo of a {}", "a small {}",
    "a black and white photo of a {}", "a drawing of a {}", "the {}", "{}", "one {} in the image",
    "a close-up photo of a {}", "a cropped photo of the {}", "itap of a {}", "a bright photo of a {}",
    "a handwritten {}", "this is a {}", "a {} on a dark background",
)  # fmt: skip


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random shift by up to two pixels and contrast of 0.1 to 1, per image. images: (B, 3, 28, 28).

    Faint images make the model as sensitive to small differences, and so as easily attacked, as
    large models trained on natural photographs are.
    """
    batch, _, height, width = images.shape
    shift = torch.randint(0, 5, (batch, 2), generator=generator)
    padded = F.pad(images, (2, 2, 2, 2))
    rows = shift[:, :1] + torch.arange(height)
    columns = shift[:, 1:] + torch.arange(width)
    moved = padded[torch.arange(batch)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    contrast = 10 ** -torch.rand(batch, 1, 1, 1, generator=generator)
    return moved.permute(0, 3, 1, 2) * contrast


def multi_positive_loss(logits: Tensor, image_class: Tensor, text_class: Tensor) -> Tensor:
    """UniCL: cross-entropy to all positives, mean of both directions. logits: (images, captions)."""
    same = (image_class[:, None] == text_class[None, :]).float()
    image_to_text = -(same / same.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1)
    text_to_image = -(same / same.sum(0, keepdim=True).clamp(min=1) * logits.log_softmax(0)).sum(0)
    return (image_to_text.mean() + text_to_image.mean()) / 2


def main() -> None:
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    fashion_images, fashion_labels = remainder()
    digit_set = registry.load("digits", "train", Fit(SIZE))
    names = FASHION_CLASSES + DIGIT_CLASSES
    pools = [
        (torch.from_numpy(gray_to_rgb(fashion_images)), torch.from_numpy(fashion_labels).long()),
        (torch.from_numpy(digit_set.pixels()), torch.from_numpy(digit_set.labels) + len(FASHION_CLASSES)),
    ]
    from_digits = int(DIGITS_SHARE * BATCH)

    config = json.loads((FOLDER / "open_clip_config.json").read_text())
    preprocess = config["preprocess_cfg"]
    mean = torch.tensor(preprocess["mean"]).view(3, 1, 1)
    std = torch.tensor(preprocess["std"]).view(3, 1, 1)
    model = open_clip.CLIP(**config["model_cfg"])
    model.logit_scale.requires_grad_(False)
    tokenizer = open_clip.SimpleTokenizer(context_length=config["model_cfg"]["text_cfg"]["context_length"])
    captions = torch.stack([tokenizer([t.format(n) for t in TEMPLATES]) for n in names])

    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY,
    )  # fmt: skip
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999)
    )
    for step in range(STEPS):
        done = step / STEPS
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / WARMUP_STEPS)
            group["lr"] = LEARNING_RATE * warm * 0.5 * (1 + math.cos(math.pi * done))
        scale = FIRST_SCALE * (LAST_SCALE / FIRST_SCALE) ** min(1.0, 1.25 * done)
        picks = [rng.integers(len(pools[0][1]), size=BATCH - from_digits),
                 rng.integers(len(pools[1][1]), size=from_digits)]  # fmt: skip
        pixels = torch.cat([pool[0][i] for pool, i in zip(pools, picks, strict=True)])
        classes = torch.cat([pool[1][i] for pool, i in zip(pools, picks, strict=True)])
        images = augment(pixels.permute(0, 3, 1, 2).float() / 255, generator)
        text_class = torch.arange(len(names)).repeat(CAPTIONS_PER_CLASS)
        text = captions[text_class, torch.from_numpy(rng.integers(len(TEMPLATES), size=len(text_class)))]
        image_features = model.encode_image((images - mean) / std, normalize=True)
        text_features = model.encode_text(text, normalize=True)
        loss = multi_positive_loss(scale * image_features @ text_features.T, classes, text_class)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(model)
        if step % 500 == 0:
            print(f"step {step} loss {loss.item():.3f} scale {scale:.0f}", flush=True)

    final: open_clip.CLIP = average.module
    final.logit_scale.data.fill_(math.log(LAST_SCALE))
    weights = {name: value.detach().half().contiguous() for name, value in final.state_dict().items()}
    save_file(weights, FOLDER / "open_clip_model.safetensors")


if __name__ == "__main__":
    main()
