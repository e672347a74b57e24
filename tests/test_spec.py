"""The sweep file: what is accepted, and one clear line for every mistake."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeper import space, spec
from sweeper.constraints import parse_constraint
from sweeper.errors import SpecError
from sweeper.plan import print_plan
from sweeper.result import protocol
from tests.command import called
from tests.sweeps import FINITE, SMALL
from trainables.methods import METHODS

SPACES = Path(__file__).parents[1] / "search_spaces"
SHIPPED = sorted(SPACES.glob("**/*.yaml"))
TRAINING = [file for file in SHIPPED if file.stem != "clip_zoo"]  # which tests/test_zoo.py looks at

# What is put in place of what, and what the line must say: place, key, reason, what to do.
MISTAKES = {
    "unknown key": ("epochs: 2", "epoch: 2", ["f.yaml:12", "trial.epoch", "did you mean 'epochs'"]),
    "unknown top-level key": ("search:", "serch:", ["f.yaml:19", "serch", "did you mean 'search'"]),
    "key of another method": (
        "{name: tecoa}", "{name: tecoa, alpha: 1}", ["f.yaml:6", "trial.method.alpha", "unknown key"],
    ),
    "misspelt key of a method": ("alpha: !log", "alhpa: !log", ["f.yaml:7", "did you mean 'alpha'"]),
    "unknown method": ("name: tecoa", "name: tecao", ["f.yaml:6", "'tecao'", "did you mean 'tecoa'"]),
    "method without a name": ("{name: tecoa}", "{}", ["f.yaml:6", "trial.method", "name"]),
    "method that is no mapping": ("{name: tecoa}", "tecoa", ["f.yaml:6", "trial.method", "tecoa"]),
    "wrong type": ("batch_size: 64", "batch_size: many", ["f.yaml:11", "trial.batch_size", "'many'"]),
    "out of bounds": ("epochs: 2", "epochs: 0", ["f.yaml:12", "trial.epochs", "greater than 0"]),
    "epsilon beyond pixels": ("[4/255, 8/255]", "[4/255, 8]", ["f.yaml:4", "trial.attack.epsilon", "8"]),
    "broken fraction": ("[4/255, 8/255]", "[4/0, 8/255]", ["f.yaml:4", "trial.attack.epsilon", "4/0"]),
    "empty choice": ("!choice [4/255, 8/255]", "!choice []", ["f.yaml:4", "attack.epsilon", "is empty"]),
    "reversed bounds": ("[1e-4, 3e-3]", "[3e-3, 1e-4]", ["f.yaml:10", "learning_rate", "reversed"]),
    "log of zero": ("[1e-4, 3e-3]", "[0, 3e-3]", ["f.yaml:10", "above 0"]),
    "one bound": ("[1e-4, 3e-3]", "[1e-4]", ["f.yaml:10", "needs two numbers"]),
    "unknown tag": ("!loguniform [1e-4", "!logunifrom [1e-4", ["f.yaml:10", "did you mean '!loguniform'"]),
    "unknown metric": (
        "[robust_accuracy, clean", "[robust_acuracy, clean",
        ["f.yaml:16", "pareto.maximize", "did you mean 'robust_accuracy'"],
    ),
    "unknown constrained metric": ("{clean_accuracy:", "{clean_acc:", ["f.yaml:18", "'clean_accuracy'"]),
    "unreadable constraint": ('">= 0.5 * baseline"', '"about 0.5"', ["f.yaml:18", "'about 0.5'", ">= 0.5"]),
    "metric of a set not evaluated": ("[robust_ece]", "[stl10.robust_ece]", ["f.yaml:17", "unknown metric"]),
    "duplicate key": ("epochs: 2", "epochs: 2\n  epochs: 3", ["f.yaml:13", "trial.epochs", "line 12"]),
    "syntax": ("trial:", "trial: [", ["f.yaml:", "not valid YAML"]),
    "a folder for a data set": (
        "train: fashion-mnist-8k", "train: /data/own",
        ["f.yaml:3", "for a folder write {image_folder: /data/own}"],
    ),
    "a line too deep": ("  epochs: 2", "    epochs: 2", ["not valid YAML", "check this line's indentation"]),
    "a tab": ("  epochs: 2", "\tepochs: 2", ["not valid YAML", "; indent with spaces, not tabs"]),
    "a word for a number": ("epochs: 2", "epochs: two", ["f.yaml:12", "should be a whole number, got 'two'"]),
    "an epsilon of 255": (
        "epsilon: 8/255, steps: 3", "epsilon: 4, steps: 3",
        ["f.yaml:13", "evaluation.attack.epsilon: 4 is more", "write 4/255"],
    ),
    "an epsilon of all pixels": (
        "choice [4/255,", "choice [1,", ["f.yaml:4", "the whole range", "write 1/255"],
    ),
    "unknown data set": (
        "train: fashion-mnist-8k", "train: fashion", ["f.yaml:3", "did you mean 'fashion-mnist-8k'"],
    ),
    "a data set without classes": (
        "train: fashion-mnist-8k", "train: ninco", ["f.yaml:3", "no classes to be measured on", "`ood`"],
    ),
    "unknown key of a data set": (
        "train: fashion-mnist-8k", "train: {image_foldr: x}", ["f.yaml:3", "did you mean 'image_folder'"],
    ),
    "distribution outside the trial": (
        "trials: 5", "trials: !int [3, 9]", ["f.yaml:19", "only values under `trial`"],
    ),
    "too few trials for the grid": ("trials: 5", "trials: 3", ["f.yaml:19", "4 combinations", "at least 4"]),
    "unknown sampler": ("seed: 3,", "sampler: tpee,", ["f.yaml:19", "search.sampler", "did you mean 'tpe'"]),
    "early stopping on another metric": (
        "seed: 3,", "early_stopping: {metrics: [robust_ec]},", ["f.yaml:19", "did you mean 'robust_ece'"],
    ),
    "early stopping on nothing": ("seed: 3,", "early_stopping: {metrics: []},", ["f.yaml:19", "at least 1"]),
    "brackets without a rung": (
        "seed: 3,", "early_stopping: {brackets: 2},", ["f.yaml:19", "brackets", "after epochs 1"],
    ),
    "unknown order inside a front": (
        "seed: 3,", "early_stopping: {within: epsilon},", ["f.yaml:19", "did you mean 'epsilon_net'"],
    ),
    "early stopping after the end": (
        "seed: 3,", "early_stopping: {grace_epochs: 2},", ["f.yaml:19", "grace_epochs", "2 epochs"],
    ),
    "no attack for an adversarial method": (
        "epsilon: !choice [4", "epsilon: !choice [0, 4", ["f.yaml:", "epsilon"],
    ),
    "misspelt trial": ("trial:\n", "tril:\n", ["f.yaml:2", "tril", "did you mean 'trial'"]),
    "no name": ("name: small", "", ["f.yaml", "name", "required"]),
    "bad name": ("name: small", "name: ../../etc", ["f.yaml:1", "name"]),
    "mistake in a profile": ("{epochs: 9}", "{epohcs: 9}", ["f.yaml:21", "did you mean 'epochs'"]),
    "unknown attack": (
        "images: 40}\nfinal", "images: 40, further_attacks: [standrad]}\nfinal",
        ["f.yaml:13", "further_attacks", "did you mean 'standard'"],
    ),
    "a norm that is none": ("steps: 2}", "steps: 2, norm: l1}", ["f.yaml:4", "trial.attack.norm", "l1"]),
    "objective that is not always defined": (
        "minimize: [robust_ece]", "minimize: [robust_confidence_when_wrong]", ["f.yaml:17", "unknown metric"],
    ),
    "objective of an attack that does not run": (
        "minimize: [robust_ece]", "minimize: [confidence_up_ece]", ["f.yaml:17", "unknown metric"],
    ),
    "settings that have no effect": (
        "images: 40}\nfinal", "images: 40, further_attacks: [{name: torchattacks.PGD, steps: 9}]}\nfinal",
        ["f.yaml:13", "further_attacks", "under `settings`"],
    ),
    "settings of an attack that has none": (
        "images: 40}\nfinal", "images: 40, further_attacks: [{name: standard, settings: {a: 1}}]}\nfinal",
        ["f.yaml:13", "further_attacks", "has no `settings`"],
    ),
    "an l2 attack in an l-infinity ball": (
        "images: 40}\nfinal", "images: 40, further_attacks: [torchattacks.PGDL2]}\nfinal",
        ["f.yaml:13", "further_attacks", "give it `norm: l2`"],
    ),
    "a further attack beyond pixels": (
        "images: 40}\nfinal", "images: 40, further_attacks: [{name: standard, epsilon: 8}]}\nfinal",
        ["f.yaml:13", "further_attacks", "8 is more than pixels differ by"],
    ),
    "a confidence attack beyond pixels": (
        "images: 40}\nfinal", "images: 40, confidence_attack: {epsilon: 8}}\nfinal",
        ["f.yaml:13", "confidence_attack.epsilon", "8 is more than pixels differ by"],
    ),
    "known point of an unknown parameter": (
        "seed: 3,", "known: [{optimizer.learning_rat: 1e-3}],",
        ["f.yaml:19", "search.known.0", "did you mean 'optimizer.learning_rate'"],
    ),
    "known point outside a range": (
        "seed: 3,", "known: [{optimizer.learning_rate: 1}],", ["f.yaml:19", "known.0", "[0.0001, 0.003]"],
    ),
    "known point that is no option": (
        "seed: 3,", "known: [{method: tecao}],", ["f.yaml:19", "search.known.0", "did you mean 'tecoa'"],
    ),
    "known point without its condition": (
        "seed: 3,", "known: [{method: tecoa, method.pmg.alpha: 1}],",
        ["f.yaml:19", "search.known.0", "only with method: pmg"],
    ),
    "warm start of a sampler that does not learn": (
        "seed: 3,", "warm_start: [a], sampler: random,", ["f.yaml:19", "search.warm_start", "use forest"],
    ),
    "GPU-hours without a GPU": (
        "seed: 3,", "budget: {gpu_hours: 4},", ["f.yaml:19", "budget.gpu_hours", "give hours or epochs"],
    ),
    "too few trials for known points and the grid": (
        "seed: 3,", "known: [{method: pmg}, {method: tecoa}],",
        ["f.yaml:19", "2 known points and the 4 combinations", "at least 6"],
    ),
    "grid inside a choice": (
        "alpha: !loguniform [0.1, 10]", "alpha: !choice [!grid [1, 2]]", ["f.yaml:7", "alpha"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line(mistake: str) -> None:
    old, new, expected = MISTAKES[mistake]
    assert old in SMALL
    with pytest.raises(SpecError) as caught:
        spec.from_text(SMALL.replace(old, new, 1), "f.yaml")
    lines = caught.value.lines
    assert all(any(word in line for line in lines) for word in expected), lines
    assert all("\n" not in line and "Traceback" not in line for line in lines)
    if mistake != "no attack for an adversarial method":  # three of the four methods refuse it
        assert len(lines) == 1, lines


def test_all_mistakes_are_reported_together() -> None:
    text = SMALL.replace("epochs: 2", "epochs: 0").replace("[4/255,", "[9,").replace("seed: 3", "sede: 3")
    with pytest.raises(SpecError) as caught:
        spec.from_text(text, "f.yaml")
    keys = [line.split(": ")[1] for line in caught.value.lines]
    assert keys == ["search.sede", "trial.attack.epsilon", "trial.epochs"]


def test_the_command_prints_the_line_and_exits_with_2(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(SMALL.replace("tecoa", "tecao"))
    done = sweeper("run", str(file))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{file}:6: trial.method: 'tecao' is not known; did you mean 'tecoa'?" in done.stderr
    missing = sweeper("plan", str(tmp_path / "none.yaml"))
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1


def sweeper(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sweeper", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("file", TRAINING, ids=lambda file: str(file.relative_to(SPACES)))
def test_shipped_files_say_that_they_run_as_they_stand_and_have_the_real_thing(file: Path) -> None:
    assert "Runs as it stands on the embedded" in file.read_text().splitlines()[0]
    embedded, real = spec.load(file), spec.load(file, "vit-b-32")
    whole = {"towers": None, "blocks": None}
    assert embedded.base_trial()["model"] == {"name": "clip-tiny", "pretrained": None} | whole
    trial = real.base_trial()
    assert trial["model"] == {"name": "ViT-B-32", "pretrained": "openai"} | whole
    assert trial["data"]["train"] == "tiny-imagenet"
    assert trial["attack"]["step_size"] == "1/255" or trial["attack"]["epsilon"] == "0/255"
    assert real.file.resources.gpus == 1


def test_there_is_a_space_for_each_method_and_for_all() -> None:
    shipped = {str(f.relative_to(SPACES).with_suffix("")) for f in SHIPPED}
    assert shipped >= {"quickstart", "tecoa", "pmg", "carot", "dirichlet", "compare"}
    assert shipped >= {f"published/{name}" for name in METHODS}
    searched = space.distributions(spec.load(next(f for f in SHIPPED if f.stem == "dirichlet")).space)
    assert {"attack.epsilon", "method.weight", "method.concentration_scale"} <= set(searched)


def test_a_grid_is_a_finite_space_of_which_nothing_runs_twice(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = spec.from_text(FINITE, "f.yaml")
    assert space.count(sweep.space) == 8
    assert len({str(point) for point in sweep.fixed()}) == 8
    print_plan(sweep)
    assert "the first 8 of the space's 8 configurations" in capsys.readouterr().out
    known = FINITE.replace("trials: 8", "trials: 8, known: [{method: carot, method.carot.average_every: 2}]")
    points = list(spec.from_text(known, "f.yaml").fixed())
    assert [point["attack.epsilon"] for point in points[:2]] == ["4/255", "8/255"]
    assert all(point["method.carot.average_every"] == 2 for point in points[:2])
    assert len({str(sorted(point.items())) for point in points}) == 8 == len(points)
    with pytest.raises(SpecError, match=r"f.yaml:6: search.trials: 9 trials, .* give at most 8"):
        spec.from_text(FINITE.replace("trials: 8", "trials: 9"), "f.yaml")
    with pytest.raises(SpecError, match=r"f.yaml:4: trial.attack.epsilon: !uniform .* infinitely many"):
        spec.from_text(FINITE.replace("!choice [4/255, 8/255]", "!uniform [1/255, 8/255]"), "f.yaml")


def test_plan_says_that_a_space_has_too_few_configurations(capsys: pytest.CaptureFixture[str]) -> None:
    for trials, said in ((8, False), (11, True)):
        text = FINITE.replace("sampler: grid", "sampler: forest").replace("trials: 8", f"trials: {trials}")
        print_plan(spec.from_text(text, "f.yaml"))
        line = "the space has 8 configurations: 3 trials or more train one again"
        assert (line in capsys.readouterr().out) == said


def test_a_huge_grid_is_counted_without_being_run_through() -> None:
    huge = FINITE.replace("!int [1, 3]", "!int [1, 1000000000000]")
    sweep = spec.from_text(huge, "f.yaml")
    assert space.count(sweep.space) == 2 * (1 + 10**12)
    assert next(sweep.fixed()) == {"attack.epsilon": "4/255", "method": "tecoa"}


def test_a_resolved_trial_is_itself_a_valid_file() -> None:
    sweep = spec.from_text(SMALL, "f.yaml")
    trial = sweep.base_trial()
    again = sweep.trial(trial)
    assert again == trial
    assert trial["attack"]["epsilon"] == "4/255"


def test_a_sweep_written_out_is_the_same_sweep() -> None:
    sweep = spec.from_text(SMALL, "f.yaml", "long", ["trial.batch_size=32"])
    again = spec.from_text(sweep.text(), "again.yaml")
    assert again.text() == sweep.text()
    assert (sweep.base_trial()["epochs"], sweep.base_trial()["batch_size"]) == (9, 32)
    assert space.distributions(again.space).keys() == space.distributions(sweep.space).keys()


def test_unknown_profile_is_one_line() -> None:
    with pytest.raises(SpecError, match="no profile 'lang'; did you mean 'long'"):
        spec.from_text(SMALL, "f.yaml", "lang")


def test_constraints_are_absolute_or_relative_to_the_untrained_model() -> None:
    relative = parse_constraint("clean_accuracy", ">= 0.9 * baseline")
    assert relative.violation(0.8, baseline=0.8) == 0
    assert relative.violation(0.7, baseline=0.8) == pytest.approx(0.02)
    absolute = parse_constraint("robust_ece", "<= 1/10")
    assert absolute.violation(0.25, baseline=0.9) == pytest.approx(0.15)


def test_help_and_plan_answer_without_heavy_imports() -> None:
    code = "import sys; from sweeper.cli import main\ntry: main({})\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'ray', 'mlflow', 'optuna', 'matplotlib') if m in sys.modules])"
    for arguments in (["--help"], ["plan", str(TRAINING[0])]):
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code.format(arguments)], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"
        assert time.monotonic() - started < 30


def test_an_l2_ball_may_be_larger_than_1_and_any_metric_an_objective() -> None:
    text = SMALL.replace("{epsilon: !choice [4/255, 8/255], steps: 2}", "{norm: l2, epsilon: 1.5, steps: 2}")
    text = text.replace("images: 40}\n", "images: 40, confidence_attack: {epsilon: 2/255}}\n")
    text = text.replace("minimize: [robust_ece]", "minimize: [confidence_up_ece, entropy_attack_auroc]")
    sweep = spec.from_text(text, "f.yaml")
    assert sweep.base_trial()["attack"] == {
        "norm": "l2", "epsilon": 1.5, "steps": 2, "step_size": None, "momentum": 0.0, "at": "native",
    }  # fmt: skip
    assert {"confidence_up_ece", "entropy_attack_auroc", "digits.robust_scaled_nll"} <= set(sweep.metrics)


def test_an_evaluation_says_what_its_numbers_are() -> None:
    further = "[{name: standard, steps: 50}, torchattacks.Square, {name: apgd-t, epsilon: 2/255}]"
    text = SMALL.replace(
        "images: 40}\nfinal",
        f"images: 40, further_attacks: {further}, confidence_attack: {{epsilon: 1/255}}, seed: 7}}\nfinal",
    )
    said = protocol(spec.from_text(text, "f.yaml"), "validation")["text"]
    assert said == (
        "validation images (at most 40 of each set), PGD-3 at epsilon 8/255, robust accuracy in the worst "
        "case with standard (50 steps), torchattacks.Square, apgd-t (100 steps, epsilon 2/255), confidence "
        "attack at epsilon 1/255, pixels of native size, ECE with 15 equal-width bins, attack seed 7"
    )
    l2 = "final: {precision: bfloat16, attack: {norm: l2, loss: margin, at: model, "
    assert protocol(spec.from_text(SMALL.replace("final: {attack: {", l2), "f.yaml"), "test")["text"] == (
        "test images (at most 40 of each set), margin-PGD-5 at L2 epsilon 8/255, pixels of the model's input "
        "size, bfloat16, ECE with 15 equal-width bins, attack seed 0"
    )


def test_plan_says_what_fits_if_it_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("name: one\ntrial: {method: {name: tecoa}, batch_size: !choice [16, 64]}\n")
    done = called("plan", file, "--memory")
    assert done.stderr == ""
    shown = done.stdout[done.stdout.index("clip-tiny, tecoa, batch 16: a trial needs about ") :]
    assert "clip-tiny, tecoa, batch 64: a trial needs about " in shown
    assert "with cpus 1: " in shown
    assert " side by side" in shown
    file.write_text(
        "name: one\ntrial: {method: {name: tecoa}, model: {name: RN50, pretrained: random, blocks: 2}}\n"
    )
    done = called("plan", file, "--memory", code=2)
    assert done.stderr.count("\n") == 1
    assert "has no transformer blocks" in done.stderr
