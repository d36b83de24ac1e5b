"""Other readers of HTTP/1.1: h11, and llhttp in httptools. Each gives the messages it reads whole before the stream
ends or it refuses, and why it refused ("" when it did not)."""

import h11
import httptools

from tests.cext.http.reading import Message

KNOWN_METHODS = set((
    b"DELETE GET HEAD POST PUT CONNECT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND "
    b"UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH PURGE MKCALENDAR LINK "
    b"UNLINK SOURCE QUERY").split())
"""llhttp's: it refuses every other."""


def h11_requests(data):
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    messages = []
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                head, content = event, b""
            elif isinstance(event, h11.Data):
                content += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                messages.append(Message((head.method, head.target), _pairs(head), content, _pairs(event)))
                if head.method == b"CONNECT":
                    return messages, ""
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return messages, ""
                connection.start_next_cycle()
            else:
                return messages, ""
    except h11.RemoteProtocolError as e:
        return messages, str(e)


def h11_responses(data, method):
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    messages = []
    try:
        connection.receive_data(data)
        ended = False
        while True:
            event = connection.next_event()
            if isinstance(event, h11.InformationalResponse):
                messages.append(Message((event.status_code, event.reason), _pairs(event), b"", []))
            elif isinstance(event, h11.Response):
                head, content = event, b""
            elif isinstance(event, h11.Data):
                content += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                messages.append(Message((head.status_code, head.reason), _pairs(head), content, _pairs(event)))
                return messages, ""
            elif event is h11.NEED_DATA and not ended:
                ended = True
                connection.receive_data(b"")
            else:
                return messages, ""
    except h11.RemoteProtocolError as e:
        return messages, str(e)


def _pairs(event):
    return [(bytes(name), bytes(value)) for name, value in event.headers]


class _Collector:
    def __init__(self):
        self.messages = []

    def on_message_begin(self):
        self.url = self.phrase = self.content = b""
        self.fields, self.trailers = [], []
        self.into = self.fields

    def on_url(self, url):
        self.url += url

    def on_status(self, phrase):
        self.phrase += phrase

    def on_header(self, name, value):
        self.into.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self):
        self.into = self.trailers

    def on_body(self, body):
        self.content += body

    def on_message_complete(self):
        self.messages.append(Message(self.start(), self.fields, self.content, self.trailers))


class _Requests(_Collector):
    def start(self):
        return self.parser.get_method(), self.url


class _Responses(_Collector):
    def start(self):
        return self.parser.get_status_code(), self.phrase


def llhttp_requests(data):
    return _llhttp(_Requests(), httptools.HttpRequestParser, data)


def llhttp_responses(data):
    """It is not told what was asked, so not for HEAD; nor where a response without framing ends."""
    return _llhttp(_Responses(), httptools.HttpResponseParser, data)


def _llhttp(collector, parser, data):
    collector.parser = parser(collector)
    try:
        collector.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        return collector.messages, ""
    except httptools.HttpParserError as e:
        return collector.messages, str(e) or type(e).__name__
    return collector.messages, ""
