"""Whether the running edge serves the certificates in /etc/edge/certificates: exit code 0, or 1 and which not.

To be run by the interpreter of edge's own virtual environment.
"""

import json
import subprocess
import sys
from pathlib import Path

from cryptography import x509

PAIRS = Path("/etc/edge/certificates")
COMMAND = ["/opt/edge/current/bin/edge", "show", "certs", "--json", "--config", "/etc/edge/edge.toml"]


def main() -> int:
    told = subprocess.run(COMMAND, check=True, capture_output=True, text=True, timeout=30).stdout
    late = []
    for line in told.splitlines():
        served = json.loads(line)
        chain = Path(served["chain"])
        if PAIRS not in chain.parents:
            continue
        leaf = x509.load_pem_x509_certificates(chain.read_bytes())[0]
        if int(served["serial"], 16) != leaf.serial_number:
            late.append(f"{served['path']}: {served['serial']} is served, and {leaf.serial_number:x} is in {chain}")
    print("\n".join(late) or "all are served")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
