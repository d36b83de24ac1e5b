"""The IANA names of what is negotiated, for logs: static strings, "-" for 0, "unknown" for a number we never choose."""

cdef const char *version_name(int version) noexcept nogil
cdef const char *cipher_suite_name(int suite) noexcept nogil
cdef const char *group_name(int group) noexcept nogil
cdef const char *signature_scheme_name(int scheme) noexcept nogil

# Places in SUITE_NAMES and GROUP_NAMES: 0 for 0, the last for a number we never choose.
cdef int cipher_suite_place(int suite) noexcept nogil
cdef int group_place(int group) noexcept nogil
