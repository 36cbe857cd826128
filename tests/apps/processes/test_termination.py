"""What SIGTERM does to a command, wherever it is."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from kd_lightning.apps.processes.termination import ended_by_sigterm, ends_us, terminated, termination_deferred
from kd_lightning.errors import Terminated


def tell():
    """Send the signal to this process; its handler runs before the next line."""
    os.kill(os.getpid(), signal.SIGTERM)


def test_it_ends_the_block_at_once():
    @ended_by_sigterm()
    def block():
        tell()
        pytest.fail("it went on")

    with pytest.raises(Terminated):
        block()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_deferred_end_comes_after_the_block():
    came = []

    @ended_by_sigterm()
    def block():
        with termination_deferred():
            with termination_deferred():
                assert not terminated()
                tell()
            assert terminated()
            came.append("to the end")
        pytest.fail("it went on")

    with pytest.raises(Terminated):
        block()
    assert came == ["to the end"]


def test_what_fails_in_a_deferred_block_is_told():
    @ended_by_sigterm()
    @termination_deferred()
    def block():
        tell()
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        block()


def test_the_end_is_not_ended():
    """A scheduler sends the signal to all processes of a job, and its first process to the others."""
    cleaned = []

    @ended_by_sigterm()
    def block():
        try:
            tell()
        finally:
            tell()
            cleaned.append("up")

    with pytest.raises(Terminated):
        block()
    assert cleaned == ["up"]


def test_the_next_command_of_the_process_is_not_told():
    with pytest.raises(Terminated):
        ended_by_sigterm()(tell)()
    with ended_by_sigterm():
        assert not terminated()
        with pytest.raises(Terminated):
            tell()


def test_a_command_within_another_has_its_handler():
    with ended_by_sigterm():
        ours = signal.getsignal(signal.SIGTERM)
        with ended_by_sigterm():
            assert signal.getsignal(signal.SIGTERM) is ours
        assert ends_us(ours)
    assert not ends_us(signal.SIG_IGN)


def test_what_a_launcher_does_at_it_stays_outside_of_fits():
    """submitit passes it over: another signal follows, at which the job is queued again."""
    passed = []
    signal.signal(signal.SIGTERM, lambda number, frame: passed.append(number))
    try:
        with ended_by_sigterm():
            tell()
            assert passed == [signal.SIGTERM]
            with pytest.raises(Terminated):
                termination_deferred()(tell)()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_threads_leave_signals_alone():
    def block():
        with ended_by_sigterm():
            pass

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_process_that_is_forked_ends_as_it_would():
    """Without a traceback, and by the signal, as those who forked it expect."""
    program = (
        "import os, signal, time\n"
        "from kd_lightning.apps.processes.termination import ended_by_sigterm\n"
        "with ended_by_sigterm():\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(60)\n"
        "    print(os.WTERMSIG(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{int(signal.SIGTERM)}\n", "")
