"""Messages arrive, at least once, whatever receivers and workers do."""

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings as site
from django.utils.timezone import now

from labeling.live.models import Event
from labeling.live.services import notify
from labeling.web.docs import FOLDER
from labeling.webhooks import delivering
from labeling.webhooks.addresses import Rules
from labeling.webhooks.delivering import (
    CLAIM,
    DISABLE_AFTER,
    MOST_TRIES,
    PAUSES,
    claim_next,
    forget_old_deliveries,
    record,
    send_due,
    try_once,
)
from labeling.webhooks.errors import NotNow, TooManyTests
from labeling.webhooks.events import collect
from labeling.webhooks.models import Delivery, Webhook
from labeling.webhooks.sending import Outcome, send
from labeling.webhooks.services import (
    MOST_TESTS_A_MINUTE,
    change_webhook,
    create_webhook,
    redeliver,
    rotate_secret,
    send_test,
)
from labeling.webhooks.signing import secret_of
from labeling.webhooks.tasks import send_messages
from tests.labeling.webhooks.receiver import Receiver
from tests.ports import free_port
from tests.services.databases import database_url, use_database_file

use_database_file()
pytestmark = pytest.mark.django_db


def say(project, number: int = 1) -> None:
    notify(project.live_group, "run", run=number, state="done")
    collect()


def signatures(secret: str, headers: dict[str, str], body: bytes) -> str:
    """By the text of the Standard Webhooks scheme, apart from our own code."""
    key = base64.b64decode(secret.split("_", 1)[1])
    content = headers["webhook-id"].encode() + b"." + headers["webhook-timestamp"].encode() + b"." + body
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def newest_try() -> dict:
    return Delivery.objects.latest("pk").tries[-1]


# --- one message --------------------------------------------------------------------------------
def test_a_message_arrives_signed_with_its_id_and_the_time(project, listed):
    _, secret = create_webhook(project=project, url=listed.url, events=["run"])
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret)
    notify(project.live_group, "run", run=1, state="done")
    assert send_messages() == 1
    [(headers, body)] = listed.messages
    delivery = Delivery.objects.get()
    assert headers["webhook-signature"] == signatures(secret, headers, body)
    assert headers["webhook-id"] == delivery.message_id == json.loads(body)["id"]
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert headers["content-type"] == "application/json" and headers["host"] == listed.host
    assert (delivery.state, delivery.next_try_at) == ("delivered", None)
    assert [made["status"] for made in delivery.tries] == [204] and delivery.tries[0]["error"] == ""
    assert send_messages() == 0


def test_the_database_holds_no_secret(project, listed):
    webhook, secret = create_webhook(project=project, url=listed.url, events=["run"])
    row = Webhook.objects.filter(pk=webhook.pk).values().get()
    assert secret not in str(row) and secret.split("_", 1)[1] not in str(row)


def test_a_replaced_secret_signs_as_well_until_its_time_is_over(project, listed):
    webhook, old = create_webhook(project=project, url=listed.url, events=["run"])
    new = rotate_secret(webhook=webhook, keep=timedelta(hours=24))
    assert new != old
    say(project)
    send_due()
    headers, body = listed.messages[-1]
    assert headers["webhook-signature"].split() == [signatures(new, headers, body), signatures(old, headers, body)]
    Webhook.objects.update(old_until=now() - timedelta(seconds=1))
    say(project, 2)
    send_due()
    headers, body = listed.messages[-1]
    assert headers["webhook-signature"] == signatures(new, headers, body)


