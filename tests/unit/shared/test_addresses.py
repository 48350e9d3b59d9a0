"""No request is sent to a cloud's metadata service, whatever a name resolves to."""

from datetime import UTC, datetime
from time import monotonic

import pytest

from shared.net.addresses import is_metadata_address, is_private_host, is_public_address, may_be_public_host
from shared.net.call_engine import CallEngine
from shared.net.http_call import Endpoint
from tests.support.raw_http_server import http, sends, serving
from worker.delivery.webhook import Webhook, WebhookRejected


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "169.254.170.2", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "fd00:ec2::254"],
)
def test_addresses_of_metadata_services_are_recognised(address):
    assert is_metadata_address(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "a.name", ""])
def test_other_addresses_and_names_are_not_metadata_services(address):
    assert not is_metadata_address(address)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "127.0.0.2", "::1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "fd00::1", "::ffff:10.0.0.1"),
        *("simulator", "hubspot-mock", "mock.internal", "a.b.local", "x.svc.cluster.local", "MOCK.Internal."),
    ],
)
def test_private_hosts_are_recognised(host):
    assert is_private_host(host)


@pytest.mark.parametrize(
    "host", ["api.hubapi.com", "8.8.8.8", "172.32.0.1", "2001:db8::1", "2852039166", "0x7f000001", "local.example", ""]
)
def test_other_hosts_are_not_private(host):
    assert not is_private_host(host)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200"),
        *("0.0.0.0", "192.0.0.192", "224.0.0.1", "255.255.255.255", "198.18.0.1", "::1", "fe80::1%eth0", "fd00::1"),
        *(
            "::",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:a00:1::",
            "2001:0:a00:1::",
            "ff02::1",
            "name",
        ),
    ],
)
def test_addresses_of_this_machine_of_private_networks_and_for_special_uses_are_not_public(address):
    assert not is_public_address(address)
    assert address == "name" or not may_be_public_host(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_other_addresses_are_public(address):
    assert is_public_address(address)
    assert may_be_public_host(address)


def test_a_name_may_lead_to_a_public_address_unless_it_is_one_of_a_private_network():
    assert may_be_public_host("files.example.com")
    assert not may_be_public_host("files.internal")


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "localhost"])
def test_a_call_to_public_addresses_only_is_not_connected_to_this_machine(host):
    with serving(sends(http(200))) as server:
        engine = CallEngine(max_idle_connections=1)
        url = f"http://{host}:{server.port}/"
        first_reply = engine.call(Endpoint("GET", url), ends_at=monotonic() + 60.0)
        assert first_reply.http_status == 200, "and now there is a connection"
        reply = engine.call(Endpoint("GET", url, is_public_only=True), ends_at=monotonic() + 60.0)
        engine.close()
    assert (reply.http_status, reply.failure) == (0, "address_not_allowed")
    assert len(server.requests) == 1


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376"])
def test_a_host_that_resolves_to_a_metadata_service_is_not_connected_to(host):
    """Spellings that the resolver turns into the address, as a foreign DNS server could."""
    engine = CallEngine(max_idle_connections=1)
    reply = engine.call(Endpoint("GET", f"http://{host}/"), ends_at=monotonic() + 60.0)
    engine.close()
    assert (reply.http_status, reply.failure) == (0, "address_not_allowed")


def test_no_alert_is_posted_to_a_metadata_service():
    with pytest.raises(WebhookRejected, match="no connection"):
        Webhook("http://2852039166/x", ()).post("an-id", b"{}", datetime(2026, 11, 24, tzinfo=UTC))
