"""What the profiles' text is turned into."""

import pytest

from bench.processes import BenchError
from bench.profile_command import plain_function, plain_name, symbol_table

REPORT = """
# Overhead  Shared Object                                Symbol
    20.50%  libcrypto.so.3                               [.] 0x000000000017f2fa      -      -
    10.25%  libcrypto.so.3                               [.] 0x000000000017f351      -      -
     9.00%  libcrypto.so.3                               [.] EVP_DigestUpdate
     5.00%  loop.cpython-311-x86_64-linux-gnu.so         [.] __pyx_f_4cext_3net_4loop_4Loop_turn            -      -
     2.00%  [kernel.kallsyms]                            [k] tcp_ack
"""


def test_unnamed_functions_are_summed_up_by_library():
    lines = symbol_table(REPORT.splitlines(), top=3)
    assert [line.split() for line in lines] == [
        ["39.75%", "libcrypto.so.3"],
        ["5.00%", "loop"],
        ["2.00%", "[kernel.kallsyms]"],
        [],
        ["30.75%", "libcrypto.so.3", "(no", "name)"],
        ["9.00%", "libcrypto.so.3", "EVP_DigestUpdate"],
        ["5.00%", "loop", "cext.net.loop.Loop.turn"],
    ]


def test_an_empty_report_is_an_error():
    with pytest.raises(BenchError, match="no samples"):
        symbol_table(["# no samples", ""], top=3)


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("__pyx_f_4cext_6crypto_8hash_kdf_hmac_sign_parts", "cext.crypto.hash_kdf.hmac_sign_parts"),
        ("__pyx_f_4cext_3net_4loop_4Loop_turn", "cext.net.loop.Loop.turn"),
        ("__pyx_pw_5bench_4load_9Generator_3run", "bench.load.Generator.run"),
        ("__pyx_tp_dealloc_thing", "__pyx_tp_dealloc_thing"),
        ("tcp_ack", "tcp_ack"),
    ],
)
def test_names_of_cython_functions(symbol, name):
    assert plain_name(symbol) == name


def test_names_of_callgrind():
    line = "loop.c:__pyx_f_4cext_3net_4loop_4Loop_turn [/x/cext/net/loop.cpython-311-x86_64-linux-gnu.so]"
    assert plain_function(line).split() == ["loop", "cext.net.loop.Loop.turn"]
    assert plain_function("???:0x000000000017d5b0 [/usr/lib/libcrypto.so.3]").split()[1] == "0x000000000017d5b0"
