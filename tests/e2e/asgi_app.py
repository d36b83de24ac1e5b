"""An ASGI application for tests: what it answers shows what came, and how."""

import hashlib


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    status, parts = 200, [b"?"]
    match scope["path"].split("/")[1:]:
        case ["version"]:
            parts = [scope["http_version"].encode()]
        case ["echo"]:
            parts = [scope["method"].encode() + b" " + body]
        case ["sha256"]:
            parts = [hashlib.sha256(body).hexdigest().encode()]
        case ["zeros", n]:
            parts = [bytes(min(65536, int(n) - at)) for at in range(0, int(n), 65536)]
        case ["connection"]:
            parts = [f"{scope['client'][1]}".encode()]
        case ["status", n]:
            status = int(n)
    length = str(sum(map(len, parts))).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", length)]})
    if scope["method"] != "HEAD":
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