def test_the_receiver_of_the_documentation_takes_what_is_genuine_and_refuses_the_rest(project, settings, tmp_path):
    """The page's own text, run as it stands."""
    [source] = re.findall(r"```python\n(.*?)```", (FOLDER / "webhooks.md").read_text(encoding="utf-8"), re.DOTALL)
    port = free_port()
    settings.WEBHOOK_HOSTS = [f"127.0.0.1:{port}"]
    webhook, secret = create_webhook(project=project, url=f"http://127.0.0.1:{port}/", events=["run"])
    environment = {"PATH": os.environ["PATH"], "WEBHOOK_SECRET": secret, "PORT": str(port)}
    script = tmp_path / "receiver.py"
    script.write_text(source)
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(script)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
        say(project, 7)
        assert send_due() == 1
        assert Delivery.objects.get().state == "delivered"
        assert process.stdout.readline() == "run {'id': '7', 'state': 'done', 'url': '/api/v1/runs/7/'}\n"
        redeliver(delivery=Delivery.objects.get())
        assert send_due() == 1  # taken again, and not done again
        Webhook.objects.update(salt="another")
        assert send_test(webhook=Webhook.objects.get()).tries[-1]["status"] == 401
        old = {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,x"}
        for headers in ({}, old, old | {"webhook-timestamp": "soon"}):
            outcome = send(webhook.url, b"{}", headers, delivering.rules())
            assert outcome.status == 401, headers
    finally:
        process.kill()
        assert process.communicate()[0] == ""


# --- receivers that fail ------------------------------------------------------------------------
@pytest.mark.parametrize(("status", "word"), [
    (200, ""), (202, ""), (204, ""), (299, ""), (301, "redirected"), (304, "redirected"), (400, "refused"), (401, "refused"), (404, "refused"),
    (410, "gone"), (429, "refused"), (500, "refused"), (503, "refused"),
])  # fmt: skip
def test_only_a_status_of_success_counts(status, word):
    with Receiver(says=status) as receiver:
        outcome = send(receiver.url, b"{}", {}, Rules(hosts=[receiver.host]))
    assert (outcome.status, outcome.error) == (status, word)


@pytest.mark.parametrize("says", ["hang", "drip"])
def test_a_receiver_that_hangs_or_drips_is_left_after_the_time(says):
    with Receiver(says=says) as receiver:
        outcome = send(receiver.url, b"{}", {}, Rules(hosts=[receiver.host]), seconds=0.3)
        assert (outcome.status, outcome.error) == (None, "timeout")
        assert outcome.milliseconds >= 300


def test_a_name_server_that_hangs_is_left_after_the_time():
    may_end = threading.Event()
    try:
        outcome = send("https://example.org/", b"{}", {}, Rules(), seconds=0.2, resolve=lambda *_: [may_end.wait(60) and ""])
        assert outcome.error == "timeout"
    finally:
        may_end.set()


def test_an_answer_without_end_is_not_read():
    with Receiver(says="endless") as receiver:
        outcome = send(receiver.url, b"{}", {}, Rules(hosts=[receiver.host]))
        assert outcome.error == "broken_off"  # more headers than any answer has


def test_what_breaks_has_a_word_of_its_own(project):
    with Receiver(says="cut") as receiver:
        assert send(receiver.url, b"{}", {}, Rules(hosts=[receiver.host])).error == "broken_off"
        secure = receiver.url.replace("http:", "https:")
        assert send(secure, b"{}", {}, Rules(hosts=[receiver.host])).error in ("tls", "broken_off")
    port = free_port()
    assert send(f"http://127.0.0.1:{port}/", b"{}", {}, Rules(hosts=[f"127.0.0.1:{port}"])).error == "no_connection"
    assert send("https://nothing.invalid/", b"{}", {}, Rules()).error == "no_such_host"


def test_tls_is_checked_against_the_name_while_the_address_is_the_judged_one(tmp_path, monkeypatch):
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate of this test")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=hook.example", "-addext",
         "subjectAltName=DNS:hook.example", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    names = []
    with Receiver() as receiver:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.sni_callback = lambda connection, name, context: names.append(name)
        receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
        port = receiver.server.server_address[1]

        def to_the_receiver(host: str, port: int) -> list[str]:
            return ["127.0.0.1"]

        rules = Rules(hosts=[f"hook.example:{port}", f"other.example:{port}"])
        outcome = send(f"https://hook.example:{port}/", b"{}", {}, rules, resolve=to_the_receiver)
        assert outcome.is_delivered and receiver.messages[0][0]["host"] == f"hook.example:{port}"
        other = send(f"https://other.example:{port}/", b"{}", {}, rules, resolve=to_the_receiver)
        assert other.error == "tls" and len(receiver.messages) == 1
    assert names == ["hook.example", "other.example"]


def test_nothing_that_a_receiver_says_is_kept(project, webhook, listed):
    listed.says = 500
    say(project)
    send_due()
    kept = str(list(Delivery.objects.values())) + str(list(Webhook.objects.values()))
    assert "of the receiver" not in kept and newest_try().keys() == {"at", "status", "error", "milliseconds"}


# --- tried again --------------------------------------------------------------------------------
def test_a_failed_message_is_tried_eight_times_over_a_day_with_the_same_id_and_body(project, webhook, listed):
    listed.says = 503
    say(project)
    at = began = now()
    waits = []
    for number in range(MOST_TRIES):
        claimed = claim_next(webhook, at)
        record(claimed, try_once(claimed), at)
        delivery = Delivery.objects.get()
        assert len(delivery.tries) == number + 1
        if delivery.state == "failed":
            break
        assert claim_next(webhook, at) is None  # not before its time
        waits.append(delivery.next_try_at - at)
        at = delivery.next_try_at
    assert delivery.state == "failed" and len(listed.messages) == 8 and len(set(listed.ids)) == 1
    assert len({body for _, body in listed.messages}) == 1
    for wait, pause in zip(waits, PAUSES, strict=True):
        assert 0.79 * pause <= wait <= 1.21 * pause
    assert timedelta(hours=18) < at - began < timedelta(hours=31)
    assert claim_next(webhook, at + timedelta(days=9)) is None


def test_a_receiver_that_comes_back_gets_what_waited(project, webhook, listed):
    listed.says = 500
    say(project)
    send_due()
    assert send_due() == 0
    Delivery.objects.update(next_try_at=now())
    listed.says = 200
    assert send_due() == 1
    webhook.refresh_from_db()
    assert Delivery.objects.get().state == "delivered" and webhook.failing_since is None


def test_a_dead_receiver_is_asked_once_a_round_and_holds_up_no_other(project, webhook, listed, settings):
    for number in range(5):
        say(project, number)
    with Receiver(says="cut") as dead:
        settings.WEBHOOK_HOSTS = [listed.host, dead.host]
        create_webhook(project=project, url=dead.url, events=["run"])
        for number in range(5, 10):
            say(project, number)
        send_due()
        assert len(dead.messages) == 1
    assert len(listed.messages) == 10


def test_what_nobody_foresaw_keeps_no_other_message_from_being_sent(project, webhook, listed, monkeypatch):
    other, _ = create_webhook(project=project, url=listed.url, events=["run"])

    def send_or_break(url, body, headers, rules):
        if headers["webhook-id"] == broken.message_id:
            raise RuntimeError("unforeseen")
        return send(url, body, headers, rules)

    say(project)
    broken = webhook.deliveries.get()
    monkeypatch.setattr(delivering, "send", send_or_break)
    assert send_due() == 2
    assert other.deliveries.get().state == "delivered"
    broken.refresh_from_db()
    assert (broken.state, broken.tries[0]["error"]) == ("waiting", "broken_off")


def test_a_webhook_that_fails_for_days_is_switched_off_and_the_leads_are_told(project, lead, webhook, listed, client):
    listed.says = 500
    say(project)
    at = now()
    claimed = claim_next(webhook, at)
    record(claimed, try_once(claimed), at)
    later = at + DISABLE_AFTER
    claimed = claim_next(webhook, later)
    record(claimed, try_once(claimed), later)
    webhook.refresh_from_db()
    assert (webhook.state, webhook.problem) == ("disabled", "nothing has come through for 3 days")
    assert Event.objects.filter(group=project.live_group, name="webhook").exists()
    client.force_login(lead)
    assert "switched a webhook off" in client.get("/projects/support/").content.decode()
    Delivery.objects.update(next_try_at=now())
    assert send_due() == 0
    listed.says = 204
    change_webhook(webhook=webhook, state="active")
    assert send_due() == 1  # what waited was not lost


def test_a_receiver_that_is_gone_is_switched_off_at_once(project, webhook, listed):
    listed.says = 410
    say(project)
    send_due()
    webhook.refresh_from_db()
    assert webhook.state == "disabled" and "410" in webhook.problem


def test_an_outcome_that_comes_after_another_took_over_is_dropped(project, webhook, listed):
    say(project)
    slow = claim_next(webhook)
    other = claim_next(webhook, now() + CLAIM)
    record(other, try_once(other))
    record(slow, Outcome(1, 500, "refused"))
    assert Delivery.objects.get().state == "delivered"


def test_of_two_senders_one_gets_the_message(project, webhook):
    say(project)
    assert claim_next(webhook) is not None
    assert claim_next(webhook) is None


def test_a_message_that_ends_every_sender_is_given_up(project, webhook):
    say(project)
    at = now()
    for _ in range(MOST_TRIES):
        assert claim_next(webhook, at)
        at += CLAIM
    assert claim_next(webhook, at) is None
    assert Delivery.objects.get().state == "failed" and newest_try()["error"] == "sender_lost"


WORKER = """
import django
django.setup()
from labeling.webhooks.delivering import send_due
send_due()
"""


@pytest.mark.django_db(transaction=True)
def test_what_a_killed_worker_was_sending_arrives_again_under_the_same_id(project, webhook, listed):
    listed.says = "hang"
    say(project)
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER], cwd=Path(site.BASE_DIR),
        env={
            **os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", "PREFLOOP_DATABASE_URL": database_url(),
            "PREFLOOP_WEBHOOK_HOSTS": listed.host,
        },
    )  # fmt: skip
    try:
        assert listed.came.acquire(timeout=120)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert Delivery.objects.get().state == "sending"
    assert send_due() == 0  # not before its claim has run out
    listed.says = 204
    Delivery.objects.update(next_try_at=now())
    assert send_due() == 1
    delivery = Delivery.objects.get()
    assert listed.ids == [delivery.message_id] * 2
    assert delivery.state == "delivered" and [made["error"] for made in delivery.tries] == ["sender_lost", ""]


