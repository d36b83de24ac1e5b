"""libcrypto (OpenSSL 3.0 and later): only what cext.crypto uses."""

from libc.time cimport tm

cdef extern from "<openssl/types.h>" nogil:
    ctypedef struct OSSL_LIB_CTX:
        pass
    ctypedef struct ENGINE:
        pass
    ctypedef struct EVP_CIPHER:
        pass
    ctypedef struct EVP_CIPHER_CTX:
        pass
    ctypedef struct EVP_MD:
        pass
    ctypedef struct EVP_MD_CTX:
        pass
    ctypedef struct EVP_PKEY:
        pass
    ctypedef struct EVP_PKEY_CTX:
        pass
    ctypedef struct BIO:
        pass
    ctypedef struct X509:
        pass
    ctypedef struct X509_NAME:
        pass
    ctypedef struct ASN1_TIME:
        pass
    ctypedef struct BIGNUM:
        pass
    ctypedef struct BN_CTX:
        pass
    ctypedef struct OSSL_PARAM:
        void *data
    ctypedef int pem_password_cb(char *buf, int size, int rwflag, void *u) noexcept nogil

# The plain-struct hashes: deprecated in name only (setup.py says so to the compiler), and the only interface whose
# state is copied by assignment and needs neither allocation nor fetch.
cdef extern from "<openssl/sha.h>" nogil:
    ctypedef struct SHA256_CTX:
        pass
    ctypedef struct SHA512_CTX:
        pass
    unsigned char *SHA1(const unsigned char *data, size_t n, unsigned char *md)
    int SHA256_Init(SHA256_CTX *c)
    int SHA256_Update(SHA256_CTX *c, const void *data, size_t n)
    int SHA256_Final(unsigned char *md, SHA256_CTX *c)
    int SHA384_Init(SHA512_CTX *c)
    int SHA384_Update(SHA512_CTX *c, const void *data, size_t n)
    int SHA384_Final(unsigned char *md, SHA512_CTX *c)
    int SHA512_Init(SHA512_CTX *c)
    int SHA512_Update(SHA512_CTX *c, const void *data, size_t n)
    int SHA512_Final(unsigned char *md, SHA512_CTX *c)

cdef extern from "<openssl/crypto.h>" nogil:
    int OPENSSL_VERSION_STRING
    const char *OpenSSL_version(int what)
    int CRYPTO_memcmp(const void *a, const void *b, size_t n)
    void OPENSSL_cleanse(void *p, size_t n)
    void OPENSSL_free(void *p)
    void OPENSSL_clear_free(void *p, size_t n)

cdef extern from "<openssl/rand.h>" nogil:
    int RAND_bytes(unsigned char *out, int n)

cdef extern from "<openssl/err.h>" nogil:
    void ERR_clear_error()

