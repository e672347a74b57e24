"""The science of the sweeper: objectives, attacks, models, data and metrics, as a PyTorch library.

`FINETUNE` is what the sweeper knows of it: names of things, imported when they are needed.
"""

FINETUNE = {
    "trial": "trainables.config:TrialConfig",
    "evaluation": "trainables.config:EvaluationConfig",
    "metrics": "trainables.config:trial_metrics",
    "at_times": "trainables.config:trial_metrics_at_times",
    "describe": "trainables.config:describe_evaluation",
    "trainable": "trainables.finetune:Finetune",
    "measurement": "trainables.config:MeasurementConfig",
    "final": "trainables.config:final_evaluation",
    "measure": "trainables.finetune:measure",
    "fall": "trainables.metrics.masking:fall",
    "suites": "trainables.suites:measurements",
    "sanity": "trainables.finetune:sanity",
    "errors": "trainables.errors:EXPECTED",
    "check": "trainables.preflight:check",
    "check_unchanged": "trainables.finetune:check_unchanged",
    "check_measurement": "trainables.preflight:check_measurement",
    "resample": "trainables.metrics.resampling:resample",
    "benchmark": "trainables.benchmark:benchmark_records",
    "export": "trainables.export:export",
    "serving": "trainables.export:SERVING",
    "ready": "trainables.training:check_device",
    "memory": "trainables.memory:plan",
    "progress": "trainables.progress:listen",
}

EVALUATE = FINETUNE | {
    "trial": "trainables.zoo_config:ZooConfig",
    "trainable": "trainables.zoo:Zoo",
    "measure": "trainables.zoo:measure",
    "sanity": "trainables.zoo:sanity",
    "check": "trainables.zoo_config:check",
    "memory": "trainables.zoo_memory:plan",
    "export": "trainables.export:export_as_it_is",
}
"""The evaluation-only trainable: models as they are."""
