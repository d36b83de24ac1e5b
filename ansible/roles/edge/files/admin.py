"""Where the running edge is asked: the admin socket of the configuration that is in place, or of the one from before a
run that was cut off, whichever is there. Says nothing where neither is."""

import tomllib
from pathlib import Path

FILES = ["/etc/edge/edge.toml", "/etc/edge.before/etc/edge.toml"]


def named_by(file: str) -> Path | None:
    try:
        admin = tomllib.loads(Path(file).read_text())["server"]["admin"]
        return Path((admin["path"] if isinstance(admin, dict) else admin).removeprefix("unix:"))
    except (OSError, ValueError, LookupError):  # it is not there, or somebody has had a hand in it
        return None


def main() -> None:
    sockets = [path for path in map(named_by, FILES) if path and path.is_socket()]
    if sockets:
        print(sockets[0])


if __name__ == "__main__":
    main()
