"""A small authority: signs what stands in a CSR that is posted to /issue, and tells at /issued what it was."""

import datetime
import http.server
import json
import pathlib
import socketserver
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SLOW = 0.2
"""Seconds that an answer takes, as from far away."""

issued = []
authority_key = ec.generate_private_key(ec.SECP256R1())
authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "On-demand example authority")])


def certify(public_key, subject, *extensions):
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(authority, subject, public_key, x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Service(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        time.sleep(SLOW)
        request = x509.load_pem_x509_csr(self.rfile.read(int(self.headers["Content-Length"])))
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        issued.extend(names.value.get_values_for_type(x509.DNSName))
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        self.answer(certify(request.public_key(), x509.Name([]), (names.value, True), (by, False), (usage, False)))

    def do_GET(self):
        self.answer(json.dumps(issued).encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "edge"


class Server(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 64
    daemon_threads = True


usage = dict.fromkeys(
    ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
     "encipher_only", "decipher_only", "crl_sign"), False)
root = certify(
    authority_key.public_key(),
    authority,
    (x509.BasicConstraints(True, None), True),
    (x509.KeyUsage(key_cert_sign=True, **usage), True),
    (x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), False),
)
pathlib.Path("issuer.pem").write_bytes(root)
server = Server("authority.sock", Service)
pathlib.Path("ready").touch()
server.serve_forever()
