"""The science of the sweeper: objectives, attacks, models, data and metrics, as a PyTorch library.

`FINETUNE` is what the sweeper knows of it: names of things, imported when they are needed.
"""

FINETUNE = {
    "trial": "trainables.config:TrialConfig",
    "evaluation": "trainables.config:EvaluationConfig",
    "metrics": "trainables.config:trial_metrics",
    "describe": "trainables.config:describe_evaluation",
    "trainable": "trainables.finetune:Finetune",
    "measure": "trainables.finetune:measure",
    "sanity": "trainables.finetune:sanity",
    "errors": "trainables.errors:EXPECTED",
    "check": "trainables.preflight:check",
    "memory": "trainables.memory:plan",
}
