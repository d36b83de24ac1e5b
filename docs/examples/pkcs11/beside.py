"""Makes the token, and puts the key into it: from then on it is nowhere else."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path

LIBRARIES = "/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"
TOOL = "softhsm2-util"


def util(*arguments):
    subprocess.run([TOOL, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # these below


library = next(filter(os.path.exists, LIBRARIES), None)
if library is None or shutil.which(TOOL) is None:
    sys.exit("this example needs SoftHSM: apt install softhsm2")
Path("softhsm.so").symlink_to(library)

configuration = Path("softhsm2.conf").absolute()
tokens = Path("tokens").absolute()
tokens.mkdir(mode=0o700)
configuration.write_text(f"directories.tokendir = {tokens}\nlog.level = ERROR\n")
os.environ["SOFTHSM2_CONF"] = str(configuration)

pin = secrets.token_hex(8)
with open(os.open("pin", os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
    file.write(pin)
util("--init-token", "--free", "--label", "example", "--so-pin", secrets.token_hex(8), "--pin", pin)
util("--import", "key.pem", "--token", "example", "--label", "localhost", "--id", "01", "--pin", pin)
Path("key.pem").unlink()

Path("environment").write_text(f"SOFTHSM2_CONF={configuration}\n")
Path("ready").touch()
signal.sigwait([signal.SIGTERM])
