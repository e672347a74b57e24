"""Prints a secret of AWS's parameter store in AWS_REGION, by the instance's own rights: secret.py NAME."""

import os
import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError

store = boto3.client("ssm", region_name=os.environ["AWS_REGION"])
try:
    found = store.get_parameter(Name=sys.argv[1], WithDecryption=True)
except (BotoCoreError, ClientError) as error:
    sys.exit(f"the secret {sys.argv[1]} can't be read in {os.environ['AWS_REGION']}: {error}")
print(found["Parameter"]["Value"])
