"""A registry on loopback that stops in the middle of a layer when it is told to, and remembers what it was asked."""

import hashlib
import io
import json
import os
import platform
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def noise_layer(size):
    """A layer with one file that cannot be packed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("noise")
        entry.size = size
        tar.addfile(entry, io.BytesIO(os.urandom(size)))
    return out.getvalue()


class StallingRegistry:
    """Serves one image, `host/image:1`, of the layers given (tar archives)."""

    def __init__(self, layers, entry_point):
        self.blobs, descriptors = {}, []
        for layer in layers:
            self.blobs[digest(layer)] = layer
            kind = "application/vnd.docker.image.rootfs.diff.tar"
            descriptors.append({"mediaType": kind, "size": len(layer), "digest": digest(layer)})
        config = json.dumps({
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {"Entrypoint": entry_point},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }).encode()
        self.blobs[digest(config)] = config
        self.manifest_type = "application/vnd.docker.distribution.manifest.v2+json"
        self.manifest = json.dumps({
            "schemaVersion": 2,
            "mediaType": self.manifest_type,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": digest(config)},
            "layers": descriptors,
        }).encode()
        # How much of a large blob is sent before it stands still; or beyond which byte nothing is ever sent.
        self.stall_after = self.stuck_at = None
        self.stalled, self.released = threading.Event(), threading.Event()
        self.ranges = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                registry.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.reference = f"{self.host}/image:1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request):
        parts = request.path.split("/")
        if request.path == "/v2/":
            return self.send(request, b"{}", "application/json")
        if parts[-2] == "manifests":
            return self.send(request, self.manifest, self.manifest_type)
        blob = self.blobs.get(parts[-1])
        if blob is None:
            request.send_error(404)
            return None
        asked = request.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        self.ranges.append(start)
        request.send_response(206 if asked else 200)
        if asked:
            request.send_header("Content-Range", f"bytes {start}-{len(blob) - 1}/{len(blob)}")
        request.send_header("Content-Length", str(len(blob) - start))
        request.end_headers()
        if request.command == "HEAD":
            return None
        rest = blob[start:]
        if self.stuck_at is not None and len(blob) > self.stuck_at:
            request.wfile.write(blob[start : self.stuck_at])
            request.close_connection = True
            return None
        if self.stall_after is None or len(rest) <= self.stall_after:
            request.wfile.write(rest)
            return None
        request.wfile.write(rest[: self.stall_after])
        request.wfile.flush()
        self.stalled.set()
        self.released.wait()
        request.close_connection = True
        return None

    def send(self, request, body, kind):
        request.send_response(200)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), ("Docker-Content-Digest", digest(body))):
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    def release(self):
        """Ends the connections that stand still, and stalls no more."""
        self.stall_after = None
        self.released.set()

    def end(self):
        self.release()
        self.server.shutdown()
        self.server.server_close()
