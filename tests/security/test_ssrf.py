"""No address that a lead can write makes the site connect to itself or to the operator's network.

A canary listens on the loopback, and every form is sent to it as the sender would: none may arrive.
"""

import socket
from ipaddress import ip_address

import pytest

from labeling.webhooks.addresses import BadAddress, Rules, check_found, is_public, read_address
from labeling.webhooks.sending import addresses_of, send
from tests.api_caller import Caller
from tests.labeling.webhooks.receiver import Canary, Receiver

# Written with {p} for the canary's port. Resolvers and URL libraries read many of these as 127.0.0.1 or ::1.
LOOPBACK = [
    "127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "127.00.00.01", "127.000.000.001", "0127.0.0.1", "0177.0.0.1", "0177.0.0.01",
    "0177.0000.0000.0001", "00000177.0.0.1", "0x7f.0.0.1", "0X7F.0.0.1", "0x7f.0x0.0x0.0x1", "0x7f.1", "0x7f000001", "0x7F000001",
    "0x0000007f000001", "2130706433", "02130706433", "017700000001", "0o17700000001", "127.0.0.0x1", "127.0.0.01", "127.0.0x0.1",
    "127.0.256", "127.65537", "127.0.0.1.0", "127.0.0.257", "127.255.255.254", "127.127.127.127", "0", "0.0.0.0", "0.0", "0x0", "00", "0.0.0.0.",
    "4294967295", "4294967296", "6425673729", "localhost", "LOCALHOST", "LocalHost", "localhost.", "localhost..", "foo.localhost",
    "localhost.localdomain", "ip6-localhost", "ip6-loopback", "lοcalhost", "ⓛocalhost", "ｌｏｃａｌｈｏｓｔ", "１２７.０.０.１", "①②⑦.⓪.⓪.①",
    "127。0。0。1", "127．0．0．1", "127｡0｡0｡1", "𝟏𝟐𝟕.𝟎.𝟎.𝟏", "127.0.0.1%00", "127.0.0.1%2f", "%31%32%37.0.0.1", "127.0.0.1%20", "127.0.0.1\u200b",
    "[::1]", "[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[::0001]", "[0::1]", "[::]", "[::0]", "[::ffff:127.0.0.1]",
    "[::FFFF:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:7f00:0001]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]", "[::7f00:1]",
    "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:7f00:0001::1]",
    "[2001:0:7f00:1::]", "[::1%lo]", "[::1%25lo]", "[::1%eth0]", "[fe80::1%lo]", "[::ffff:0.0.0.0]", "[::1].", "[::1", "::1]", "::1", "[v1.::1]",
]  # fmt: skip
ELSEWHERE = [
    "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254", "169.254.170.2", "0xa9fea9fe", "2852039166",
    "0251.0376.0251.0376", "169.254.43518", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "[fc00::1]", "[fd00:ec2::254]", "[fe80::1]", "[fec0::1]",
    "[ff02::1]", "[2001:db8::1]", "[3fff::1]", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[2002:a9fe:a9fe::]", "[64:ff9b::a9fe:a9fe]",
    "[100::1]", "[5f00::1]", "metadata.google.internal", "router.local", "db.internal", "postgres", "redis",
]  # fmt: skip
SHAPES = [
    "https://example.org@127.0.0.1:{p}/", "https://example.org:x@127.0.0.1:{p}/", "https://127.0.0.1:{p}@example.org/", "https://@127.0.0.1:{p}/",
    "https://example.org#@127.0.0.1:{p}/", "https://127.0.0.1:{p}#example.org", "https://example.org\\@127.0.0.1:{p}/",
    "https://127.0.0.1:{p}\\@example.org/", "https:\\\\127.0.0.1:{p}/", "https:/127.0.0.1:{p}/", "https:127.0.0.1:{p}/", "https:///127.0.0.1:{p}/",
    "//127.0.0.1:{p}/", "127.0.0.1:{p}", "https://example.org 127.0.0.1:{p}/", "https://example.org\t@127.0.0.1:{p}/",
    "https://127.0.0.1:{p}\r\nHost: example.org/", "https://example.org\r\n127.0.0.1:{p}/", " https://127.0.0.1:{p}/", "https://127.0.0.1\x00:{p}/",
    "http://127.0.0.1:{p}/", "HTTP://127.0.0.1:{p}/", "file:///etc/passwd", "file://127.0.0.1:{p}/", "ftp://127.0.0.1:{p}/",
    "gopher://127.0.0.1:{p}/_GET", "dict://127.0.0.1:{p}/", "ldap://127.0.0.1:{p}/", "data:text/plain,x", "javascript:alert(1)",
    "unix:///run/docker.sock", "jar:https://127.0.0.1:{p}/!/", "wss://127.0.0.1:{p}/", "https://", "https://:{p}/", "https://.:{p}/", "https://..",
    "https://127.0.0.1:0/", "https://127.0.0.1:/", "https://127.0.0.1:{p}{p}/", "https://127.0.0.1:-1/", "https://127.0.0.1:x/", "https://127.0.0.1:{p}?@example.org",
    "https://-127.0.0.1:{p}/", "https://127.0.0.1,example.org:{p}/", "https://{{127.0.0.1}}:{p}/", "https://[127.0.0.1]:{p}/", "https://[[::1]]:{p}/",
]  # fmt: skip


