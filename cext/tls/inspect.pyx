"""The Python face of `messages` and `certificates`: every parse_x and build_x as Python values, for tests and tools."""

from libc.stdint cimport uint16_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cext.base.wire cimport Reader, Writer, left, read_u16, read_vec8, read_vec16, writer_init, written
from cext.tls cimport certificates, compression, messages
from cext.tls.extensions cimport extension_bit
from cext.tls.certificates cimport Certificate, CertificateRequest, CertificateVerify
from cext.tls.compression cimport CompressedCertificate
from cext.tls.messages cimport (
    ClientHello, ClientHelloParts, EncryptedExtensions, KeyShare, NewSessionTicket, ServerHello)

from cext.tls.alert import TlsAlert

cdef enum:
    MESSAGE_MAX = 1 << 18
    SHARES_MAX = 8


def parse(str kind, bytes body, offered=(), hash_length=32, from_server=True):
    """A message's fields from its body (without the handshake header) as a dict; TlsAlert when it is faulty.

    `kind` is "client_hello", "server_hello", "encrypted_extensions", "certificate_request", "certificate",
    "compressed_certificate", "certificate_verify", "finished", "new_session_ticket" or "key_update". `offered` are the extension types of the
    ClientHello a server's message answers; an absent extension is None."""
    cdef uint64_t bits = 0
    for type in offered:
        bits |= extension_bit(<uint16_t> type)
    if kind == "client_hello":
        return parse_client_hello(body)
    if kind == "server_hello":
        return parse_server_hello(body, bits)
    if kind == "encrypted_extensions":
        return parse_encrypted_extensions(body, bits)
    if kind == "certificate_request":
        return parse_certificate_request(body)
    if kind == "certificate":
        return parse_certificate(body, from_server, bits)
    if kind == "compressed_certificate":
        return parse_compressed_certificate(body)
    if kind == "certificate_verify":
        return parse_certificate_verify(body)
    if kind == "finished":
        return parse_finished(body, hash_length)
    if kind == "new_session_ticket":
        return parse_new_session_ticket(body)
    if kind == "key_update":
        return parse_key_update(body)
    raise ValueError(f"no handshake message is called {kind!r}")


cdef check(int result, const char *reason):
    if result:
        raise TlsAlert(-result, reason.decode())


cdef content(const Reader *r):
    return None if r.p == NULL else (<const char *> r.p)[:left(r)]


cdef numbers(Reader r):
    """A list of u16 as a tuple of int."""
    cdef uint16_t v = 0
    if r.p == NULL:
        return None
    found = []
    while read_u16(&r, &v):
        found.append(v)
    return tuple(found)


cdef names(Reader r):
    cdef Reader one
    if r.p == NULL:
        return None
    found = []
    while read_vec8(&r, &one):
        found.append(content(&one))
    return tuple(found)


cdef distinguished_names(Reader r):
    cdef Reader one
    if r.p == NULL:
        return None
    found = []
    while read_vec16(&r, &one):
        found.append(content(&one))
    return tuple(found)


cdef parse_client_hello(bytes body):
    cdef ClientHello ch
    cdef KeyShare share
    cdef int result = messages.parse_client_hello(body, len(body), &ch)
    check(result, ch.reason)
    shares = None
    if ch.key_shares.p != NULL:
        shares = []
        while messages.next_key_share(&ch.key_shares, &share):
            shares.append((share.group, (<const char *> share.data)[:share.len]))
    return {
        "legacy_version": ch.legacy_version,
        "random": content(&ch.random),
        "legacy_session_id": content(&ch.legacy_session_id),
        "cipher_suites": numbers(ch.cipher_suites),
        "compression_methods": content(&ch.compression_methods),
        "server_name": content(&ch.server_name),
        "supported_versions": numbers(ch.supported_versions),
        "supported_groups": numbers(ch.supported_groups),
        "signature_algorithms": numbers(ch.signature_algorithms),
        "signature_algorithms_cert": numbers(ch.signature_algorithms_cert),
        "certificate_authorities": distinguished_names(ch.certificate_authorities),
        "delegated_credential": numbers(ch.delegated_credential),
        "key_shares": shares,
        "alpn": names(ch.alpn),
        "psk_modes": content(&ch.psk_modes),
        "pre_shared_key": content(&ch.pre_shared_key),
        "cookie": content(&ch.cookie),
        "record_size_limit": ch.record_size_limit or None,
        "early_data": bool(ch.early_data),
        "compress_certificate": numbers(ch.compress_certificate),
        "status_request": bool(ch.status_request),
        "signed_certificate_timestamp": bool(ch.signed_certificate_timestamp),
        "extended_master_secret": bool(ch.extended_master_secret),
        "renegotiation_info": bool(ch.renegotiation_info),
        "offers_tls13": bool(ch.offers_tls13),
    }