cdef extern from "<openssl/evp.h>" nogil:
    EVP_CIPHER *EVP_CIPHER_fetch(OSSL_LIB_CTX *libctx, const char *algorithm, const char *properties)
    EVP_CIPHER_CTX *EVP_CIPHER_CTX_new()
    void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *ctx)
    int EVP_CIPHER_CTX_get_params(EVP_CIPHER_CTX *ctx, OSSL_PARAM *params)
    int EVP_CIPHER_CTX_set_params(EVP_CIPHER_CTX *ctx, const OSSL_PARAM *params)
    int EVP_CipherInit_ex(EVP_CIPHER_CTX *ctx, const EVP_CIPHER *cipher, ENGINE *engine, const unsigned char *key,
                          const unsigned char *iv, int enc)
    int EVP_EncryptUpdate(EVP_CIPHER_CTX *ctx, unsigned char *out, int *out_len, const unsigned char *p, int n)
    int EVP_EncryptFinal_ex(EVP_CIPHER_CTX *ctx, unsigned char *out, int *out_len)
    int EVP_DecryptUpdate(EVP_CIPHER_CTX *ctx, unsigned char *out, int *out_len, const unsigned char *p, int n)
    int EVP_DecryptFinal_ex(EVP_CIPHER_CTX *ctx, unsigned char *out, int *out_len)

    EVP_PKEY_CTX *EVP_PKEY_CTX_new_from_name(OSSL_LIB_CTX *libctx, const char *name, const char *properties)
    EVP_PKEY_CTX *EVP_PKEY_CTX_new_from_pkey(OSSL_LIB_CTX *libctx, EVP_PKEY *pkey, const char *properties)
    void EVP_PKEY_CTX_free(EVP_PKEY_CTX *ctx)
    void EVP_PKEY_free(EVP_PKEY *pkey)
    int EVP_PKEY_is_a(const EVP_PKEY *pkey, const char *name)
    int EVP_PKEY_get_bits(const EVP_PKEY *pkey)
    int EVP_PKEY_get_group_name(const EVP_PKEY *pkey, char *name, size_t size, size_t *n)
    int EVP_PKEY_get_octet_string_param(const EVP_PKEY *pkey, const char *key, unsigned char *buf, size_t size, size_t *n)
    int EVP_PKEY_get_bn_param(const EVP_PKEY *pkey, const char *key, BIGNUM **number)
    int EVP_PKEY_set1_encoded_public_key(EVP_PKEY *pkey, const unsigned char *p, size_t n)
    int EVP_PKEY_eq(const EVP_PKEY *a, const EVP_PKEY *b)

    int EVP_PKEY_keygen_init(EVP_PKEY_CTX *ctx)
    int EVP_PKEY_keygen(EVP_PKEY_CTX *ctx, EVP_PKEY **pkey)
    int EVP_PKEY_CTX_set_group_name(EVP_PKEY_CTX *ctx, const char *name)
    int EVP_PKEY_fromdata_init(EVP_PKEY_CTX *ctx)
    int EVP_PKEY_fromdata(EVP_PKEY_CTX *ctx, EVP_PKEY **pkey, int selection, OSSL_PARAM *params)
    int EVP_PKEY_derive_init(EVP_PKEY_CTX *ctx)
    int EVP_PKEY_derive_set_peer_ex(EVP_PKEY_CTX *ctx, EVP_PKEY *peer, int validate)
    int EVP_PKEY_derive(EVP_PKEY_CTX *ctx, unsigned char *key, size_t *n)
    int EVP_PKEY_encapsulate_init(EVP_PKEY_CTX *ctx, const OSSL_PARAM *params)
    int EVP_PKEY_encapsulate(EVP_PKEY_CTX *ctx, unsigned char *wrapped, size_t *wrapped_len, unsigned char *secret,
                             size_t *secret_len)
    int EVP_PKEY_decapsulate_init(EVP_PKEY_CTX *ctx, const OSSL_PARAM *params)
    int EVP_PKEY_decapsulate(EVP_PKEY_CTX *ctx, unsigned char *secret, size_t *secret_len, const unsigned char *wrapped,
                             size_t wrapped_len)
    enum:
        EVP_PKEY_KEYPAIR
        EVP_PKEY_PUBLIC_KEY

    const EVP_MD *EVP_sha256()
    const EVP_MD *EVP_sha384()
    const EVP_MD *EVP_sha512()
    int EVP_PKEY_sign_init(EVP_PKEY_CTX *ctx)
    int EVP_PKEY_sign(EVP_PKEY_CTX *ctx, unsigned char *signature, size_t *sig_len, const unsigned char *digest, size_t n)
    int EVP_PKEY_verify_init(EVP_PKEY_CTX *ctx)
    int EVP_PKEY_verify(EVP_PKEY_CTX *ctx, const unsigned char *signature, size_t sig_len,
                        const unsigned char *digest, size_t n)
    int EVP_PKEY_CTX_set_signature_md(EVP_PKEY_CTX *ctx, const EVP_MD *md)
    EVP_MD_CTX *EVP_MD_CTX_new()
    void EVP_MD_CTX_free(EVP_MD_CTX *ctx)
    int EVP_MD_CTX_copy_ex(EVP_MD_CTX *out, const EVP_MD_CTX *ctx)
    int EVP_DigestSignInit(EVP_MD_CTX *ctx, EVP_PKEY_CTX **pctx, const EVP_MD *md, ENGINE *engine, EVP_PKEY *pkey)
    int EVP_DigestSign(EVP_MD_CTX *ctx, unsigned char *signature, size_t *sig_len, const unsigned char *p, size_t n)
    int EVP_DigestVerifyInit(EVP_MD_CTX *ctx, EVP_PKEY_CTX **pctx, const EVP_MD *md, ENGINE *engine, EVP_PKEY *pkey)
    int EVP_DigestVerify(EVP_MD_CTX *ctx, const unsigned char *signature, size_t sig_len,
                         const unsigned char *p, size_t n)

cdef extern from "<openssl/params.h>" nogil:
    OSSL_PARAM OSSL_PARAM_construct_utf8_string(const char *key, char *buf, size_t n)
    OSSL_PARAM OSSL_PARAM_construct_octet_string(const char *key, void *buf, size_t n)
    OSSL_PARAM OSSL_PARAM_construct_BN(const char *key, unsigned char *little_endian, size_t n)
    OSSL_PARAM OSSL_PARAM_construct_end()

