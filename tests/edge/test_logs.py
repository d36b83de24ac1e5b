"""What the access log does when its file misbehaves, and that the error log keeps to one line per event."""

import errno
import os
import re

import pytest
from gunicorn.config import Config

from edge import accesslog, config
from edge.accesslog import AccessLog
from edge.errorlog import ErrorLog, one_line
from edge.errors import ConfigError
from tests.edge.test_config import LEAST


@pytest.fixture
def complaints():
    return []


def test_lines_are_appended_across_a_rotation(tmp_path, complaints):
    path = tmp_path / "access.log"
    path.write_bytes(b"old\n")
    log = AccessLog(path, complaints.append)
    log.write(b"1\n2\n")
    path.rename(tmp_path / "rotated")
    log.write(b"3\n")
    log.reopen()
    log.write(b"4\n")
    log.close()
    assert (tmp_path / "rotated").read_bytes() == b"old\n1\n2\n3\n"
    assert path.read_bytes() == b"4\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert complaints == []


def test_a_full_disk_is_complained_of_once(complaints):
    log = AccessLog("/dev/full", complaints.append)
    for _ in range(50):
        log.write(b"1\n2\n")
    log.close()
    assert complaints == [f"access log /dev/full: {os.strerror(errno.ENOSPC)}; 2 lines dropped so far"]


def test_a_file_that_cannot_be_reopened_stays_in_use(tmp_path, complaints):
    directory = tmp_path / "logs"
    directory.mkdir()
    path = directory / "access.log"
    log = AccessLog(path, complaints.append)
    path.unlink()
    directory.rmdir()
    log.reopen()
    log.write(b"1\n")
    log.close()
    assert len(complaints) == 1
    assert "the old file stays in use" in complaints[0]


def test_files_that_cannot_be_written_are_refused_at_start(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    settings = config.parse(f'[server]\naccess_log = {{ path = "fifo" }}\n{LEAST}', str(tmp_path / "edge.toml"))
    with pytest.raises(ConfigError) as caught:
        accesslog.make_files(settings)
    assert caught.value.key == "server.access_log.path"


@pytest.fixture
def error_log(tmp_path):
    cfg = Config()
    cfg.set("errorlog", str(tmp_path / "error.log"))
    log = ErrorLog(cfg)
    yield log
    for handler in list(log.error_log.handlers):
        log.error_log.removeHandler(handler)
        handler.close()


def test_the_form_of_a_line(error_log, tmp_path):
    error_log.info("generation %d serves", 2)
    error_log.log("warning", "%s", one_line("bad\nname \x1b[31m ü"))
    error_log.info("Starting gunicorn %s", "27")  # gunicorn's own chatter is for level debug
    first, second = (tmp_path / "error.log").read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info \[\d+\] generation 2 serves", first)
    assert second.endswith(f"warning [{os.getpid()}] bad\\nname \\x1b[31m ü")
