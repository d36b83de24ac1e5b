"""Certificates from an authority's HTTP interface, at handshake time: asked for once, and kept while they are good."""

import asyncio
import collections
import datetime
import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge.policy import Certificate

AUTHORITY = Path(__file__).parent / "authority.sock"
NAMES = re.compile(r"[a-z0-9-]{1,63}\.example\.test")
"""What may be asked for at all: a client that makes names up must not make the authority work for each."""
KEPT = 1000
AT_ONCE = 8
ANSWER_MAX = 64 * 1024


class Policy:
    def __init__(self):
        self._kept = collections.OrderedDict()
        """Name -> (certificate, until when), the one longest unused first."""
        self._coming = {}
        """Name -> the task that many clients may wait for."""
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def get_certificate(self, hello):
        name = hello.server_name.lower()
        if not NAMES.fullmatch(name):
            return None
        certificate, until = self._kept.get(name, (None, None))
        if certificate is None or until < datetime.datetime.now(datetime.UTC):
            return await self._issued(name)
        self._kept.move_to_end(name)
        return certificate

    async def _issued(self, name):
        task = self._coming.get(name)
        if task is None:
            task = self._coming[name] = asyncio.create_task(self._issue(name))
            task.add_done_callback(lambda _: self._coming.pop(name))
        # One client that goes must not take the certificate from the others.
        return await asyncio.shield(task)

    async def _issue(self, name):
        key = ec.generate_private_key(ec.SECP256R1())
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        request = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        async with self._turns:
            chain = x509.load_pem_x509_certificates(await post("/issue", request))
        der = [one.public_bytes(serialization.Encoding.DER) for one in chain]
        certificate = Certificate(chain=der, private_key=key)
        self._kept[name] = certificate, chain[0].not_valid_after_utc - datetime.timedelta(minutes=5)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return certificate


async def post(path, body):
    """The body of the authority's answer. Raises OSError when it is none of 200, or has no end."""
    reader, writer = await asyncio.open_unix_connection(AUTHORITY, limit=ANSWER_MAX)
    try:
        writer.write(f"POST {path} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if " 200 " not in head.split("\r\n", 1)[0] + " ":
            raise OSError(f"the authority answers {head.splitlines()[0]!r}")
        return await reader.read(ANSWER_MAX)
    finally:
        writer.close()