cdef parse_server_hello(bytes body, uint64_t offered):
    cdef ServerHello sh
    cdef int result = messages.parse_server_hello(body, len(body), offered, &sh)
    check(result, sh.reason)
    return {
        "legacy_version": sh.legacy_version,
        "random": content(&sh.random),
        "legacy_session_id_echo": content(&sh.legacy_session_id_echo),
        "cipher_suite": sh.cipher_suite,
        "retry": bool(sh.retry),
        "selected_version": sh.selected_version,
        "group": sh.group,
        "share": content(&sh.share),
        "cookie": content(&sh.cookie),
        "pre_shared_key": content(&sh.pre_shared_key),
    }


cdef parse_encrypted_extensions(bytes body, uint64_t offered):
    cdef EncryptedExtensions ee
    cdef int result = messages.parse_encrypted_extensions(body, len(body), offered, &ee)
    check(result, ee.reason)
    return {
        "alpn": content(&ee.alpn),
        "supported_groups": numbers(ee.supported_groups),
        "record_size_limit": ee.record_size_limit or None,
        "server_name": bool(ee.server_name),
        "early_data": bool(ee.early_data),
    }


cdef parse_certificate_request(bytes body):
    cdef CertificateRequest cr
    cdef int result = certificates.parse_certificate_request(body, len(body), &cr)
    check(result, cr.reason)
    return {
        "request_context": content(&cr.request_context),
        "signature_algorithms": numbers(cr.signature_algorithms),
        "compress_certificate": numbers(cr.compress_certificate),
        "status_request": bool(cr.status_request),
        "signed_certificate_timestamp": bool(cr.signed_certificate_timestamp),
        "certificate_authorities": distinguished_names(cr.authorities),
    }


cdef parse_certificate(bytes body, bint from_server, uint64_t offered):
    cdef Certificate c
    cdef Reader der
    cdef int result = certificates.parse_certificate(body, len(body), from_server, offered, &c)
    check(result, c.reason)
    chain = []
    while certificates.next_certificate(&c.entries, &der):
        chain.append(content(&der))
    return {
        "request_context": content(&c.request_context),
        "chain": chain,
        "leaf": content(&c.leaf),
        "ocsp_response": content(&c.ocsp_response),
        "timestamps": content(&c.timestamps),
    }


cdef parse_compressed_certificate(bytes body):
    cdef CompressedCertificate cc
    cdef int result = compression.parse_compressed_certificate(body, len(body), &cc)
    check(result, cc.reason)
    return {"algorithm": cc.algorithm, "uncompressed_length": cc.uncompressed_length,
            "compressed": content(&cc.compressed)}


cdef parse_certificate_verify(bytes body):
    cdef CertificateVerify cv
    cdef int result = certificates.parse_certificate_verify(body, len(body), &cv)
    check(result, cv.reason)
    return {"algorithm": cv.algorithm, "signature": content(&cv.signature)}


cdef parse_finished(bytes body, size_t hash_length):
    cdef Reader verify_data
    cdef const char *reason = ""
    cdef int result = messages.parse_finished(body, len(body), hash_length, &verify_data, &reason)
    check(result, reason)
    return {"verify_data": content(&verify_data)}


cdef parse_new_session_ticket(bytes body):
    cdef NewSessionTicket t
    cdef int result = messages.parse_new_session_ticket(body, len(body), &t)
    check(result, t.reason)
    return {
        "lifetime": t.lifetime,
        "age_add": t.age_add,
        "nonce": content(&t.nonce),
        "ticket": content(&t.ticket),
        "max_early_data_size": t.max_early_data_size,
    }


cdef parse_key_update(bytes body):
    cdef bint update_requested = 0
    cdef const char *reason = ""
    cdef int result = messages.parse_key_update(body, len(body), &update_requested, &reason)
    check(result, reason)
    return {"update_requested": bool(update_requested)}


