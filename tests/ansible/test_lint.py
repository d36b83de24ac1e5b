"""ansible-lint has nothing to say of ansible/. Half a minute of a CPU, and therefore a file of its own: the suite runs
files beside each other."""

from tests.ansible.test_collection import run


def test_ansible_lint_is_content(tmp_path):
    done = run(tmp_path, "ansible-lint", "--strict", "--format", "brief")
    assert done.returncode == 0, done.stdout
    assert "'production' was required, and it passed" in " ".join(done.stdout.split()), done.stdout