@pytest.fixture(scope="module")
def canary():
    with Canary() as canary:
        yield canary


def forms(port: int) -> list[str]:
    return [f"https://{host}:{port}/" for host in LOOPBACK + ELSEWHERE] + [shape.format(p=port) for shape in SHAPES]


def strict(canary: Canary) -> Rules:
    """The rules as the site comes, but for the port: it is the canary's."""
    return Rules(public_ports={canary.port})


def test_no_form_of_address_reaches_the_canary(canary):
    asked = forms(canary.port)
    assert len(set(asked)) >= 180
    arrived = []
    for url in asked:
        outcome = send(url, b"{}", {}, strict(canary), seconds=2.0)
        if outcome.error not in ("refused_address", "no_such_host") or outcome.status is not None:
            arrived.append((url, outcome))
    assert arrived == []
    assert canary.n_accepted == 0


def test_the_canary_counts_what_is_listed():
    """The test above would pass with a deaf canary, too."""
    with Canary() as canary:
        rules = Rules(hosts=[f"127.0.0.1:{canary.port}", f"[::1]:{canary.port}"])
        for host in ("127.0.0.1", "[::1]"):
            assert send(f"http://{host}:{canary.port}/", b"{}", {}, rules, seconds=5.0).error == "broken_off"
        assert canary.n_accepted == 2


@pytest.mark.parametrize("found", [
    ["127.0.0.1"], ["::1"], ["93.184.216.34", "127.0.0.1"], ["127.0.0.1", "93.184.216.34"], ["::ffff:127.0.0.1"], ["fe80::1%lo"],
    ["0.0.0.0"], ["10.0.0.1"], ["2001:4860:4860::8888", "::1"], ["64:ff9b::7f00:1"], ["not an address"], ["127.0.0.1\n"],
])  # fmt: skip
def test_a_public_name_that_leads_home_is_refused(canary, found):
    outcome = send(f"https://example.org:{canary.port}/", b"{}", {}, strict(canary), resolve=lambda host, port: found)
    assert (outcome.error, canary.n_accepted) == ("refused_address", 0)


def test_a_name_is_resolved_once_so_that_it_cannot_lead_elsewhere_the_second_time(canary, monkeypatch):
    """192.0.2.1 and the like are not public, so the loopback stands in for a public address: judged once, then connected to."""
    asked = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

    monkeypatch.setattr("labeling.webhooks.addresses.is_public", lambda address: str(address) == "127.0.0.2")
    outcome = send(f"https://example.org:{canary.port}/", b"{}", {}, strict(canary), resolve=rebinding)
    assert (outcome.error, asked) == ("no_connection", ["example.org"])
    assert canary.n_accepted == 0


