"""The cluster files: pins, Ray's validator, AWS's bootstrap against a server on loopback, what fits."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
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
        "LICENSE",
        "pyproject.toml",
        "requirements.txt",
        "search_spaces",
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
    urllib.request.urlopen(
        f"http://{host}:{port}/moto-api/reset", data=b""
    )  # else the next one has its state
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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a head: the project as `ray up` and `make` leave it."""
    (tmp_path / "clip-sweeper").mkdir()
    (tmp_path / "clip-sweeper" / ".venv").symlink_to(Path(sys.executable).parents[1])
    (tmp_path / "clip-sweeper" / "clusters").symlink_to(REPOSITORY / "clusters")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "SWEEPER_", "AWS_REGION"))]:
        monkeypatch.delenv(name)
    return tmp_path


def shell(script: str, code: int = 0, **more: str) -> str:
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, env={**os.environ, **more}
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def environment_of_a_verb(config: dict[str, Any], home: Path) -> dict[str, str]:
    """What `sweeper.env` sets on the head, which is what a forwarded verb and the driver have."""
    shell(config["setup_commands"][0])
    shell(config["head_setup_commands"][0])
    told = shell(
        f". ~/sweeper.env && {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    )
    environment: dict[str, str] = json.loads(told)
    assert environment["MLFLOW_TRACKING_PASSWORD"] not in (home / "sweeper.env").read_text(encoding="utf-8")
    return environment


@pytest.mark.usefixtures("aws")
def test_verbs_on_the_aws_head_know_mlflow_and_its_password(home: Path) -> None:
    import boto3

    secret = {"Name": "/clip-sweeper/mlflow-password", "Value": "a-password-of-24", "Type": "SecureString"}
    boto3.client("ssm").put_parameter(**secret)
    told = environment_of_a_verb(load(AWS), home)
    assert told["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"
    assert (told["MLFLOW_TRACKING_USERNAME"], told["MLFLOW_TRACKING_PASSWORD"]) == ("admin", secret["Value"])
    assert told["AWS_REGION"] == load(AWS)["provider"]["region"]
    boto3.client("ssm").delete_parameter(Name=secret["Name"])
    start = load(AWS)["head_start_ray_commands"][1]
    assert start.endswith("tracking_server.py start")
    said = shell(start, code=1).splitlines()
    assert "can't be read in us-west-2" in said[0]
    assert "MLFLOW_TRACKING_PASSWORD is empty" in said[1]


@pytest.mark.hosts
def test_mlflow_on_a_head_of_ones_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(ON_PREMISES)
    start = config["head_start_ray_commands"][1]
    stop = start.removesuffix("start") + "stop"
    (home / ".mlflow-password").write_text("a-password-of-24", encoding="utf-8")
    told = environment_of_a_verb(config, home)
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own = f"http://127.0.0.1:{free.getsockname()[1]}"
    env = home / "sweeper.env"
    env.write_text(env.read_text().replace(told["MLFLOW_TRACKING_URI"], own), encoding="utf-8")
    try:
        shell(start)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{own}/api/2.0/mlflow/experiments/get?experiment_id=0", timeout=10)
        shell(start)  # it is up
        (home / ".mlflow-password").write_text("another-password", encoding="utf-8")
        assert "refuses our password" in shell(start, code=1)
    finally:
        shell(stop)
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(own, timeout=10)


@pytest.mark.parametrize("path", [AWS, ON_PREMISES, KUBERAY], ids=["aws", "on-premises", "kuberay"])
def test_what_is_a_users_own_says_edit(path: Path) -> None:
    own = re.compile(r"us-west-2|ami-0|192\.168|/mnt/sweeper|s3://|REGISTRY/|id_ed25519|replicas:")
    for line in path.read_text(encoding="utf-8").splitlines():
        assert "EDIT" in line or line.lstrip().startswith("#") or not own.search(line), line


def test_what_the_aws_cluster_can_hold() -> None:
    grown = capacity.read(AWS)
    one = Resources(cpus=8, gpus=1)
    assert [kind.name for kind in grown.fitting(one)] == ["gpu-spot", "gpu-on-demand"]
    assert grown.side_by_side(one, unknown=0) == 4
    assert grown.side_by_side(Resources(cpus=2, gpus=0.25), unknown=0) == 16
    assert grown.fitting(Resources(cpus=8, gpus=2)) == []


def test_ray_asks_for_spot_nodes_first_and_for_others_beyond_their_number() -> None:
    from ray.autoscaler._private.util import prepare_config
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import ClusterResourceConstraint

    config = AutoscalingConfig(prepare_config(load(AWS)), skip_content_hash=True)

    def launched(trials: int) -> dict[str, int]:
        """By `request_resources` for so many."""
        bundles = [ResourceRequestUtil.make({"CPU": 8, "GPU": 1})] * trials
        wanted = ClusterResourceConstraint(resource_requests=ResourceRequestUtil.group_by_count(bundles))
        request = SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            cluster_resource_constraints=[wanted],
        )
        return {
            each.instance_type: each.count for each in ResourceDemandScheduler().schedule(request).to_launch
        }

    assert launched(1) == {"gpu-spot": 1}
    assert launched(3) == {"gpu-spot": 3}
    assert launched(4) == {"gpu-spot": 3, "gpu-on-demand": 1}


def test_what_a_file_does_not_limit_is_limited_by_rays_default(tmp_path: Path) -> None:
    config = load(AWS)
    del config["max_workers"], config["available_node_types"]["gpu-spot"]["max_workers"]
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    one = Resources(cpus=8, gpus=1)
    most = {kind.name: kind.most for kind in capacity.read(path).fitting(one)}
    assert most == {"gpu-spot": 2, "gpu-on-demand": 1}
    assert capacity.read(path).side_by_side(one, unknown=0) == 2
    path.write_text(yaml.safe_dump(config | {"max_workers": 0}), encoding="utf-8")
    assert capacity.read(path).fitting(one) == []


def test_plan_says_what_does_not_fit_and_what_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL, encoding="utf-8")
    said = called("plan", file, "--set", "resources.gpus=2", "--cluster", AWS, code=2).output
    assert "a trial needs 1 CPU and 2 GPUs on one node, and the cluster can grow by 3 x gpu-spot" in said
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
