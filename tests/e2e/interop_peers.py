"""Other people's TLS, each as a client and as a server with the same few things to do (see test_interop)."""

import contextlib
import os
import re
import shutil
import socket
import ssl
import threading
from pathlib import Path

from tests.e2e.processes import ROOT, Process, answers, free_port, peer, run

NAME = "edge.test"
REQUEST = f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n"
NSS_PLACES = ("/usr/lib/nss/unsupported-tools", "/usr/lib/x86_64-linux-gnu/nss/unsupported-tools")
SECONDS = 20


class Peer:
    """`ask` requests from our server `connections` times, resuming if it can, and gives all it was told; `serve` is the
    command of a server that answers requests, with `mode` "plain", "retry" (P-384 alone) or "client_certificate".
    """

    def __init__(self, directory, ca, certificates, mine):
        self.directory = directory
        self.ca = ca                    # a file
        self.certificates = certificates    # by kind of key
        self.mine = mine                # what it shows as a client
        self.servers = {}

    def server(self, kind, mode):
        """The port of its server for these, which stays until `close`."""
        if (kind, mode) not in self.servers:
            port = free_port()
            log = self.directory / f"{type(self).__name__}-{kind}-{mode}.log"
            process = Process(self.serve(port, self.certificates[kind], mode), log)
            self.servers[kind, mode] = (process, port)
            process.started(lambda: answers(port))
        return self.servers[kind, mode][1]

    def close(self):
        for process, _ in self.servers.values():
            process.kill()


