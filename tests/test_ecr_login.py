"""Images of ECR: Berth's own registry is asked first; then whoever speaks as ECR does says where they are, and how to log in there."""

import base64
import datetime
import logging

import pytest
from moto.core.responses import ActionResult
from moto.ecr.responses import ECRResponse
from moto.server import ThreadedMotoServer

from berth import Berth
from containers import finished, output, shell, skip_unless_root

skip_unless_root(__file__)
OURS = "000000000000.dkr.ecr.us-east-1.amazonaws.com"
OTHERS = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


class Ecr:
    """moto's ECR, whose tokens lead to a registry on loopback: its own would lead to AWS."""

    def __init__(self):
        self.asked, self.token, self.endpoint = [], "AWS:none", "http://127.0.0.1:1"

    def get_authorization_token(self, response):
        self.asked.append((response._get_param("registryIds"), response.region))
        data = {
            "authorizationToken": base64.b64encode(self.token.encode()).decode(),
            "expiresAt": datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=12),
            "proxyEndpoint": self.endpoint,
        }
        return ActionResult({"authorizationData": [data]})


@pytest.fixture
def ecr(monkeypatch):
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    ecr = Ecr()
    monkeypatch.setattr(ECRResponse, "get_authorization_token", lambda response: ecr.get_authorization_token(response))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    ecr.url = f"http://{host}:{port}"
    yield ecr
    server.stop()


@pytest.fixture
def registry(new_berth, shell_archive):
    """A registry with a password, and an image in it."""
    registry = new_berth("server").start()
    registry.run("image", "load", str(shell_archive), "team/app:1")
    return registry


@pytest.fixture
def up(ecr, shell_archive):
    up = Berth("up", environment={"AWS_ENDPOINT_URL_ECR": ecr.url})
    try:
        up.start()
        up.run("image", "load", str(shell_archive), "own:1")
        yield up
    finally:
        up.end()


def ran(up, image):
    task = finished(up, shell("echo it runs", image=image))
    return task if task["containers"][0].get("exitCode") is None else output(up, task["taskArn"])


def test_ecr_is_logged_in_to_once_and_after_our_own_registry(ecr, registry, up):
    ecr.token, ecr.endpoint = ":".join(registry.credentials), registry.endpoint
    assert ran(up, f"{OTHERS}/own:1") == "it runs\n"
    assert ran(up, "own:1") == "it runs\n"
    assert ecr.asked == [], "what is in Berth's own registry needs nobody's login"
    assert ran(up, f"{OTHERS}/team/app:1") == "it runs\n"
    assert ecr.asked == [(["123456789012"], "eu-west-1")]
    assert ran(up, f"{OURS}/team/app:1") == "it runs\n", "an ECR that is named has images of Berth's own account too"
    assert ecr.asked[1:] == [(["000000000000"], "us-east-1")]
    assert ran(up, f"{OTHERS}/team/app:1") == "it runs\n"
    assert len(ecr.asked) == 2, "a token is good until it expires"
    missing = ran(up, f"{OTHERS}/missing:1")
    assert missing["stoppedReason"].startswith("CannotPullContainerError: pull access denied or image not found: "), missing


def test_a_login_that_is_not_to_be_had_is_the_reason(ecr, registry, up):
    ecr.token, ecr.endpoint = f"{registry.credentials[0]}:wrong", registry.endpoint
    refused = ran(up, f"{OTHERS}/team/app:1")["stoppedReason"]
    assert refused.startswith("CannotPullContainerError: authentication failed: "), refused
    ecr.token = "no password"
    refused = ran(up, f"{OURS}/team/app:1")["stoppedReason"]
    assert "authentication failed: unable to log in to the registry of account 000000000000: GetAuthorizationToken gives no user" in refused
