"""Zero-shot classification by an exported model, as MLflow loads and serves it.

MLflow stores this file with the model ("models from code") and runs it where clip-sweeper need not be
installed: it uses open_clip, torch, Pillow, pandas and MLflow alone.
"""

from __future__ import annotations

import io
from typing import Any

import mlflow
import open_clip
import pandas as pd
import torch
from PIL import Image

BATCH_SIZE = 256


class ZeroShotClassifier(mlflow.pyfunc.PythonModel):
    """Images and class names in, probabilities out."""

    def load_context(self, context: Any) -> None:
        source = f"local-dir:{context.artifacts['export']}"
        self.clip, _, self.preprocess = open_clip.create_model_and_transforms(source)
        self.clip.eval()
        self.tokenizer = open_clip.get_tokenizer(source)

    @torch.no_grad()
    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any]) -> pd.DataFrame:
        """Probabilities with the model's own logit scale, a row per image and a column per class.

        model_input: column `image` with the bytes of PNG, JPEG or other image files.
        params: `classes`, a list of names, and `templates`, prompts with {} or {c} for the name; the
        texts of several are averaged.
        """
        classes = list(params["classes"])
        texts = [self.encoded(template, classes) for template in params["templates"]]
        text = torch.nn.functional.normalize(torch.stack(texts).mean(0), dim=-1)
        rows = []
        for first in range(0, len(model_input), BATCH_SIZE):
            batch = model_input["image"].iloc[first : first + BATCH_SIZE]
            pixels = torch.stack([self.preprocess(decoded(image)) for image in batch])
            logits = self.clip.logit_scale.exp() * self.clip.encode_image(pixels, normalize=True) @ text.T
            rows.append(logits.softmax(-1))
        return pd.DataFrame(torch.cat(rows).numpy(), columns=classes)

    def encoded(self, template: str, classes: list[str]) -> torch.Tensor:
        """(K, D) unit text features."""
        prompts = [template.replace("{c}", "{}").replace("{}", name) for name in classes]
        return self.clip.encode_text(self.tokenizer(prompts), normalize=True)


def decoded(image: bytes) -> Image.Image:
    opened: Image.Image = Image.open(io.BytesIO(image))
    if opened.mode.startswith("I"):  # 16-bit grey levels, which Pillow would cut at 255
        opened = opened.point(lambda level: level / 257 + 0.5).convert("L")
    return opened.convert("RGB")


mlflow.models.set_model(ZeroShotClassifier())
