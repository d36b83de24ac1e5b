"""The IANA names of what is negotiated, for logs: static strings, "-" for 0, "unknown" for a number we never choose."""

cdef const char *version_name(int version) noexcept nogil
cdef const char *cipher_suite_name(int suite) noexcept nogil
cdef const char *group_name(int group) noexcept nogil
cdef const char *signature_scheme_name(int scheme) noexcept nogil
