"""What a client's certificate says, as headers for the upstream; the path /members/* is for those who have one."""

import base64
from urllib.parse import quote


class Policy:
    def director(self, request):
        headers, tls = request.headers, request.tls
        for name in ("X-Client-Subject", "X-Client-Fingerprint", "Client-Cert"):
            headers.pop(name)  # a client's own, and what CGI would take for them
        if not tls.peer_certificates:
            if request.path.startswith("/members/"):
                request.respond(403, (), "This is for clients with a certificate.\n")
            return
        headers["X-Client-Subject"] = quote(tls.peer_subject, safe="=, ")  # names have letters that headers have not
        headers["X-Client-Fingerprint"] = tls.peer_fingerprint
        # As RFC 9440 has it: the DER as a byte sequence of structured fields.
        headers["Client-Cert"] = f":{base64.b64encode(tls.peer_certificates[0]).decode()}:"