def build(str kind, *, size_t room=MESSAGE_MAX, **fields):
    """A whole message with its header. The fields are those of `parse` (bytes, int; a ClientHello's `extensions` is
    the encoded list without key_share, its `key_shares` a list of (group, bytes)). OverflowError when it is larger
    than `room` bytes."""
    cdef Writer w
    cdef uint8_t *memory = <uint8_t *> malloc(room or 1)
    if memory == NULL:
        raise MemoryError
    try:
        writer_init(&w, memory, room)
        write(&w, kind, fields)
        if w.overflow:
            raise OverflowError(f"{kind} does not fit")
        return (<const char *> memory)[:written(&w)]
    finally:
        free(memory)


cdef write(Writer *w, str kind, dict fields):
    cdef bytes a, b, c
    if kind == "client_hello":
        write_client_hello(w, fields)
    elif kind == "server_hello":
        a, b, c = fields["random"], fields["legacy_session_id_echo"], fields["share"]
        if len(a) != 32:
            raise ValueError("random is 32 bytes")
        messages.build_server_hello(w, a, b, len(b), fields["cipher_suite"], fields["group"], c, len(c))
    elif kind == "hello_retry_request":
        b, c = fields["legacy_session_id_echo"], fields.get("cookie") or b""
        messages.build_hello_retry_request(w, b, len(b), fields["cipher_suite"], fields.get("group") or 0, c, len(c))
    elif kind == "encrypted_extensions":
        a = fields.get("alpn") or b""
        messages.build_encrypted_extensions(w, a, len(a), fields.get("server_name", False))
    elif kind == "certificate":
        a = fields["body"]
        certificates.build_certificate(w, a, len(a))
    elif kind == "empty_certificate":
        a = fields["request_context"]
        certificates.build_empty_certificate(w, a, len(a))
    elif kind == "certificate_verify":
        a = fields["signature"]
        certificates.build_certificate_verify(w, fields["algorithm"], a, len(a))
    elif kind == "finished":
        a = fields["verify_data"]
        messages.build_finished(w, a, len(a))
    elif kind == "new_session_ticket":
        a, b = fields["nonce"], fields["ticket"]
        messages.build_new_session_ticket(w, fields["lifetime"], fields["age_add"], a, len(a), b, len(b),
                                          fields.get("max_early_data_size", 0))
    elif kind == "key_update":
        messages.build_key_update(w, fields["update_requested"])
    else:
        raise ValueError(f"no handshake message is called {kind!r}")


cdef write_client_hello(Writer *w, dict fields):
    cdef ClientHelloParts parts
    cdef KeyShare shares[SHARES_MAX]
    cdef bytes random = fields["random"]
    cdef bytes session_id = fields["legacy_session_id"]
    cdef bytes cipher_suites = b"".join(int(v).to_bytes(2, "big") for v in fields["cipher_suites"])
    cdef bytes extensions = fields.get("extensions") or b""
    cdef bytes cookie = fields.get("cookie") or b""
    cdef bytes share
    cdef size_t n = 0
    if len(random) != 32 or len(fields["key_shares"]) > SHARES_MAX:
        raise ValueError(f"random is 32 bytes, and at most {SHARES_MAX} key shares go into a ClientHello")
    for group, share in fields["key_shares"]:           # the caller's list keeps the shares alive
        shares[n] = KeyShare(group, share, len(share))
        n += 1
    memset(&parts, 0, sizeof(parts))
    parts.random = random
    parts.session_id = session_id
    parts.session_id_len = len(session_id)
    parts.cipher_suites = cipher_suites
    parts.cipher_suites_len = len(cipher_suites)
    parts.extensions = extensions
    parts.extensions_len = len(extensions)
    parts.shares = shares
    parts.n_shares = n
    parts.cookie = cookie
    parts.cookie_len = len(cookie)
    messages.build_client_hello(w, &parts)


def certificate_verify_input(bint server, bytes transcript_hash):
    """The bytes a CertificateVerify signs."""
    cdef uint8_t out[certificates.CERTIFICATE_VERIFY_INPUT_MAX]
    if len(transcript_hash) > 48:
        raise ValueError("a transcript hash is at most 48 bytes")
    return (<const char *> out)[:certificates.certificate_verify_input(server, transcript_hash, len(transcript_hash), out)]
