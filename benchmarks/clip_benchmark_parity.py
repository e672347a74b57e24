"""Does clip_benchmark's own code give an exported model the accuracy that we give it?

    python -m benchmarks.clip_benchmark_parity [RUN] [--trial t003] [--venv DIR]

Exports the Pareto set of a run, or of a small sweep that it runs first, writes the embedded test images as
data sets that clip_benchmark reads (webdataset: PNG files in a tar), and compares how many images are
classified correctly: by `sweeper evaluate`, and by `clip_benchmark eval` in float32. clip_benchmark 1.6.2
needs NumPy below 2.4 and has an environment of its own, with our versions of torch and open_clip: uv makes
it in --venv (some GB), where it is found the next time. Ends with 1 if any count differs.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from PIL import Image

from sweeper import Run, Sweep
from sweeper.evaluation import of_model
from sweeper.export import exported
from trainables.data import registry
from trainables.data.fit import Fit
from trainables.data.images import ImageSet

SETS = ("fashion-mnist-8k", "digits")
PROMPT = "This is a photo of a {c}"
REQUIREMENTS = [
    *("clip-benchmark==1.6.2", "numpy<2.4", "requests"),  # it imports requests without asking for it
    *(f"{name}=={version(name)}" for name in ("torch", "torchvision", "open_clip_torch")),
]
SWEEP = {
    "name": "parity",
    "trial": {
        "data": {"train": SETS[0], "images": 600},
        "attack": {"epsilon": "8/255", "steps": 2},
        "method": {"!grid": [{"name": "tecoa"}, {"name": "pmg"}, {"name": "carot"}]},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "epochs": 1,
    },
    "evaluation": {"attack": {"epsilon": "8/255", "steps": 3}, "images": 200},
    "search": {"trials": 3},
    "tracking": {"mlflow": False},
}


def environment(folder: Path) -> Path:
    """The command `clip_benchmark` of a virtual environment, made if it is not there."""
    command = folder / "bin" / "clip_benchmark"
    if not command.exists():
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--python", sys.executable, str(folder)], check=True)
        python = str(folder / "bin" / "python")
        subprocess.run([uv, "pip", "install", "--python", python, *REQUIREMENTS], check=True)
    return command


def write_webdataset(images: ImageSet, folder: Path) -> None:
    """One shard of PNG files and labels, class names and the prompt, as clip_benchmark reads them."""
    shard = folder / images.split / "0.tar"
    shard.parent.mkdir(parents=True)
    with tarfile.open(shard, "w") as tar:
        for index, (pixels, label) in enumerate(zip(images.pixels(), images.labels, strict=True)):
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, format="png")
            for suffix, content in (("png", png.getvalue()), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"s{index:07d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    (folder / images.split / "nshards.txt").write_text("1")
    (folder / "classnames.txt").write_text("\n".join(images.classes))
    (folder / "zeroshot_classification_templates.txt").write_text(PROMPT)


def ours(export: Path, name: str, folder: Path) -> tuple[int, dict[str, float]]:
    """Images classified correctly, and the record that we write for clip_benchmark."""
    none = ["attack.epsilon=0", "attack.steps=0"]  # clean accuracy is all that is compared
    target = folder / f"{export.name}-{name}.json"
    measurement = of_model(str(export), [name], "test", to=target, prompt=PROMPT, overrides=none)
    file = measurement.measure()
    measurement.write_benchmark(file)
    correct = int(pd.read_parquet(file.with_suffix(".parquet"))["clean_correct"].sum())
    return correct, json.loads(target.read_text())["metrics"]


def theirs(command: Path, export: Path, name: str, data: Path, folder: Path) -> dict[str, float]:
    target = folder / f"{export.name}-{name}-clip-benchmark.json"
    arguments = ["--model", f"local-dir:{export}", "--pretrained", "", "--dataset", f"wds/{name}"]
    arguments += ["--dataset_root", str(data / name), "--split", "test", "--output", str(target)]
    arguments += ["--task", "zeroshot_classification", "--no_amp", "--num_workers", "0", "--quiet"]
    subprocess.run([str(command), "eval", *arguments], check=True, stderr=subprocess.DEVNULL)
    metrics: dict[str, float] = json.loads(target.read_text())["metrics"]
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="a run's folder; a small sweep is run without one")
    parser.add_argument("--trial", nargs="*", default=[], help="trials; the Pareto set by default")
    parser.add_argument("--venv", type=Path, default=Path("runs/clip-benchmark"), help="environment to use")
    options = parser.parse_args()
    command = environment(options.venv.absolute())
    equal = True
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run = Run.load(options.run) if options.run else Sweep.from_dict(SWEEP).run(folder / "runs").run
        sizes = {}
        for name in SETS:
            images = registry.load(name, "test", Fit((28, 28)))
            sizes[name] = len(images)
            write_webdataset(images, folder / "data" / name)
        for trial, export in exported(run, options.trial, folder / "exports"):
            for name in SETS:
                count, own = ours(export, name, folder)
                other = theirs(command, export, name, folder / "data", folder)
                other_count = round(other["acc1"] * sizes[name])
                rest = max(abs(own[key] - other[key]) for key in ("acc5", "mean_per_class_recall"))
                print(
                    f"{trial} on {name}: of {sizes[name]} images {count} by sweeper evaluate, {other_count} "
                    f"by clip_benchmark; acc5 and mean_per_class_recall differ by at most {rest:.1e}"
                )
                equal &= count == other_count
    sys.exit(not equal)


if __name__ == "__main__":
    main()
