"""The cluster files: pins, Ray's validator, AWS's bootstrap against a server on loopback, what fits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper import capacity
from sweeper.errors import UserError
from sweeper.spec import Resources
from tests.command import called
from tests.sweeps import SMALL

REPOSITORY = Path(__file__).parents[1]
AWS, ON_PREMISES = REPOSITORY / "cluster.yaml", REPOSITORY / "clusters" / "on-premises.yaml"
KUBERAY, DOCKERFILE = REPOSITORY / "clusters" / "kuberay.yaml", REPOSITORY / "clusters" / "Dockerfile"


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def test_every_file_names_the_pinned_ray() -> None:
    requirements = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
    pinned = re.findall(r"(?m)^ray==(\S+)$", requirements)[0]
    image = f"rayproject/ray:{pinned}-py311-gpu"
    assert load(AWS)["docker"]["image"] == image
    assert f"FROM {image}\n" in DOCKERFILE.read_text(encoding="utf-8")
    cluster = load(KUBERAY)["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == pinned
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        for container in group["template"]["spec"]["containers"]:
            assert container["image"].endswith(f"/clip-sweeper:{pinned}-py311-gpu")


@pytest.mark.parametrize("path", [AWS, ON_PREMISES], ids=["aws", "on-premises"])
def test_every_node_has_the_token_and_nothing_is_open(path: Path) -> None:
    config = load(path)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "export RAY_AUTH_MODE=token" in config["setup_commands"][0]
    for start in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert all(command.startswith(". ~/sweeper.env &&") for command in start)
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


@pytest.mark.parametrize("path", [AWS, ON_PREMISES], ids=["aws", "on-premises"])
def test_ray_finds_the_file_valid(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(load(path)))
    with pytest.raises(Exception, match="not_a_key"):
        validate_config(prepare_config(load(path) | {"not_a_key": 1}))


def test_the_operator_hands_out_the_token_and_starts_all_workers() -> None:
    cluster = load(KUBERAY)["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert [group["replicas"] for group in cluster["workerGroupSpecs"]] == [4]
    assert "enableInTreeAutoscaling" not in cluster


def test_the_image_takes_what_is_installed_and_no_environment_of_the_laptop() -> None:
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    copied = [name for line in lines if line.startswith("COPY --chown=ray ") for name in line.split()[2:-1]]
    assert all((REPOSITORY / name).exists() for name in copied)
    assert set(copied) == {
        "Makefile",
        "README.md",
        "pyproject.toml",
        "requirements.txt",
        "sweeper",
        "trainables",
    }


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An EC2 client of a server on loopback that plays AWS."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-west-2",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("iam").create_instance_profile(InstanceProfileName="clip-sweeper")
    yield boto3.client("ec2")
    server.stop()


def test_ray_starts_the_nodes_of_the_aws_file(aws: Any) -> None:
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider

    config = load(AWS)
    image = aws.describe_images()["Images"][0]["ImageId"]
    for kind in config["available_node_types"].values():
        kind["node_config"]["ImageId"] = image
    config = _bootstrap_config(config, no_config_cache=True)
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    for name, kind in config["available_node_types"].items():
        tags = {"ray-node-kind": "head" if name == "head" else "worker", "ray-user-node-type": name}
        provider.create_node(kind["node_config"], tags, 1)
    groups = aws.describe_instances()["Reservations"]
    started = {instance["InstanceType"]: instance for group in groups for instance in group["Instances"]}
    assert {"m6i.2xlarge", "g5.2xlarge"} == set(started)
    instances = [instance for group in groups for instance in group["Instances"]]
    assert sorted(instance.get("InstanceLifecycle", "on demand") for instance in instances) == [
        "on demand", "on demand", "spot",
    ]  # fmt: skip
    opened = [
        (rule["FromPort"], rule["ToPort"])
        for group in aws.describe_security_groups()["SecurityGroups"]
        if group["GroupName"].startswith("ray-autoscaler")
        for rule in group["IpPermissions"]
        if any(each["CidrIp"] == "0.0.0.0/0" for each in rule["IpRanges"])
    ]
    assert opened == [(22, 22)]


def test_what_the_aws_cluster_can_hold() -> None:
    grown = capacity.read(AWS)
    one = Resources(cpus=8, gpus=1)
    assert [kind.name for kind in grown.fitting(one)] == ["gpu-spot", "gpu-on-demand"]
    assert grown.side_by_side(one, unknown=0) == 4
    assert grown.side_by_side(Resources(cpus=2, gpus=0.25), unknown=0) == 16
    assert grown.fitting(Resources(cpus=8, gpus=2)) == []


def test_plan_says_what_does_not_fit_and_what_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL, encoding="utf-8")
    said = called("plan", file, "--set", "resources.gpus=2", "--cluster", AWS, code=2).output
    assert "a trial needs 1 CPUs and 2 GPUs on one node, and the cluster can grow by 4 x gpu-spot" in said
    said = called("plan", file, "--cluster", ON_PREMISES).output
    assert "2 x worker of unknown size" in said
    assert "--like RUN" in said


@pytest.mark.parametrize(
    ("text", "line"), [("a: [", "can't be read"), ("a: 1", "no `provider`"), (None, "No such file")]
)
def test_what_is_no_cluster_file_is_said_in_a_line(tmp_path: Path, text: str | None, line: str) -> None:
    path = tmp_path / "cluster.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=line):
        capacity.read(path)
    assert line in called("status", "--cluster", path, code=2).output
