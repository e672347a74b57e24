"""Small sweeps that tests run or break."""

from __future__ import annotations

SMALL = """\
name: small
trial:
  data: {train: fashion-mnist-8k, evaluate: [fashion-mnist-8k, digits], images: 128}
  attack: {epsilon: !choice [4/255, 8/255], steps: 2}
  method: !grid
    - {name: tecoa}
    - {name: pmg, alpha: !loguniform [0.1, 10], beta: !loguniform [0.1, 10]}
    - {name: carot, average_every: 1}
    - {name: dirichlet, weight_normalisation: evidence, concentration_scale: !loguniform [2, 100]}
  optimizer: {name: adamw, learning_rate: !loguniform [1e-4, 3e-3]}
  batch_size: 64
  epochs: 2
evaluation: {attack: {epsilon: 8/255, steps: 3}, images: 40}
final: {attack: {epsilon: 8/255, steps: 5}, images: 40}
pareto:
  maximize: [robust_accuracy, clean_accuracy]
  minimize: [robust_ece]
  subject_to: {clean_accuracy: ">= 0.5 * baseline"}
search: {trials: 5, seed: 3, startup_trials: 2}
profiles:
  long: {trial: {epochs: 9}, search: {trials: 8}}
"""

FINITE = """\
name: finite
trial:
  data: {train: fashion-mnist-8k}
  attack: {epsilon: !choice [4/255, 8/255]}
  method: !grid [{name: tecoa}, {name: carot, average_every: !int [1, 3]}]
search: {sampler: grid, trials: 8}
"""
