"""How the processes of a job know of each other's end; threads stand for processes."""

import re
import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist
from torch.distributed import TCPStore

from kd_lightning.apps.processes import pulse
from kd_lightning.apps.processes.pulse import LeaderGone, Pulse
from kd_lightning.apps.processes.seat import Seat
from kd_lightning.apps.processes.termination import end_from_thread, ended_by_sigterm, terminated
from kd_lightning.errors import Terminated, UserError


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Signs that are given often."""
    for name, value in {"EVERY": 0.01, "LOST": 30, "LATE": 60, "FAREWELL": timedelta(seconds=0.5)}.items():
        monkeypatch.setattr(pulse, name, value)


@pytest.fixture
def of():
    """Return a function: rank, of how many -> its pulse, at one store."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def of(rank, size=2, look=lambda: None):
        def connect():
            return TCPStore("127.0.0.1", store.port, is_master=False, wait_for_workers=False)

        return Pulse(Seat(rank, size, rank, 0, "slurm"), connect, look)

    return of


def wait_for(found, seconds=30):
    """Return what is found, once it is; None if it does not come."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if answer := found():
            return answer
        time.sleep(0.01)
    return None


def why(pulse, seconds=30):
    """Return what ends a process, once it is found."""

    def ended():
        try:
            return pulse.check()
        except (UserError, LeaderGone) as error:
            return error

    return wait_for(ended, seconds)


def test_nobody_is_missed_who_gives_signs(of):
    with of(0, 3) as first, of(1, 3) as second, of(2, 3) as third:
        time.sleep(0.8)
        for each in (first, second, third):
            each.check()
        for each in (first, second, third):
            each.rest()


def test_a_process_that_is_silent_is_named(of):
    """SIGKILL says no word."""
    with of(0, 3) as first, of(2, 3) as third:
        third.rest()
        with of(1, 3) as second:
            given = wait_for(lambda: first._seen.get(1, (b"", 0))[0])
            second.rest()
        assert given
        assert re.match("process 1 of 3 has given no sign for . seconds: it was killed, or", str(why(first)))


def test_one_that_never_comes_is_waited_for_longer(of):
    began = time.monotonic()
    with of(0) as first:
        assert "process 1 of 2 has given no sign" in str(why(first))
        assert time.monotonic() - began >= 60 * 0.01


def test_what_one_was_refused_for_is_told_by_the_first(of):
    """The others leave without a word, so that it is told once."""
    with of(0, 3) as first, of(2, 3) as third:
        with pytest.raises(LeaderGone), of(1, 3):
            raise UserError("there is no file x")
        assert str(why(first)) == "process 1 of 3 has ended: there is no file x"
        assert isinstance(why(third), LeaderGone)


def test_a_crash_keeps_its_traceback(of):
    with of(0) as first:
        with pytest.raises(ZeroDivisionError), of(1):
            1 / 0  # noqa: B018
        assert str(why(first)) == "process 1 of 2 has ended: ZeroDivisionError: division by zero"


def test_the_first_waits_until_the_others_know(of):
    """The store goes with it."""
    left = []

    def follow():
        try:
            with of(1) as other:
                while not why(other, 0.1):
                    pass
                other.check()
        except LeaderGone:
            left.append(time.monotonic())

    def lead():
        with of(0):
            time.sleep(0.1)
            raise UserError("x")

    following = threading.Thread(target=follow)
    following.start()
    with pytest.raises(UserError, match="x"):
        lead()
    following.join(10)
    assert left


def test_a_broken_connection_has_its_cause_told(of):
    """What training sees first when another process ends."""

    def ends():
        raise UserError("process 1 of 2 has ended with exit code -9, see above")

    def train(look, rests):
        with of(0, look=look) as first:
            if rests:
                first.rest()
            raise RuntimeError("[third_party/gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    with pytest.raises(UserError, match="exit code -9"):
        train(ends, rests=False)
    with pytest.raises(RuntimeError, match="Connection closed"):
        train(ends, rests=True)


def test_who_works_alone_is_ended_too(of):
    """The first trains a teacher; the process that waits for it is killed."""

    def ends():
        raise UserError("process 1 of 2 has ended with exit code -9, see above")

    def work():
        with of(0, look=ends):
            time.sleep(10)

    with ended_by_sigterm():
        for _ in range(2):  # jobs of a sweep
            with pytest.raises(UserError, match="exit code -9"):
                work()
            assert not terminated()


def test_the_signal_may_be_handled_before_the_thread_goes_on(of, monkeypatch):
    """Who is ended for another's end was told that he was interrupted, with the exit code of SIGTERM."""

    def slowly():
        sent = end_from_thread()
        time.sleep(0.2)
        return sent

    def ends():
        raise UserError("process 1 of 2 has ended with exit code -9, see above")

    def work():
        with of(0, look=ends):
            time.sleep(10)

    monkeypatch.setattr(pulse, "end_from_thread", slowly)
    with ended_by_sigterm(), pytest.raises(UserError, match="exit code -9"):
        work()


def test_the_cause_of_a_broken_connection_is_waited_for_on_a_busy_machine(of, monkeypatch):
    """Silence is known after ``LOST`` turns, each longer than ``EVERY``; gloo's own words help nobody."""
    monkeypatch.setattr(pulse, "EVERY", 0.02)
    wait = threading.Event.wait

    def slowly(event, seconds=None):
        time.sleep(0.003)
        return wait(event, seconds)

    monkeypatch.setattr(threading.Event, "wait", slowly)

    def train():
        with of(0) as first:
            with of(1) as second:
                wait_for(lambda: first._seen.get(1, (b"", 0))[0])
                second.rest()
            raise RuntimeError("[third_party/gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    with pytest.raises(UserError, match="has given no sign"):
        train()


def test_who_ends_for_a_reason_of_his_own_keeps_it(of, monkeypatch):
    """A scheduler tells all processes to end; one is a moment earlier."""
    monkeypatch.setattr(pulse, "terminated", lambda: True)

    def ends():
        raise UserError("process 1 of 2 has ended with exit code 143, see above")

    def work():
        with of(0, look=ends):
            time.sleep(0.1)
            raise Terminated

    with pytest.raises(Terminated):
        work()


def test_the_end_of_the_store_is_the_end_of_the_first():
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port = store.port
    with Pulse(
        Seat(1, 2, 1, 0, "slurm"), lambda: TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False)
    ) as other:
        del store
        assert str(why(other)) == "process 0 of 2 has ended without a word"
    assert not dist.is_initialized()
