"""A collector of OpenTelemetry: OTLP over HTTP, as bytes of protobuf, kept."""

import gzip
import http.server
import threading

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.processes import wait_until


class Collector:
    """`spans` is what has come: of each its attributes as a dict, and those of its resource, beside the message."""

    def __init__(self, status=200):
        self.status = status
        self.requests = []                  # (path, fields)
        self.spans = []
        self.faults = []
        self.held = threading.Event()       # cleared: nobody is answered
        self.held.set()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                content = self.rfile.read(int(self.headers["content-length"]))
                collector.held.wait(30)
                try:
                    collector.take(self.path, dict(self.headers.items()), content)
                except Exception as e:
                    collector.faults.append(e)
                self.send_response(collector.status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/traces"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path, fields, content):
        self.requests.append((path, fields))
        if fields.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        message = ExportTraceServiceRequest()
        message.ParseFromString(content)
        for of_resource in message.resource_spans:
            resource = attributes(of_resource.resource)
            for scope in of_resource.scope_spans:
                self.spans += [Span(span, resource, scope.scope.name) for span in scope.spans]

    def wait(self, n=1, **attributes):
        """Waits for n spans with these attributes; "__" stands for a dot -> those spans."""
        names = {name.replace("__", "."): value for name, value in attributes.items()}

        def found():
            return [s for s in list(self.spans) if all(s.attributes.get(k) == v for k, v in names.items())]

        wait_until(lambda: len(found()) >= n, 30, f"{n} spans with {names}")
        return found()

    def of(self, path, attempts=1):
        """The span of the only request for a path, and those of its attempts (at least so many), in order."""
        [own] = self.wait(url__path=path)

        def children():
            return [span for span in list(self.spans) if span.parent_id == own.span_id]

        wait_until(lambda: len(children()) >= attempts, 30, f"{attempts} attempts of {path}")
        return own, sorted(children(), key=lambda span: span.message.start_time_unix_nano)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.held.set()
        self.server.shutdown()
        self.server.server_close()
        assert self.faults == []


class Span:
    def __init__(self, message, resource, scope):
        self.message = message
        self.resource = resource
        self.scope = scope
        self.attributes = attributes(message)
        self.trace_id = message.trace_id.hex()
        self.span_id = message.span_id.hex()
        self.parent_id = message.parent_span_id.hex()
        self.server = message.kind == message.SPAN_KIND_SERVER


def attributes(of):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in of.attributes}
