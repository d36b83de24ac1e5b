"""An authority: it issues certificates for localhost, and answers by OCSP whether they are good."""

import base64
import datetime
import signal
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

PORT = 24072
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the stapling example")])
HOUR = datetime.timedelta(hours=1)

ca_key = ec.generate_private_key(ec.SECP256R1())
issued = {}  # serial number -> certificate


def now():
    return datetime.datetime.now(datetime.UTC)


def certificate(subject, key, days, *extensions):
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - HOUR)
        .not_valid_after(now() + datetime.timedelta(days=days))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(ca_key, hashes.SHA256())


ca = certificate(NAME, ca_key, 30, x509.BasicConstraints(ca=True, path_length=0))


def issue(days):
    key = ec.generate_private_key(ec.SECP256R1())
    responder = x509.UniformResourceIdentifier(f"http://127.0.0.1:{PORT}/")
    made = certificate(
        x509.Name([]), key, days,
        x509.SubjectAlternativeName([x509.DNSName("localhost")]),
        x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.OCSP, responder)]),
        x509.TLSFeature([x509.TLSFeatureType.status_request]),
    )  # fmt: skip
    issued[made.serial_number] = made
    Path("cert.pem").write_bytes(made.public_bytes(Encoding.PEM) + ca.public_bytes(Encoding.PEM))
    Path("key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


class Responder(BaseHTTPRequestHandler):
    def do_GET(self):  # how short requests come
        self._answer(base64.b64decode(urllib.parse.unquote(self.path[1:])))

    def do_POST(self):
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, request):
        asked = ocsp.load_der_ocsp_request(request)
        answer = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED)
        if asked.serial_number in issued:
            answer = (
                ocsp.OCSPResponseBuilder()
                .add_response(
                    issued[asked.serial_number], ca, asked.hash_algorithm, ocsp.OCSPCertStatus.GOOD,
                    this_update=now() - HOUR, next_update=now() + 24 * HOUR,
                    revocation_time=None, revocation_reason=None,
                )
                .responder_id(ocsp.OCSPResponderEncoding.HASH, ca)
                .sign(ca_key, hashes.SHA256())
            )  # fmt: skip
        content = answer.public_bytes(Encoding.DER)
        self.send_response(200)
        self.send_header("Content-Type", "application/ocsp-response")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    Path("ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    issue(10)
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Responder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Path("ready").touch()
    renew = Path("renew")
    while True:
        if renew.exists():
            renew.unlink()
            issue(90)
        time.sleep(0.2)


main()