cdef extern from "<openssl/core_names.h>" nogil:
    const char *OSSL_CIPHER_PARAM_AEAD_TAG
    const char *OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY
    const char *OSSL_PKEY_PARAM_GROUP_NAME
    const char *OSSL_PKEY_PARAM_PRIV_KEY
    const char *OSSL_PKEY_PARAM_PUB_KEY

cdef extern from "<openssl/bn.h>" nogil:
    void BN_clear_free(BIGNUM *number)

cdef extern from "<openssl/ec.h>" nogil:
    ctypedef struct EC_GROUP:
        pass
    ctypedef struct EC_POINT:
        pass
    enum:
        NID_X9_62_prime256v1
        NID_secp384r1
        NID_secp521r1
    EC_GROUP *EC_GROUP_new_by_curve_name(int nid)
    EC_POINT *EC_POINT_new(const EC_GROUP *group)
    void EC_POINT_free(EC_POINT *point)
    int EC_POINT_mul(const EC_GROUP *group, EC_POINT *out, const BIGNUM *times_generator, const EC_POINT *point,
                     const BIGNUM *times_point, BN_CTX *ctx)
    int EC_POINT_oct2point(const EC_GROUP *group, EC_POINT *out, const unsigned char *p, size_t n, BN_CTX *ctx)
    int EC_POINT_cmp(const EC_GROUP *group, const EC_POINT *a, const EC_POINT *b, BN_CTX *ctx)     # 0: equal
    int EC_POINT_is_at_infinity(const EC_GROUP *group, const EC_POINT *point)

cdef extern from "<openssl/rsa.h>" nogil:
    int EVP_PKEY_CTX_set_rsa_padding(EVP_PKEY_CTX *ctx, int padding)
    int EVP_PKEY_CTX_set_rsa_pss_saltlen(EVP_PKEY_CTX *ctx, int n)
    int EVP_PKEY_CTX_set_rsa_mgf1_md(EVP_PKEY_CTX *ctx, const EVP_MD *md)
    enum:
        RSA_PKCS1_PADDING
        RSA_PKCS1_PSS_PADDING
        RSA_PSS_SALTLEN_DIGEST

cdef extern from "<openssl/bio.h>" nogil:
    BIO *BIO_new_mem_buf(const void *p, int n)
    int BIO_free(BIO *bio)

cdef extern from "<openssl/pem.h>" nogil:
    EVP_PKEY *PEM_read_bio_PrivateKey(BIO *bio, EVP_PKEY **pkey, pem_password_cb *cb, void *u)
    int PEM_read_bio(BIO *bio, char **name, char **header, unsigned char **data, long *n)

cdef extern from "<openssl/decoder.h>" nogil:
    ctypedef struct OSSL_DECODER_CTX:
        pass
    OSSL_DECODER_CTX *OSSL_DECODER_CTX_new_for_pkey(EVP_PKEY **pkey, const char *input_type, const char *input_structure,
                                                    const char *keytype, int selection, void *libctx, const char *query)
    void OSSL_DECODER_CTX_free(OSSL_DECODER_CTX *ctx)
    int OSSL_DECODER_from_data(OSSL_DECODER_CTX *ctx, const unsigned char **p, size_t *n)

cdef extern from "<openssl/x509.h>" nogil:
    EVP_PKEY *d2i_PUBKEY(EVP_PKEY **pkey, const unsigned char **p, long n)
    int i2d_PUBKEY(const EVP_PKEY *pkey, unsigned char **out)
    X509 *d2i_X509(X509 **certificate, const unsigned char **p, long n)
    EVP_PKEY *X509_get_pubkey(X509 *certificate)
    void X509_free(X509 *certificate)
    X509_NAME *X509_get_issuer_name(X509 *certificate)
    int i2d_X509_NAME(X509_NAME *name, unsigned char **out)
    const ASN1_TIME *X509_get0_notBefore(X509 *certificate)
    const ASN1_TIME *X509_get0_notAfter(X509 *certificate)
    int ASN1_TIME_to_tm(const ASN1_TIME *time, tm *out)

cdef extern from "<openssl/x509v3.h>" nogil:
    enum:
        KU_DIGITAL_SIGNATURE
    unsigned int X509_get_key_usage(X509 *certificate)      # all bits set when it has no such extension