# --- by hand ------------------------------------------------------------------------------------
def test_a_test_shows_what_came_of_it_at_once_and_is_not_tried_again(project, webhook, listed):
    assert send_test(webhook=webhook).state == "delivered"
    listed.says = 500
    failed = send_test(webhook=webhook)
    assert (failed.state, failed.tries[0]["status"], failed.next_try_at) == ("failed", 500, None)
    webhook.refresh_from_db()
    assert webhook.failing_since is None
    assert json.loads(listed.messages[0][1])["data"] == {"id": str(webhook.pk)}


def test_tests_are_limited(project, webhook):
    for _ in range(MOST_TESTS_A_MINUTE):
        send_test(webhook=webhook)
    with pytest.raises(TooManyTests):
        send_test(webhook=webhook)
    assert send_test(webhook=webhook, at=now() + timedelta(minutes=2)).state == "delivered"


def test_a_message_can_be_sent_again_with_all_its_tries_before_it(project, webhook, listed):
    listed.says = 500
    say(project)
    Delivery.objects.update(n_tries=MOST_TRIES - 1)
    send_due()
    delivery = Delivery.objects.get()
    assert delivery.state == "failed"
    listed.says = 204
    redeliver(delivery=delivery)
    assert send_due() == 1
    assert Delivery.objects.get().state == "delivered" and listed.ids == [delivery.message_id] * 2
    redeliver(delivery=Delivery.objects.get())
    claim_next(webhook)
    with pytest.raises(NotNow):
        redeliver(delivery=Delivery.objects.get())


def test_the_log_forgets_what_ended_a_month_ago(project, webhook, listed):
    say(project)
    send_due()
    say(project, 2)
    assert forget_old_deliveries(now() + timedelta(days=29)) == 0
    assert forget_old_deliveries(now() + timedelta(days=31)) == 1
    assert Delivery.objects.get().state == "waiting"


def test_the_secret_is_the_same_for_all_processes_of_a_site(webhook):
    assert secret_of(webhook.salt) == secret_of(webhook.salt) != secret_of("other")
