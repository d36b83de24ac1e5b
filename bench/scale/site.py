"""What is served at a point of a curve: certificates by the thousand, routes, and a backend that answers everything."""

import concurrent.futures
import datetime
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from bench.peers import KEEP_ALIVE, NGINX_TEMPORARY, nginx_globals, on_path
from bench.peers import Site as BackendSite
from bench.processes import BenchError, Process, free_port, wait_listening

TOGETHER = 500  # certificates that a process makes in one go
DAY = datetime.timedelta(days=1)
BODY = 1024
DIRECTORIES = 1000  # files in one


def certificate_name(index: int) -> str:
    return f"host-{index:06}.example.com"


@dataclass(frozen=True)
class Certificates:
    """Files of P-256 certificates by one intermediate authority, each for a name of its own and its `www.`; extensions
    and sizes are those of public authorities."""

    directory: Path

    def chain(self, index: int) -> Path:
        return self.directory / f"{index // DIRECTORIES:03}" / f"{index:06}.pem"

    def key(self, index: int) -> Path:
        return self.chain(index).with_suffix(".key")

    def make(self, count: int) -> None:
        """Sees to it that there are so many."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if not (self.directory / "issuer.key").exists():
            self._make_authority()
        parts = [(first, min(first + TOGETHER, count)) for first in range(0, count, TOGETHER)]
        lacking = [part for part in parts if not self.key(part[1] - 1).exists()]
        with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self.issue, *zip(*lacking, strict=True)) if lacking else ())

    def issue(self, first: int, end: int) -> None:
        """Those from `first` on, anew where they are there."""
        pem = (self.directory / "issuer.pem").read_bytes()
        issuer = x509.load_pem_x509_certificate(pem)
        signer = load_pem_private_key((self.directory / "issuer.key").read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        for index in range(first, end):
            key = ec.generate_private_key(ec.SECP256R1())
            leaf = _leaf(index, key, issuer, signer)
            self.chain(index).parent.mkdir(exist_ok=True)
            self.chain(index).write_bytes(leaf.public_bytes(Encoding.PEM) + pem)
            self.key(index).write_bytes(_pem(key))

    def _make_authority(self) -> None:
        root, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("Bench Root X1", "Bench E1")]
        certificate = _builder(names[1], names[0], key).add_extension(x509.BasicConstraints(True, 0), critical=True)
        certificate = certificate.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        (self.directory / "issuer.pem").write_bytes(certificate.sign(root, hashes.SHA256()).public_bytes(Encoding.PEM))
        (self.directory / "issuer.key").write_bytes(_pem(key))

    def tables(self, count: int) -> str:
        return "".join(
            f'[[certificate]]\nchain = "{self.chain(i)}"\nkey = "{self.key(i)}"\n' for i in range(count)
        )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.not_valid_before(now - DAY).not_valid_after(now + 90 * DAY)
    return builder.serial_number(x509.random_serial_number())


def _leaf(
    index: int, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    name = certificate_name(index)
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    where = x509.AccessDescription(
        AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://e1.i.bench.example/")
    )
    revoked = x509.UniformResourceIdentifier("http://e1.c.bench.example/77.crl")
    policy = x509.PolicyInformation(x509.ObjectIdentifier("2.23.140.1.2.1"), None)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, issuer.subject, key).add_extension(usage, critical=True)
    for extension in (
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
        x509.AuthorityInformationAccess([where]),
        x509.SubjectAlternativeName([x509.DNSName(name), x509.DNSName(f"www.{name}")]),
        x509.CertificatePolicies([policy]),
        x509.CRLDistributionPoints([x509.DistributionPoint([revoked], None, None, None)]),
    ):
        builder = builder.add_extension(extension, critical=False)
    return builder.add_extension(x509.BasicConstraints(False, None), critical=True).sign(signer, hashes.SHA256())


ROUTES_OF_ONE_HOST = "paths.example.com"


def route(index: int) -> tuple[str, str]:
    """(match, a URL that it is for): by turns a host, the names below a domain, and a path of a host that has many."""
    kind = index % 3
    if kind == 0:
        return f'host = ["host-{index:06}.example.com"]', f"https://host-{index:06}.example.com/"
    if kind == 1:
        return f'host = ["*.d{index:06}.example.com"]', f"https://www.d{index:06}.example.com/index.html"
    matched = f'host = ["{ROUTES_OF_ONE_HOST}"], path = "/app-{index:06}/*"'
    return matched, f"https://{ROUTES_OF_ONE_HOST}/app-{index:06}/users/7"


def routes(count: int) -> str:
    return "".join(f'[[route]]\nmatch = {{ {route(i)[0]} }}\nupstream = "backend"\n' for i in range(count))


def start_backend(directory: Path, cpu: int, files: int) -> tuple[Process, int]:
    """nginx that answers every request with a KiB, and its port."""
    program = on_path("nginx")()
    if program is None:
        raise BenchError("nginx is needed as the backend: apt install nginx-light")
    port = free_port()
    site = BackendSite(directory, directory / "unused", directory / "unused", port, files)
    temporary = "".join(f"{kind}_temp_path {directory}/b-{kind};" for kind in NGINX_TEMPORARY)
    configuration = directory / "backend.conf"
    configuration.write_text(f"""
        {nginx_globals(site, "backend")}
        http {{
            access_log off; keepalive_requests 1000000000; keepalive_timeout {KEEP_ALIVE}s; {temporary}
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                location / {{ default_type text/plain; return 200 "{"x" * BODY}"; }}
            }}
        }}""")
    process = Process([program, "-c", str(configuration), "-p", str(directory)], cpu=cpu, log=directory / "backend.log")
    wait_listening(process, port)
    return process, port
