"""Sockets of a real `live` process, which hears of rows that another process (this one) writes."""

import contextlib
import json
from collections.abc import Iterator

import pytest
from django.test import Client
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from labeling.live.models import Event
from labeling.live.services import notify
from labeling.projects.services import remove_member

pytestmark = pytest.mark.django_db(transaction=True)


def cookie_of(user) -> str:
    client = Client()
    client.force_login(user)
    return f"sessionid={client.cookies['sessionid'].value}"


@contextlib.contextmanager
def socket_of(
    port: int, user=None, *, path: str = "projects/support/", after: int | None = None, origin: str | None = "same"
) -> Iterator[ClientConnection]:
    query = "" if after is None else f"?after={after}"
    headers = {} if user is None else {"Cookie": user if isinstance(user, str) else cookie_of(user)}
    with connect(
        f"ws://127.0.0.1:{port}/live/{path}{query}",
        additional_headers=headers,
        # Pages come from another port of the same host.
        origin="http://127.0.0.1:8000" if origin == "same" else origin,
    ) as socket:
        yield socket


def heard(socket: ClientConnection, seconds: float = 60) -> dict:
    return json.loads(socket.recv(timeout=seconds))


def close_code(socket: ClientConnection) -> int:
    """Read until the other end closes; 1006 where its last words were lost because we were still talking."""
    try:
        while True:
            socket.recv(timeout=60)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 1006


def assert_refused(port: int, *args, **kwargs) -> None:
    with pytest.raises(InvalidStatus) as refusal, socket_of(port, *args, **kwargs):
        pass
    assert refusal.value.response.status_code == 403


def test_an_event_of_another_process_arrives_with_its_id_name_and_payload(live_process, project, lead):
    with socket_of(live_process, lead) as socket:
        assert heard(socket)["hello"] is True
        notify(project.live_group, "snapshot", number=3)
        newest = Event.objects.latest("pk")
        while (message := heard(socket))["name"] != "snapshot":  # those of the fixtures come first
            pass
        assert message == {"id": newest.pk, "name": "snapshot", "payload": {"number": 3}}


def test_pages_of_other_sites_and_people_without_a_place_are_refused(live_process, project, lead, stranger):
    for origin in ("http://evil.example", "null", None, "http://127.0.0.1.evil.example", "file://127.0.0.1"):
        assert_refused(live_process, lead, origin=origin)
    assert_refused(live_process)
    assert_refused(live_process, "sessionid=made-up-by-hand")
    assert_refused(live_process, stranger)
    assert_refused(live_process, lead, path="projects/no-such-project/")
    assert_refused(live_process, lead, path="runs/999/")
    assert_refused(live_process, lead, path="nothing/here/")


def test_an_annotator_hears_of_the_queue_but_not_of_others_judgements(live_process, project, annotator):
    with socket_of(live_process, annotator) as socket:
        heard(socket)
        notify(project.live_group, "judgement")
        notify(project.live_group, "snapshot", number=1)
        notify(project.live_group, "queue")
        names = []
        while "queue" not in names:
            names.append(heard(socket)["name"])
        assert set(names) <= {"project", "guideline", "queue"}


def test_a_page_that_comes_back_gets_what_it_missed_once_and_in_order(live_process, project, lead):
    cookie = cookie_of(lead)
    with socket_of(live_process, cookie) as socket:
        last = heard(socket)["id"]
    for number in range(5):
        notify(project.live_group, "snapshot", number=number)
    notify("project.999999", "snapshot", number=99)
    with socket_of(live_process, cookie, after=last) as socket:
        missed = []
        while not (message := heard(socket)).get("hello"):
            missed.append(message)
        # On PostgreSQL it may hear again what it knew: one with a lower id may have been committed later.
        assert [event["payload"]["number"] for event in missed if event["name"] == "snapshot"] == [0, 1, 2, 3, 4]
        notify(project.live_group, "snapshot", number=5)
        assert heard(socket)["payload"] == {"number": 5}


def test_a_page_that_was_away_too_long_is_told_to_reload(live_process, project, lead):
    for _ in range(3):
        notify(project.live_group, "project")
    first = Event.objects.order_by("pk").first().pk
    Event.objects.filter(pk__lt=first + 2).delete()
    with socket_of(live_process, lead, after=first) as socket:
        assert heard(socket) == {"reload": True}


def test_rights_end_for_open_sockets_with_membership_and_with_the_session(live_process, project, annotator, lead):
    with socket_of(live_process, annotator) as socket:
        heard(socket)
        remove_member(project=project, user=annotator)
        socket.send('{"ping": 1}')
        assert close_code(socket) == 4403
    client = Client()
    client.force_login(lead)
    with socket_of(live_process, f"sessionid={client.cookies['sessionid'].value}") as socket:
        heard(socket)
        client.session.flush()
        socket.send('{"ping": 1}')
        assert close_code(socket) == 4403


def test_malformed_large_and_many_messages_end_their_socket_and_nothing_else(live_process, project, lead):
    cookie = cookie_of(lead)
    bad = [b"\xff\x00", "not json", "[]", '{"ping": 1, "more": 2}', "[" * 50_000, "null", '{"a":']
    with socket_of(live_process, cookie) as bystander:
        heard(bystander)
        for number in range(60):
            with socket_of(live_process, cookie) as socket:
                with contextlib.suppress(ConnectionClosed):
                    for _ in range(20):
                        socket.send(bad[number % len(bad)])
                assert close_code(socket) in (1008, 1006)
        with socket_of(live_process, cookie) as socket:
            socket.send("x" * 70_000)
            assert close_code(socket) in (1009, 1006)
        with socket_of(live_process, cookie) as socket:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(30):
                    socket.send('{"ping": 1}')
            assert close_code(socket) in (4429, 1006)
        notify(project.live_group, "project")
        while heard(bystander)["name"] != "project":
            pass


def test_events_of_one_moment_that_say_the_same_arrive_as_one(live_process, project, lead):
    with socket_of(live_process, lead) as socket:
        heard(socket)
        Event.objects.bulk_create([Event(group=project.live_group, name="judgement") for _ in range(40)])
        newest = Event.objects.latest("pk").pk
        count = 0
        while (message := heard(socket))["id"] <= newest:
            count += message["name"] == "judgement"
            if message["id"] == newest:
                break
        assert 1 <= count <= 2  # two if the table was read between two of its rows
