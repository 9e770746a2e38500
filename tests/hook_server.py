"""Stands in for the Lambda functions of lifecycle hooks: an HTTP server on loopback that notes each event and answers as it is told."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from berth import until


class HookServer:
    """Each path is a function of its own; what nobody said anything about answers SUCCEEDED."""

    def __init__(self):
        self._events, self._answers, self._lock = [], {}, threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, body = outer._answer(self.path, event)
                # Who asked may be gone by now.
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def say(self, path, *answers):
        """What the path answers, one after the other; the last for ever. An int is an HTTP status, bytes are sent as they are, an
        event is waited for."""
        with self._lock:
            self._answers[path] = list(answers)

    def _answer(self, path, event):
        with self._lock:
            self._events.append((path, event))
            left = self._answers.get(path) or [{"hookStatus": "SUCCEEDED"}]
            answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, threading.Event):
            answer.wait(60)
            answer = {"hookStatus": "SUCCEEDED"}
        if isinstance(answer, int):
            return answer, b"{}"
        return 200, answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def events(self, path, service=None):
        with self._lock:
            found = [event for at, event in self._events if at == path]
        return [event for event in found if service is None or event["executionDetails"]["serviceArn"] == service]

    def wait(self, path, count, service=None):
        return until(f"{count} calls of {path}", lambda: len(found := self.events(path, service)) >= count and found)

    def close(self):
        self._server.shutdown()
        self._server.server_close()