class OpenSsl(Peer):
    def ask(self, port, version, connections, shows):
        command = [peer("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", NAME, "-ign_eof"]
        command += ["-CAfile", self.ca, "-verify_return_error", "-verify_hostname", NAME]
        command += [f"-tls{version.replace('.', '_')}"]
        if shows:
            command += ["-cert", self.mine.chain, "-key", self.mine.key]
        session = self.directory / "openssl.session"
        said = ""
        for i in range(connections):
            way = "-sess_in" if i else "-sess_out"
            said += run([*command, way, session], input=REQUEST, seconds=SECONDS).stdout
        return said

    def serve(self, port, certificate, mode):
        command = [peer("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-www", "-quiet"]
        command += ["-cert", certificate.chain, "-key", certificate.key]
        command += {
            "plain": [],
            "retry": ["-groups", "P-384"],
            "client_certificate": ["-CAfile", self.ca, "-Verify", "1", "-verify_return_error"],
        }[mode]
        return command


class GnuTls(Peer):
    def ask(self, port, version, connections, shows):
        command = [peer("gnutls-cli"), "--port", port, "--sni-hostname", NAME, "--verify-hostname", NAME]
        command += ["--x509cafile", self.ca, "--priority", f"NORMAL:-VERS-ALL:+VERS-TLS{version}"]
        command += ["--resume"] if connections > 1 else []
        command += ["--waitresumption"] if connections > 1 and version == "1.3" else []
        command += ["--x509certfile", self.mine.chain, "--x509keyfile", self.mine.key] if shows else []
        return run([*command, "127.0.0.1"], input=REQUEST, seconds=SECONDS).stdout

    def serve(self, port, certificate, mode):
        command = [peer("gnutls-serv"), "--http", "--quiet", "--port", port]
        command += ["--x509certfile", certificate.chain, "--x509keyfile", certificate.key]
        groups = ":-GROUP-ALL:+GROUP-SECP384R1" if mode == "retry" else ""
        command += ["--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2" + groups]
        if mode == "client_certificate":
            return [*command, "--x509cafile", self.ca, "--require-client-cert", "--verify-client-cert"]
        return [*command, "--disable-client-cert"]


class Nss(Peer):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.database = f"sql:{self.directory}"
        self.tool("certutil", "-N", "--empty-password")
        self.tool("certutil", "-A", "-n", "ca", "-t", "CT,C,C", "-i", self.ca)
        for name, certificate in {"mine": self.mine, **self.certificates}.items():
            if name == "ed25519":
                continue
            bundle = self.directory / f"{name}.p12"
            command = [peer("openssl"), "pkcs12", "-export", "-in", certificate.chain, "-inkey", certificate.key]
            made = run([*command, "-name", name, "-out", bundle, "-passout", "pass:"])
            assert made.returncode == 0, made.stdout
            self.tool("pk12util", "-i", bundle, "-W", "")

    def tool(self, program, *arguments):
        made = run([peer(program), "-d", self.database, *arguments])
        assert made.returncode == 0, made.stdout

    def ask(self, port, version, connections, shows):
        file = self.directory / "request"
        file.write_text(REQUEST)
        command = [peer("tstclnt", *NSS_PLACES), "-h", "127.0.0.1", "-p", port, "-a", NAME, "-d", self.database]
        command += ["-V", f"tls{version}:tls{version}", "-A", file, "-u", "-G"]    # tickets, extended master secret
        command += ["-L", connections] if connections > 1 else []
        command += ["-n", "mine"] if shows else []
        with open(file) as stdin:  # at the end of a pipe it spins
            return run(command, stdin=stdin, seconds=SECONDS).stdout

    def serve(self, port, certificate, mode):
        command = [peer("selfserv", *NSS_PLACES), "-d", self.database, "-p", port, "-V", "tls1.2:tls1.3", "-u", "-G"]
        kind = next(kind for kind, known in self.certificates.items() if known is certificate)
        command += ["-n" if kind == "rsa" else "-e", kind]
        return command + {"plain": [], "retry": ["-I", "P384"], "client_certificate": ["-r", "-r"]}[mode]


DEBIAN_GO = Path("/usr/bin/go")         # the one that ./dev test installs


def go_version():
    """(1, 24), say; (0,) where there is no Go."""
    go = DEBIAN_GO if DEBIAN_GO.exists() else shutil.which("go")
    said = run([go, "version"], seconds=SECONDS).stdout if go else ""
    found = re.search(r"go(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0,)


class Go(Peer):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.program = self.directory / "interop"
        environment = {
            **os.environ, "GO111MODULE": "off", "GOCACHE": str(ROOT / ".cache/go-build"), "CGO_ENABLED": "1",
            "GOTOOLCHAIN": "local", "GOFLAGS": "",
        }  # fmt: skip
        source = Path(__file__).with_name("interop.go")
        go = DEBIAN_GO if DEBIAN_GO.exists() else peer("go")
        built = run([go, "build", "-o", self.program, source], seconds=240, env=environment)
        assert built.returncode == 0, built.stdout

    def ask(self, port, version, connections, shows):
        command = [self.program, "client", f"127.0.0.1:{port}", self.ca, version, "c" * connections]
        return run(command + ([self.mine.chain, self.mine.key] if shows else []), seconds=SECONDS).stdout

    def serve(self, port, certificate, mode):
        return [self.program, "server", f"127.0.0.1:{port}", certificate.chain, certificate.key, mode, self.ca]


class Python(Peer):
    """The ssl module of the Python that runs the tests."""

    def ask(self, port, version, connections, shows):
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = context.maximum_version = ssl.TLSVersion["TLSv" + version.replace(".", "_")]
        if shows:
            context.load_cert_chain(self.mine.chain, self.mine.key)
        said, session = b"", None
        for _ in range(connections):
            with (
                socket.create_connection(("127.0.0.1", port), SECONDS) as s,
                context.wrap_socket(s, server_hostname=NAME, session=session) as conn,
            ):
                conn.sendall(REQUEST.encode())
                while data := conn.recv(65536):
                    said += data
                session = conn.session
                with contextlib.suppress(OSError):
                    conn.unwrap()
        return said.decode()

    def server(self, kind, mode):
        if (kind, mode) not in self.servers:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificates[kind].chain, self.certificates[kind].key)
            if mode == "retry":
                context.set_ecdh_curve("secp384r1")
            if mode == "client_certificate":
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self.ca)
            listener = socket.create_server(("127.0.0.1", 0))
            threading.Thread(target=self.accept, args=(listener, context), daemon=True).start()
            self.servers[kind, mode] = (listener, listener.getsockname()[1])
        return self.servers[kind, mode][1]

    def accept(self, listener, context):
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listener.accept()
                accepted.settimeout(SECONDS)
                with contextlib.suppress(OSError), context.wrap_socket(accepted, server_side=True) as conn:
                    conn.recv(65536)
                    conn.sendall(b"HTTP/1.0 200 OK\r\n\r\nfrom Python\n")
                    conn.unwrap()

    def close(self):
        for listener, _ in self.servers.values():
            listener.close()


class Chromium(Peer):
    """Headless. Its trust comes of an NSS database in its home."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        database = self.directory / ".pki/nssdb"
        database.mkdir(parents=True)
        for command in (["-N", "--empty-password"], ["-A", "-n", "ca", "-t", "C,,", "-i", self.ca]):
            assert run([peer("certutil"), "-d", f"sql:{database}", *command]).returncode == 0
        self.runs = 0

    def ask(self, port, version, connections, shows):
        assert not shows
        self.runs += 1
        command = [peer("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
        command += ["--disable-extensions", "--host-resolver-rules=MAP *.test 127.0.0.1", "--virtual-time-budget=10000"]
        command += [f"--user-data-dir={self.directory / str(self.runs)}", f"--ssl-version-max=tls{version}"]
        environment = {**os.environ, "HOME": str(self.directory)}
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "CHROMIUM_FLAGS"):
            environment.pop(name, None)
        return run([*command, "--dump-dom", f"https://{NAME}:{port}/"], seconds=60, env=environment).stdout


PEERS = {"openssl": OpenSsl, "gnutls": GnuTls, "nss": Nss, "go": Go, "python": Python, "chromium": Chromium}
