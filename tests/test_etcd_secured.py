"""etcd with TLS, certificates of its clients, and passwords: a server gets in with the right ones, and says what is wrong with others."""

import base64
import json
import shutil
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import pytest

from berth import Berth, binary, clean_environment, fresh_folder, until
from ecs_calls import register
from etcd_servers import EtcdCluster

PASSWORD = "p/a:s@s w?rd%"


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


class Authority:
    """Signs certificates for 127.0.0.1."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.ca = folder / f"{name}-ca.pem"
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
            "-keyout", folder / f"{name}-ca.key", "-out", self.ca,
        )  # fmt: skip

    def sign(self, name, usage):
        """Certificate and key."""
        base = self.folder / f"{self.name}-{name}"
        cert, key, request, extensions = (base.with_suffix(suffix) for suffix in (".pem", ".key", ".csr", ".ext"))
        extensions.write_text(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n")
        openssl(
            "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", key, "-out", request,
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.folder / f"{self.name}-ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", extensions, "-out", cert,
        )  # fmt: skip
        return cert, key


class SecuredCluster(EtcdCluster):
    """One member that wants a certificate of its clients, and a password."""

    scheme = "https"

    def __init__(self):
        super().__init__(1)
        if shutil.which("openssl") is None:
            reason = "SKIPPED (needs openssl): certificates cannot be made"
            print(reason)
            pytest.skip(reason)
        self.authority = Authority(self.folder, "ours")
        self.cert, self.key = self.authority.sign("member", "serverAuth,clientAuth")
        # etcd takes a certificate's name for a user's where it is given no password; there is no such user.
        self.client = self.authority.sign("client", "clientAuth")
        self.options = ["--cert-file", str(self.cert), "--key-file", str(self.key), "--client-cert-auth"]
        self.options += ["--trusted-ca-file", str(self.authority.ca)]

    def until_healthy(self, number):
        until("etcd", self.healthy)

    def healthy(self):
        """It answers, be it that it lets nobody in without a token."""
        try:
            return self.call("maintenance/status")
        except urllib.error.HTTPError as error:
            return b"leader" not in error.read()
        except OSError:
            return None

    def call(self, path, **request):
        """A call of etcd's gateway for JSON."""
        context = ssl.create_default_context(cafile=self.authority.ca)
        context.load_cert_chain(*self.client)
        request = urllib.request.Request(f"https://127.0.0.1:{self.ports[0][0]}/v3/{path}", data=json.dumps(request).encode())
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return json.load(answer)

    def store(self, user="berth", password=PASSWORD, prefix="cell", **files):
        quoted = [urllib.parse.quote(part, safe="") for part in (user, password)]
        files = {"ca": self.authority.ca, "cert": self.client[0], "key": self.client[1], **files}
        query = "&".join(f"{name}={urllib.parse.quote(str(file))}" for name, file in files.items() if file)
        return f"etcds://{':'.join(quoted)}@127.0.0.1:{self.ports[0][0]}/{prefix}?{query}"


def _encoded(text):
    return base64.b64encode(text.encode()).decode()


@pytest.fixture(scope="module")
def etcd():
    cluster = SecuredCluster()
    try:
        cluster.start()
        prefix = {"key": _encoded("/cell/"), "range_end": _encoded("/cell0"), "permType": "READWRITE"}
        for path, request in (
            ("auth/user/add", {"name": "root", "password": "root"}),
            ("auth/role/add", {"name": "root"}),
            ("auth/user/grant", {"user": "root", "role": "root"}),
            ("auth/role/add", {"name": "cell"}),
            ("auth/role/grant", {"name": "cell", "perm": prefix}),
            ("auth/user/add", {"name": "berth", "password": PASSWORD}),
            ("auth/user/grant", {"user": "berth", "role": "cell"}),
            ("auth/enable", {}),
        ):
            cluster.call(path, **request)
        yield cluster
    finally:
        cluster.end()


class SecretBerth(Berth):
    """A server whose store's URL is in its environment, where nobody sees it."""

    def __init__(self, store):
        super().__init__("server")
        self.store = store

    def start(self, wait=True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("berth.clean_environment", lambda **extra: clean_environment(BERTH_STORE=self.store, **extra))
            return super().start(wait)


def refused(store, word):
    folder = fresh_folder("refused")
    done = subprocess.run(
        [str(binary()), "server", "--data-dir", str(folder), "--listen", "127.0.0.1:0"],
        capture_output=True, text=True, timeout=120, env=clean_environment(BERTH_STORE=store, NO_COLOR="1"), check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "--store" in done.stderr and word.lower() in done.stderr.lower(), done
    for secret in (PASSWORD, urllib.parse.quote(PASSWORD, safe=""), "hunter2"):
        assert secret not in done.stderr + done.stdout, done


def test_servers_get_in_with_certificate_and_password(etcd):
    made = [SecretBerth(etcd.store()) for _ in range(2)]
    try:
        first, second = (each.start() for each in made)
        definition = register(first.ecs)
        until("the other to see it", lambda: definition in second.ecs.list_task_definitions()["taskDefinitionArns"])
        # etcd forgets every token when it starts again: servers ask for new ones, for calls and for their watch.
        etcd.kill(0)
        etcd.revive(0)
        etcd.until_healthy(0)

        def registered():
            try:
                return register(first.ecs)
            except first.ecs.exceptions.ServerException:
                return None

        later = until("it to write again", registered)
        until("the other to see that", lambda: later in second.ecs.list_task_definitions()["taskDefinitionArns"])
        for each in made:
            log = each.log.read_text()
            assert PASSWORD not in log and urllib.parse.quote(PASSWORD, safe="") not in log, log
    finally:
        for each in made:
            each.end()


def test_who_is_not_let_in_is_told_why(etcd):
    other = Authority(etcd.folder, "theirs")
    refused(etcd.store(password="hunter2"), "authentication failed")
    refused(etcd.store(prefix="elsewhere"), "permission denied")
    refused(etcd.store(ca=other.ca), "certificate")
    refused(etcd.store(cert=None, key=None), "certificate")
    refused(etcd.store(ca="/none.pem"), "/none.pem")
    refused(etcd.store(key=None), "go together")
    refused(etcd.store(ca=None), "ca=FILE")
    refused("etcds://u:hunter2@127.0.0.1/x?ca=y", "HOST:PORT")


def test_help_shows_no_password(etcd):
    done = subprocess.run(
        [str(binary()), "server", "--help"], capture_output=True, text=True, timeout=60, env=clean_environment(BERTH_STORE=etcd.store()), check=True
    )
    assert "BERTH_STORE" in done.stdout and urllib.parse.quote(PASSWORD, safe="") not in done.stdout
