"""Whether a process that owns a row is still there."""

import os
import socket
import subprocess
import sys

from labeling.database.ownership import owner_is_gone, owner_name


def test_this_process_is_here_and_one_that_had_its_number_is_gone():
    assert not owner_is_gone(owner_name())
    assert owner_is_gone(f"{socket.gethostname()}:{os.getpid()}:1")


def test_of_another_host_or_of_no_form_nothing_is_known():
    for owner in ("elsewhere:1:5", "", "test", f"{socket.gethostname()}:x:5"):
        assert not owner_is_gone(owner)


def test_one_without_its_beginning_is_found_by_its_number_alone():
    assert not owner_is_gone(f"{socket.gethostname()}:{os.getpid()}")
    assert owner_is_gone(f"{socket.gethostname()}:999999999")


def test_a_process_that_has_ended_is_gone_before_it_is_waited_for():
    says = "from labeling.database.ownership import owner_name; print(owner_name(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", says], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        owner = child.stdout.readline().strip()
        assert not owner_is_gone(owner)
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert owner_is_gone(owner)
    assert owner_is_gone(owner)