def test_a_redirect_is_an_error_and_is_not_followed(canary):
    for target in (f"http://127.0.0.1:{canary.port}/", f"//127.0.0.1:{canary.port}/", "file:///etc/passwd", "/again"):
        with Receiver(says="redirect", redirect_to=target) as receiver:
            outcome = send(receiver.url, b"{}", {}, Rules(hosts=[receiver.host]))
            assert (outcome.error, outcome.status, len(receiver.messages)) == ("redirected", 307, 1)
    assert canary.n_accepted == 0


def test_a_proxy_in_the_environment_is_not_asked(canary, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
    with Receiver() as receiver:
        assert send(receiver.url, b"{}", {}, Rules(hosts=[receiver.host])).is_delivered
    assert canary.n_accepted == 0


def test_a_listed_host_opens_no_other_port_and_no_other_name():
    rules = Rules(hosts=["ci.internal", "127.0.0.1:8080", "[::1]:8080"])
    for url in ("http://ci.internal/", "https://ci.internal/x?y", "http://CI.internal./", "http://127.0.0.1:8080/", "http://[::1]:8080/"):
        assert read_address(url, rules)
    for url in (
        "http://ci.internal:6379/", "http://127.0.0.1/", "http://127.0.0.1:6379/", "http://x.ci.internal/", "http://ci.internal.example.org/",
        "http://127.1:8080/", "http://0x7f.1:8080/", "http://localhost:8080/", "http://[::1]:6379/", "http://[::ffff:127.0.0.1]:8080/",
    ):  # fmt: skip
        with pytest.raises(BadAddress):
            read_address(url, rules)


def test_without_public_addresses_only_listed_hosts_are_left():
    rules = Rules(hosts=["ci.example.org"], public=False)
    assert read_address("https://ci.example.org/", rules)
    with pytest.raises(BadAddress):
        read_address("https://example.org/", rules)


def test_public_addresses_are_told_from_all_others():
    for text in ("1.1.1.1", "93.184.216.34", "8.8.8.8", "2606:4700:4700::1111", "2001:4860:4860::8888", "2a00:1450:4001:831::200e"):
        assert is_public(ip_address(text)), text
    for host in ELSEWHERE:
        try:
            address = ip_address(host.strip("[]"))
        except ValueError:
            continue
        assert not is_public(address), host


def test_what_is_public_is_connected_to_by_its_address_alone():
    target = read_address("https://EXAMPLE.org:8443/a?b=c", Rules())
    assert (target.host, target.port, target.path, target.authority) == ("example.org", 8443, "/a?b=c", "example.org:8443")
    assert read_address("https://bücher.example/", Rules()).host == "xn--bcher-kva.example"
    assert list(map(str, check_found(["1.1.1.1", "2606:4700:4700::1111"], target, Rules()))) == ["1.1.1.1", "2606:4700:4700::1111"]


def test_localhost_does_lead_to_the_canary_where_nobody_looks():
    """That the resolver of this machine knows the name, so that the refusals above are not those of a machine without one."""
    assert {"127.0.0.1", "::1"} & set(addresses_of("localhost", 80))
    assert socket.getaddrinfo("127.1", 80, type=socket.SOCK_STREAM)[0][4][0] == "127.0.0.1"


@pytest.mark.django_db
def test_a_webhook_to_any_of_them_is_refused_or_never_arrives(project, lead, canary):
    caller = Caller(lead)
    for url in forms(canary.port) + [url.replace(f":{canary.port}", "") for url in forms(canary.port)]:
        answer = caller.post("projects/support/webhooks/", {"url": url, "events": ["run"]})
        if answer.status_code == 201:
            # A name that the reader can't know to be private: the sender's look at its addresses decides.
            tested = caller.post(f"webhooks/{answer.json()['id']}/test/").json()
            assert tested["tries"][0]["error"] in ("refused_address", "no_such_host"), url
            caller.call("DELETE", f"webhooks/{answer.json()['id']}/")
        else:
            assert answer.status_code == 400, url
    assert canary.n_accepted == 0
