"""Certificates and connected pairs for the tests of edge.tls."""

import contextlib
import functools
import socket
import ssl
import threading

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge import tls

PATIENCE = 20


@functools.cache
def authority():
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@functools.cache
def roots():
    return (x509.load_pem_x509_certificate(authority().cert_pem.bytes()),)


def issue(*names, ca=None, kind=trustme.KeyType.ECDSA, **options):
    return (ca or authority()).issue_cert(*names, key_type=kind, **options)


def chain_of(leaf):
    der = [x509.load_pem_x509_certificate(blob.bytes()) for blob in leaf.cert_chain_pems]
    return [certificate.public_bytes(Encoding.DER) for certificate in der]


def certificate(*names, kind=trustme.KeyType.ECDSA, signer=None, **options):
    leaf = issue(*names, kind=kind, **options)
    return tls.Certificate(chain=chain_of(leaf), private_key=signer or leaf.private_key_pem.bytes())


@functools.cache
def localhost():
    return certificate("localhost", "127.0.0.1")


def server_config(**options):
    return tls.Config(**{"certificates": [localhost()], **options})


def client_config(**options):
    return tls.Config(**{"root_cas": roots(), **options})


class Thread(threading.Thread):
    """A thread whose exception or result `finish` gives."""

    def __init__(self, function, *arguments):
        super().__init__(target=self.work, args=(function, *arguments), daemon=True)
        self.value = self.error = None
        self.start()

    def work(self, function, *arguments):
        try:
            self.value = function(*arguments)
        except BaseException as error:
            self.error = error

    def finish(self, patience=PATIENCE):
        self.join(patience)
        assert not self.is_alive(), "the thread is stuck"
        if self.error is not None:
            raise self.error
        return self.value


def echo(conn):
    """Sends back in upper case what it gets, until the peer has had enough."""
    with conn:
        while data := conn.read():
            conn.write(data.upper())
        conn.close_write()


@contextlib.contextmanager
def sockets():
    a, b = socket.socketpair()
    a.settimeout(PATIENCE)
    b.settimeout(PATIENCE)
    with a, b:
        yield a, b


@contextlib.contextmanager
def pair(server=None, client=None, server_name="localhost"):
    """(client, server): connections over a socket pair, not yet shaken hands."""
    with sockets() as (a, b):
        yield (
            tls.client(a, client or client_config(), server_name=server_name),
            tls.server(b, server or server_config()),
        )


@contextlib.contextmanager
def connected(**options):
    """As `pair`, with the handshake done."""
    with pair(**options) as (client, server):
        thread = Thread(server.handshake)
        client.handshake()
        thread.finish()
        yield client, server


def openssl_context(side, **options):
    """Python's own ssl, as a peer that is not ours."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if side == "client" else ssl.PROTOCOL_TLS_SERVER)
    if side == "client":
        authority().configure_trust(context)
    else:
        issue("localhost", "127.0.0.1").configure_cert(context)
    for name, value in options.items():
        setattr(context, name, value)
    return context
