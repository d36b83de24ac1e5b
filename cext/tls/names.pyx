"""Names for logs (see the .pxd)."""

from cext.crypto.kx cimport (
    GROUP_SECP256R1, GROUP_SECP256R1MLKEM768, GROUP_SECP384R1, GROUP_SECP521R1, GROUP_X25519, GROUP_X25519MLKEM768)
from cext.crypto.sign cimport (
    ECDSA_SECP256R1_SHA256, ECDSA_SECP384R1_SHA384, ECDSA_SECP521R1_SHA512, ED25519, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_PSS_SHA256,
    RSA_PSS_PSS_SHA384, RSA_PSS_PSS_SHA512, RSA_PSS_RSAE_SHA256, RSA_PSS_RSAE_SHA384, RSA_PSS_RSAE_SHA512)
from cext.tls.constants cimport (
    TLS12, TLS13, TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)

cdef struct Name:
    int number
    const char *text

cdef Name[3] VERSIONS = [Name(0, "-"), Name(TLS13, "TLSv1.3"), Name(TLS12, "TLSv1.2")]
cdef Name[10] CIPHER_SUITES = [
    Name(0, "-"),
    Name(TLS_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256"),
    Name(TLS_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384"),
    Name(TLS_CHACHA20_POLY1305_SHA256, "TLS_CHACHA20_POLY1305_SHA256"),
    Name(TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    Name(TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    Name(TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    Name(TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    Name(TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    Name(TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
]
cdef Name[7] GROUPS = [
    Name(0, "-"),
    Name(GROUP_X25519, "x25519"),
    Name(GROUP_SECP256R1, "secp256r1"),
    Name(GROUP_SECP384R1, "secp384r1"),
    Name(GROUP_SECP521R1, "secp521r1"),
    Name(GROUP_X25519MLKEM768, "x25519mlkem768"),
    Name(GROUP_SECP256R1MLKEM768, "secp256r1mlkem768"),
]
cdef Name[14] SIGNATURE_SCHEMES = [
    Name(0, "-"),
    Name(ECDSA_SECP256R1_SHA256, "ecdsa_secp256r1_sha256"),
    Name(ECDSA_SECP384R1_SHA384, "ecdsa_secp384r1_sha384"),
    Name(ECDSA_SECP521R1_SHA512, "ecdsa_secp521r1_sha512"),
    Name(ED25519, "ed25519"),
    Name(RSA_PSS_RSAE_SHA256, "rsa_pss_rsae_sha256"),
    Name(RSA_PSS_RSAE_SHA384, "rsa_pss_rsae_sha384"),
    Name(RSA_PSS_RSAE_SHA512, "rsa_pss_rsae_sha512"),
    Name(RSA_PSS_PSS_SHA256, "rsa_pss_pss_sha256"),
    Name(RSA_PSS_PSS_SHA384, "rsa_pss_pss_sha384"),
    Name(RSA_PSS_PSS_SHA512, "rsa_pss_pss_sha512"),
    Name(RSA_PKCS1_SHA256, "rsa_pkcs1_sha256"),
    Name(RSA_PKCS1_SHA384, "rsa_pkcs1_sha384"),
    Name(RSA_PKCS1_SHA512, "rsa_pkcs1_sha512"),
]


cdef int place(const Name *names, size_t n, int number) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if names[i].number == number:
            return <int> i
    return <int> n


cdef const char *find(const Name *names, size_t n, int number) noexcept nogil:
    cdef size_t i = place(names, n, number)
    if i == n:
        return "unknown"
    return names[i].text


cdef int cipher_suite_place(int suite) noexcept nogil:
    return place(CIPHER_SUITES, sizeof(CIPHER_SUITES) // sizeof(Name), suite)


cdef int group_place(int group) noexcept nogil:
    return place(GROUPS, sizeof(GROUPS) // sizeof(Name), group)


cdef const char *version_name(int version) noexcept nogil:
    return find(VERSIONS, sizeof(VERSIONS) // sizeof(Name), version)


cdef const char *cipher_suite_name(int suite) noexcept nogil:
    return find(CIPHER_SUITES, sizeof(CIPHER_SUITES) // sizeof(Name), suite)


cdef const char *group_name(int group) noexcept nogil:
    return find(GROUPS, sizeof(GROUPS) // sizeof(Name), group)


cdef const char *signature_scheme_name(int scheme) noexcept nogil:
    return find(SIGNATURE_SCHEMES, sizeof(SIGNATURE_SCHEMES) // sizeof(Name), scheme)


def describe(int version, int suite, int group, int scheme):
    """One line: "TLSv1.3 TLS_AES_128_GCM_SHA256 x25519 ecdsa_secp256r1_sha256"."""
    return " ".join(name.decode("ascii") for name in (
        version_name(version), cipher_suite_name(suite), group_name(group), signature_scheme_name(scheme)))


cdef tuple texts(const Name *names, size_t n):
    return (*[names[i].text.decode("ascii") for i in range(n)], "unknown")


# By place.
SUITE_NAMES = texts(CIPHER_SUITES, sizeof(CIPHER_SUITES) // sizeof(Name))
GROUP_NAMES = texts(GROUPS, sizeof(GROUPS) // sizeof(Name))
