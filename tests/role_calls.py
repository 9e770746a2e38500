"""Short forms for tests of tasks' roles: clients that sign with a role's credentials, and how they are refused."""

import contextlib

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

ACCOUNT = "000000000000"
TASK_ROLE = f"arn:aws:iam::{ACCOUNT}:role/team/app"
EXECUTION_ROLE = f"arn:aws:iam::{ACCOUNT}:role/execution"


def client_of(berth, credentials, service="ecs"):
    """A client that signs with credentials as agents and containers get them: (access key id, secret, token)."""
    key, secret, token = credentials
    return boto3.session.Session().client(
        service,
        endpoint_url=berth.endpoint,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(retries={"max_attempts": 1, "mode": "standard"}),
    )


def of_message(credentials):
    """A payload's credentials as a triple."""
    return credentials["accessKeyId"], credentials["secretAccessKey"], credentials["sessionToken"]


def principal(task_arn, role=TASK_ROLE):
    name, session = role.rsplit("/", 1)[1], task_arn.rsplit("/", 1)[1]
    return f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{session}"


@contextlib.contextmanager
def refused(code, status=400):
    """The block must be refused with this code, which is no operation's own; gives the error, whose `value` is there at the end."""
    with pytest.raises(ClientError) as caught:
        yield caught
    response = caught.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status), response


def denied(who, action):
    """AWS's words for a role that has no policy."""
    return (
        f"User: {who} is not authorized to perform: {action} on resource: * because no identity-based policy allows the {action} action"
    )
