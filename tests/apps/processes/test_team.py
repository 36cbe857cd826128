"""How the processes of a job agree; threads stand for processes."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from kd_lightning.apps.processes.pulse import LeaderGone
from kd_lightning.apps.processes.seat import Seat
from kd_lightning.apps.processes.team import Team, team, working_as
from kd_lightning.errors import UserError


@pytest.fixture
def teams():
    """The views that three processes have of their team."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    others = [TCPStore("127.0.0.1", store.port, is_master=False, wait_for_workers=False) for _ in range(2)]
    return [Team(Seat(rank, 3), found) for rank, found in enumerate([store, *others])]


def at_once(teams, do):
    """Return what each process returns, all of them running at the same time."""
    with ThreadPoolExecutor(len(teams)) as pool:
        return list(pool.map(do, teams))


def test_the_first_decides(teams):
    asked = []

    def decide(rank):
        asked.append(rank)
        return {"folder": "a", "step": 3, "checkpoint": None}

    for _ in range(3):
        found = at_once(teams, lambda each: each.agree(lambda: decide(each.seat.rank)))
        assert found == [{"folder": "a", "step": 3, "checkpoint": None}] * 3
    assert asked == [0, 0, 0]


def test_alone_one_agrees_with_oneself():
    alone = Team(Seat())
    assert alone.leads
    assert alone.agree(lambda: 7) == 7
    alone.wait()
    alone.check_same("settings", "x")


def test_the_first_is_first(teams):
    order = []

    def do(each):
        with each.first():
            if each.leads:
                time.sleep(0.2)
            order.append(each.seat.rank)

    at_once(teams, do)
    assert order[0] == 0
    assert sorted(order) == [0, 1, 2]


def test_different_settings_are_found_by_all(teams):
    """A job whose processes train different things would end well, with numbers that mean nothing."""
    at_once(teams, lambda each: each.check_same("settings", "x"))

    def do(each):
        with pytest.raises(UserError, match=r"process \d has settings [xy], process \d [xy]: start all of them with"):
            each.check_same("settings", "y" if each.seat.rank == 1 else "x")

    at_once(teams, do)


def test_all_part_before_the_store_goes(teams):
    at_once(teams, lambda each: each.part())
    assert teams[0].store.check(["parted/1", "parted/2"])


def test_the_others_end_when_the_first_has():
    """They would wait for ever, and hold their part of the machine."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    other = Team(Seat(1, 2), TCPStore("127.0.0.1", store.port, is_master=False, wait_for_workers=False))
    ended = []

    def wait():
        with pytest.raises(LeaderGone) as found:
            other.wait()
        ended.append(found.value.code)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.3)
    del store
    gc.collect()
    waiting.join(30)
    assert ended == [1]


def test_whoever_waits_looks_after_the_others(teams, monkeypatch):
    """A process that has ended is not waited for."""
    monkeypatch.setattr("kd_lightning.apps.processes.team.LOOK", timedelta(milliseconds=50))

    def gone():
        raise UserError("process 1 of 2 has ended")

    leader = Team(Seat(0, 3), teams[0].store, gone)
    with pytest.raises(UserError, match="process 1 of 2 has ended"):
        leader.check_same("settings", "x")


def test_a_team_is_there_as_long_as_its_work():
    other = Team(Seat(1, 2))
    with working_as(other):
        assert team() is other
    assert team().size == 1
