"""An OpenTelemetry collector that keeps what it is sent: OTLP over gRPC on a free port of loopback."""

import threading
from concurrent import futures
from dataclasses import dataclass

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from berth import until


@dataclass
class Span:
    """A span with its attributes and its resource's as dicts; times in nanoseconds since 1970."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    start: int
    end: int
    attributes: dict
    links: list
    is_error: bool
    resource: dict


def _values(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, port=0):
        self._spans, self._lock = [], threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    # grpc's spelling.
    def Export(self, request, context):  # noqa: N802
        for of_resource in request.resource_spans:
            resource = _values(of_resource.resource.attributes)
            for span in (span for scope in of_resource.scope_spans for span in scope.spans):
                kept = Span(
                    name=span.name,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    kind=span.kind,
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    attributes=_values(span.attributes),
                    links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                    is_error=span.status.code == span.status.STATUS_CODE_ERROR,
                    resource=resource,
                )
                with self._lock:
                    self._spans.append(kept)
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self):
        with self._lock:
            return list(self._spans)

    def of(self, task_arn):
        """The spans of a task's trace, in the order of their beginnings."""
        return sorted((span for span in self.spans if span.trace == task_arn.rsplit("/", 1)[1]), key=lambda span: span.start)

    def until(self, what, find):
        """Waits until `find(spans)` gives something true."""
        return until(what, lambda: find(self.spans))

    def end(self):
        self._server.stop(0).wait()
