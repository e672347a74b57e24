"""Prints a secret from AWS's parameter store, with the instance's own credentials: secret.py REGION NAME."""

import sys

import boto3

region, name = sys.argv[1:]
found = boto3.client("ssm", region_name=region).get_parameter(Name=name, WithDecryption=True)
print(found["Parameter"]["Value"])
