import pytest

from labeling.live import tail
from labeling.live.models import Event
from labeling.live.routing import origin_is_ours
from labeling.live.tail import Tailer, Watcher, missed_events, squeezed


def test_ids_that_commit_late_are_asked_for_again(monkeypatch):
    monkeypatch.setattr(tail, "connection", type("Postgres", (), {"vendor": "postgresql"}))
    tailer = Tailer()
    tailer.top = 10
    tailer._note_missing([12, 15])
    assert (tailer.top, set(tailer.missing)) == (15, {11, 13, 14})
    tailer._note_missing([13])
    assert (tailer.top, set(tailer.missing)) == (15, {11, 14})
    tailer.missing[11] = 0.0  # its time is over: that transaction was rolled back
    tailer._note_missing([])
    assert set(tailer.missing) == {14}


def test_a_socket_that_does_not_keep_up_is_told_to_reload():
    watcher = Watcher("project.1", None)
    for number in range(tail.MAX_WAITING + 3):
        watcher.put({"id": number})
    assert watcher.queue.qsize() == 3
    assert watcher.queue.get_nowait() == {"reload": True}


def test_events_that_say_the_same_become_the_newest_of_them():
    events = [
        Event(pk=1, name="judgement"), Event(pk=2, name="run", payload={"id": 1}), Event(pk=3, name="judgement"),
        Event(pk=4, name="run", payload={"id": 2}),
    ]  # fmt: skip
    assert [message["id"] for message in squeezed(events)] == [2, 3, 4]


@pytest.mark.django_db
def test_too_many_missed_events_mean_a_reload():
    Event.objects.bulk_create([Event(group="run.1", name="metric", payload={"n": n}) for n in range(501)])
    first = Event.objects.order_by("pk").first().pk
    assert missed_events("run.1", first - 1, None) is None
    assert missed_events("run.1", first, frozenset({"status"})) == ([], set())
    Event.objects.filter(pk__gt=first + 490).delete()
    messages, covered = missed_events("run.1", first, None)
    assert 490 <= len(messages) == len(covered) <= 491  # PostgreSQL looks back once more


@pytest.mark.parametrize(
    ("origin", "host", "ours"),
    [
        (b"http://localhost:8000", b"localhost:8001", True),
        (b"https://localhost", b"localhost", True),
        (b"http://[::1]:8000", b"[::1]:8001", True),
        (b"http://LOCALHOST", b"localhost", True),
        (b"http://localhost", b"127.0.0.1", False),
        (b"http://evil.example", b"evil.example", False),  # not in ALLOWED_HOSTS
        (b"http://localhost@evil.example", b"localhost", False),
        (b"http://localhost.evil.example", b"localhost", False),
        (b"null", b"localhost", False),
        (b"", b"localhost", False),
        (b"http://", b"", False),
        (b"\xff", b"localhost", False),
    ],
)
def test_only_the_same_host_may_open_sockets(origin, host, ours):
    assert origin_is_ours(origin, host) is ours
