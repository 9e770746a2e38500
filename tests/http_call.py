"""Raw signed HTTP, for what an SDK would never send."""

import contextlib
import hashlib
import hmac
import http.client
import json
from datetime import datetime, timedelta, timezone
from urllib.parse import quote, urlsplit

import seen

TARGET = "AmazonEC2ContainerServiceV20141113"


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, {k.lower(): v for k, v in headers}, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        return self.json["__type"]

    @property
    def message(self):
        return self.json["message"]

    def __repr__(self):
        return f"{self.status} {self.body[:400]!r}"


def exchange(endpoint, method="POST", path="/", headers=(), body=b""):
    """One request as it is, no header added but what HTTP needs."""
    parts = urlsplit(endpoint)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=120)
    try:
        connection.request(method, path, body=body, headers=dict(headers))
        answer = connection.getresponse()
        return Answer(answer.status, answer.getheaders(), answer.read())
    finally:
        connection.close()


def _hmac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signature(secret, stamp, region, service, canonical):
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    key = _hmac(_hmac(_hmac(_hmac(b"AWS4" + secret.encode(), stamp[:8]), region), service), "aws4_request")
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    return scope, hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def stamp_of(offset=0):
    return (datetime.now(timezone.utc) + timedelta(seconds=offset)).strftime("%Y%m%dT%H%M%SZ")


def call(berth, action, body=b"{}", target=None, key=None, offset=0, sign_body=None, region="us-east-1", service="ecs", change=None):
    """A call with a signature made here, independent of any SDK's. `body` may be text that is no JSON; `sign_body` is what the
    signature covers instead; `change` edits the headers after signing."""
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    access, secret = key or berth.credentials
    stamp = stamp_of(offset)
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "host": urlsplit(berth.endpoint).netloc,
        "x-amz-date": stamp,
        "x-amz-target": target if target is not None else f"{TARGET}.{action}",
    }
    signed = ";".join(sorted(headers))
    covered = hashlib.sha256(body if sign_body is None else sign_body).hexdigest()
    canonical = "\n".join(["POST", "/", "", *(f"{name}:{headers[name]}" for name in sorted(headers)), "", signed, covered])
    scope, made = signature(secret, stamp, region, service, canonical)
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={signed}, Signature={made}"
    if change:
        change(headers)
    answer = exchange(berth.endpoint, headers=headers, body=body)
    # test_overload.py keeps requests instead of sending them.
    if isinstance(answer, Answer) and target is None and service == "ecs":
        # A body that is no JSON at all is no answer of an action.
        with contextlib.suppress(ValueError, KeyError):
            seen.note(action, None if answer.status == 200 else answer.code)
    return answer


def presigned_path(berth, expires=60, offset=0, body=b"{}", key=None):
    """Path and query of a presigned POST, to which X-Amz-Target is signed as a header."""
    access, secret = key or berth.credentials
    stamp = stamp_of(offset)
    host = urlsplit(berth.endpoint).netloc
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{access}/{stamp[:8]}/us-east-1/ecs/aws4_request",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(expires),
        "X-Amz-SignedHeaders": "host;x-amz-target",
    }
    text = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted(query.items()))
    target = f"{TARGET}.ListClusters"
    canonical = "\n".join(
        ["POST", "/", text, f"host:{host}", f"x-amz-target:{target}", "", "host;x-amz-target", hashlib.sha256(body).hexdigest()]
    )
    _, made = signature(secret, stamp, "us-east-1", "ecs", canonical)
    return f"/?{text}&X-Amz-Signature={made}", {"Host": host, "X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1"}


