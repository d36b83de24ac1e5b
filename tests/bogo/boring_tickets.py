"""Tickets in BoringSSL's form, which the runner opens, alters and seals again (its -ticket-key).

A ticket is key name, IV, the session under AES-128-CBC and an HMAC-SHA256 of all that. The session is a DER SEQUENCE of
which the runner knows the beginning: an INTEGER, the version, the cipher suite. Our state stands behind them, and takes
over what the runner has made of them.
"""

import ctypes
import hmac
import os

from cext.tls.session import decode_state, encode_state

NAME, BLOCK, MAC = 16, 16, 32       # bytes
INTEGER, OCTET_STRING, SEQUENCE = 0x02, 0x04, 0x30


class BoringTickets:
    """A wrapper for WrappedTickets. `key`: 16 bytes each of name, HMAC key and AES key."""

    def __init__(self, key):
        self.name, self.mac_key, self.key = key[:16], key[16:32], key[32:48]

    def wrap(self, _info, content):
        state = decode_state(content)
        session = element(SEQUENCE, b"".join((
            element(INTEGER, b"\1"),
            element(INTEGER, state["version"].to_bytes(2, "big")),
            element(OCTET_STRING, state["cipher_suite"].to_bytes(2, "big")),
            element(OCTET_STRING, content),
        )))
        padding = BLOCK - len(session) % BLOCK
        iv = os.urandom(BLOCK)
        ticket = self.name + iv + aes_cbc(self.key, iv, session + bytes([padding]) * padding, encrypt=True)
        return ticket + self.mac(ticket)

    def unwrap(self, _client_hello, ticket):
        ticket, mac = ticket[:-MAC], ticket[-MAC:]
        if ticket[:NAME] != self.name or not hmac.compare_digest(mac, self.mac(ticket)):
            return None
        session = aes_cbc(self.key, ticket[NAME:NAME + BLOCK], ticket[NAME + BLOCK:], encrypt=False)
        fields, _ = take_element(session)
        _, fields = take_element(fields)
        version, fields = take_element(fields)
        cipher_suite, fields = take_element(fields)
        state = decode_state(take_element(fields)[0])
        state["version"] = int.from_bytes(version, "big")
        state["cipher_suite"] = int.from_bytes(cipher_suite, "big")
        return encode_state(state)

    def mac(self, ticket):
        return hmac.digest(self.mac_key, ticket, "sha256")


def element(tag, content):
    n = len(content)
    length = bytes([n]) if n < 0x80 else b"\x82" + n.to_bytes(2, "big") if n > 0xFF else bytes([0x81, n])
    return bytes([tag]) + length + content


def take_element(encoded):
    """The content of the first element, and what comes behind it."""
    n, start = encoded[1], 2
    if n > 0x80:
        start += n - 0x80
        n = int.from_bytes(encoded[2:start], "big")
    return encoded[start:start + n], encoded[start + n:]


def aes_cbc(key, iv, data, *, encrypt):
    """Whole blocks under AES-128-CBC, by the libcrypto that the engine has loaded: the engine itself knows no CBC."""
    libcrypto = ctypes.CDLL("libcrypto.so.3")
    libcrypto.EVP_CIPHER_CTX_new.restype = libcrypto.EVP_aes_128_cbc.restype = ctypes.c_void_p
    context = ctypes.c_void_p(libcrypto.EVP_CIPHER_CTX_new())
    out, n = ctypes.create_string_buffer(len(data) + BLOCK), ctypes.c_int()
    try:
        cipher = ctypes.c_void_p(libcrypto.EVP_aes_128_cbc())
        if not libcrypto.EVP_CipherInit_ex(context, cipher, None, key, iv, int(encrypt)):
            raise ValueError("AES-128-CBC cannot be set up")
        libcrypto.EVP_CIPHER_CTX_set_padding(context, 0)
        if not libcrypto.EVP_CipherUpdate(context, out, ctypes.byref(n), data, len(data)):
            raise ValueError("no whole blocks")
    finally:
        libcrypto.EVP_CIPHER_CTX_free(context)
    return out.raw[:n.value]
