"""The simulator's faults have their documented effect, and its counters are exact."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from sandbox.simulator.control import ControlFailed
from tests.support.simulator import APP, HUB, SimulatorFixture, run_simulator

DRIP_SECONDS = 0.001


@pytest.fixture
def simulator() -> Iterator[SimulatorFixture]:
    with run_simulator() as fixture:
        yield fixture


@pytest.fixture
def token(simulator: SimulatorFixture) -> str:
    return simulator.control.install(HUB)


def wait_until_received(simulator: SimulatorFixture, number: int) -> None:
    deadline = time.monotonic() + 30
    while sum(hub["refreshes"] for hub in simulator.control.get_stats()["by_hub"].values()) != number:
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("bad_refresh_token", "BAD_REFRESH_TOKEN", "invalid_grant"),
        ("bad_hub", "BAD_HUB", "access_denied"),
        ("bad_client_id", "BAD_CLIENT_ID", "invalid_request"),
        ("bad_client_secret", "BAD_CLIENT_SECRET", "invalid_client"),
        ("bad_auth_code", "BAD_AUTH_CODE", "invalid_grant"),
        ("expired_auth_code", "EXPIRED_AUTH_CODE", "invalid_grant"),
        ("mismatch_redirect_uri_auth_code", "MISMATCH_REDIRECT_URI_AUTH_CODE", "invalid_grant"),
        ("bad_grant_type", "BAD_GRANT_TYPE", "unsupported_grant_type"),
        ("unknown_refusal", "UNKNOWN_REFUSAL", "no_such_word_in_any_table"),
    ],
)
def test_every_refusal_can_be_requested_as_a_fault(
    simulator: SimulatorFixture, token: str, kind: str, status: str, error: str
) -> None:
    simulator.control.add_fault(kind, times=1)
    reply = simulator.refresh(token)
    assert (reply.status_code, reply.json()["status"], reply.json()["error"]) == (400, status, error)
    assert simulator.refresh(token).ok


@pytest.mark.parametrize("status", [401, 403, 423, 429, 477, 500, 502, 503, 504, 524])
@pytest.mark.parametrize("retry_after", [None, "7"])
def test_http_errors_are_json_with_or_without_retry_after(
    simulator: SimulatorFixture, token: str, status: int, retry_after: str | None
) -> None:
    simulator.control.add_fault(status, retry_after=retry_after)
    reply = simulator.refresh(token)
    assert (reply.status_code, reply.headers.get("Retry-After")) == (status, retry_after)
    assert reply.json()["message"]


def test_the_migration_message_is_sent_with_status_477_and_with_400(simulator: SimulatorFixture, token: str) -> None:
    simulator.control.add_fault(477, times=1)
    simulator.control.add_fault("migration_as_400", times=1)
    replies = [simulator.refresh(token) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [477, 400]
    assert all(reply.json()["message"].startswith("Migration in progress") for reply in replies)


@pytest.mark.parametrize(("kind", "status"), [("html_200", 200), ("html_403", 403), ("html_503", 503)])
def test_html_can_be_sent_instead_of_json(simulator: SimulatorFixture, token: str, kind: str, status: int) -> None:
    simulator.control.add_fault(kind)
    reply = simulator.refresh(token)
    assert reply.status_code == status
    assert reply.headers["Content-Type"].startswith("text/html")
    assert reply.text.startswith("<!DOCTYPE html>")


def test_a_success_can_be_empty_or_broken_or_without_a_grant_or_huge(simulator: SimulatorFixture, token: str) -> None:
    for kind in ("empty_200", "no_grant", "truncated", "huge"):
        simulator.control.add_fault(kind, times=1)
    empty, no_grant, truncated, huge = (simulator.refresh(token) for _ in range(4))
    assert (empty.status_code, empty.content) == (200, b"")
    assert (no_grant.status_code, no_grant.json()) == (200, {})
    with pytest.raises(json.JSONDecodeError):
        json.loads(truncated.text)
    assert len(huge.content) > 2 * 1024 * 1024
    assert huge.json()["access_token"]


def test_a_grant_can_have_wrong_types_a_negative_life_or_another_hub(simulator: SimulatorFixture, token: str) -> None:
    for kind in ("wrong_types", "negative_expires_in", "wrong_hub"):
        simulator.control.add_fault(kind, times=1)
    wrong_types, negative, wrong_hub = (simulator.refresh(token).json() for _ in range(3))
    assert wrong_types["access_token"] == 12345
    assert negative["expires_in"] < 0
    assert wrong_hub["hub_id"] == HUB + 1


def test_a_fault_applies_only_to_its_endpoint_its_grant_and_its_account(
    simulator: SimulatorFixture, token: str
) -> None:
    other = simulator.control.install(7)
    simulator.control.add_fault(503, where="introspect", hub_id=HUB)
    simulator.control.add_fault(500, grant="code")
    assert simulator.refresh(token).ok
    assert simulator.post("token/introspect", token=token).status_code == 503
    assert simulator.post("token/introspect", token=other).ok
    assert simulator.exchange(simulator.get_code()).status_code == 500
    simulator.control.clear_faults()
    simulator.control.add_fault(502, where="all", hub_id=7)
    assert simulator.refresh(token).ok
    assert simulator.refresh(other).status_code == 502
    assert simulator.control.list_faults()[0]["hits"] == 1


def test_a_fault_with_probability_0_never_applies_and_with_1_always(simulator: SimulatorFixture, token: str) -> None:
    simulator.control.add_fault(503, probability=0)
    assert simulator.refresh(token).ok
    simulator.control.add_fault(503, probability=1)
    assert simulator.refresh(token).status_code == 503


def test_a_fault_applies_exactly_as_often_as_requested_to_concurrent_calls(
    simulator: SimulatorFixture, token: str
) -> None:
    simulator.control.add_fault(503, times=25)
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: refresh_on_new_connection(simulator, token), range(60)))
    assert codes.count(503) == 25
    assert simulator.control.get_stats()["calls"]["token/refresh"] == {"http_503": 25, "ok": 35}


def refresh_on_new_connection(simulator: SimulatorFixture, token: str) -> int:
    form = {"grant_type": "refresh_token", "refresh_token": token, **APP}
    return requests.post(f"{simulator.url}/oauth/v3/token", data=form, timeout=60).status_code


def test_a_reset_fault_resets_the_connection_and_does_no_work(simulator: SimulatorFixture) -> None:
    code = simulator.get_code()
    simulator.control.add_fault("reset", times=1)
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        simulator.exchange(code)
    assert simulator.exchange(code).ok


def test_a_lost_answer_belongs_to_a_request_that_succeeded(simulator: SimulatorFixture) -> None:
    code = simulator.get_code()
    simulator.control.add_fault("lost", times=1)
    with pytest.raises(requests.ConnectionError):
        simulator.exchange(code)
    assert simulator.exchange(code).json()["status"] == "BAD_AUTH_CODE"
    assert simulator.control.get_stats()["calls"]["token/code"] == {"lost": 1, "BAD_AUTH_CODE": 1}


def test_a_lost_answer_with_rotation_leaves_the_old_refresh_token_revoked(
    simulator: SimulatorFixture, token: str
) -> None:
    simulator.control.change_settings(rotation=0)
    simulator.control.add_fault("lost", times=1)
    with pytest.raises(requests.ConnectionError):
        simulator.refresh(token)
    assert simulator.refresh(token).json()["status"] == "BAD_REFRESH_TOKEN"


def test_a_cut_answer_is_shorter_than_its_content_length(simulator: SimulatorFixture, token: str) -> None:
    simulator.control.add_fault("cut", times=1)
    with simulator.send_refresh(token) as connection:
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert 0 < len(body) < length


def test_a_slow_answer_is_delayed_and_complete(simulator: SimulatorFixture, token: str) -> None:
    simulator.control.add_fault("slow", seconds=0.4, times=1)
    start = time.monotonic()
    assert simulator.refresh(token).ok
    assert time.monotonic() - start >= 0.4


def test_every_fault_can_be_delayed(simulator: SimulatorFixture, token: str) -> None:
    simulator.control.add_fault("bad_refresh_token", seconds=0.3)
    start = time.monotonic()
    assert simulator.refresh(token).status_code == 400
    assert time.monotonic() - start >= 0.3


def test_a_dripping_answer_is_sent_byte_by_byte_headers_included(simulator: SimulatorFixture, token: str) -> None:
    start = time.monotonic()
    simulator.control.add_fault("drip", seconds=DRIP_SECONDS)
    with simulator.send_refresh(token) as connection:
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    # Not by the pieces that arrive: where this process has to wait for its turn, many bytes arrive together.
    assert time.monotonic() - start >= (len(received) - 1) * DRIP_SECONDS
    assert received.startswith(b"HTTP/1.1 200")
    assert received.partition(b"\r\n\r\n")[2].endswith(b"}")


def test_latency_can_be_a_number_or_a_range(simulator: SimulatorFixture, token: str) -> None:
    for latency in (0.2, [0.2, 0.25]):
        simulator.control.change_settings(HUB, latency=latency)
        start = time.monotonic()
        assert simulator.refresh(token).ok
        assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "no_such"}, {"kind": 200}, {"kind": 503, "where": "moon"}, {"kind": 503, "times": 0},
        {"kind": 503, "probability": 2}, {"kind": "slow", "seconds": -1}, {"kind": 429, "retry_after": "1\r\nX: y"},
    ],
)  # fmt: skip
def test_an_invalid_fault_is_refused(simulator: SimulatorFixture, wrong: dict[str, object]) -> None:
    with pytest.raises(ControlFailed, match="HTTP 400"):
        simulator.control.add_fault(**wrong)  # type: ignore[arg-type]
    assert simulator.control.list_faults() == []


# Counters


def test_calls_are_counted_by_endpoint_outcome_account_and_second(simulator: SimulatorFixture, token: str) -> None:
    simulator.control.reset()
    simulator.exchange(simulator.get_code())
    for _ in range(3):
        simulator.refresh(token)
    simulator.refresh("dead")
    simulator.introspect(token)
    stats = simulator.control.get_stats()
    assert stats["calls"] == {
        "token/code": {"ok": 1}, "token/refresh": {"ok": 3, "BAD_REFRESH_TOKEN": 1}, "introspect": {"ok": 1},
    }  # fmt: skip
    assert stats["by_hub"][str(HUB)] == {"refreshes": 3, "exchanges": 1, "in_flight": 0, "most_in_flight": 1}
    assert sum(second["token"] for second in stats["per_second"]) == 5
    assert sum(second.get("other", 0) for second in stats["per_second"]) == 1
    simulator.control.reset()
    assert simulator.control.get_stats()["calls"] == {}


def test_sequential_refreshes_are_never_counted_as_overlapping(simulator: SimulatorFixture) -> None:
    """Each of 8 threads sends the next refresh of its account as soon as the last is answered."""
    tokens = list(simulator.control.install_many(8).values())

    def refresh_repeatedly(token: str) -> None:
        for _ in range(40):
            assert simulator.refresh(token).ok

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(refresh_repeatedly, tokens))
    stats = simulator.control.get_stats()
    assert stats["calls"]["token/refresh"] == {"ok": 320}
    assert (stats["most_refreshes_of_one_hub"], stats["violations"]) == (1, 0)


def test_two_concurrent_refreshes_of_one_account_are_reported(simulator: SimulatorFixture, token: str) -> None:
    simulator.control.add_fault("slow", seconds=60, times=1)
    with simulator.send_refresh(token):
        simulator.wait_until_in_flight(1)
        with simulator.send_refresh(token) as second:
            assert second.recv(10) == b"HTTP/1.1 2"
    stats = simulator.control.get_stats()
    assert (stats["most_refreshes_of_one_hub"], stats["violations"]) == (2, 1)
    details = stats["violation_details"][0]
    assert details["hub_id"] == HUB
    assert len(details["others_began_seconds_ago"]) == 1


def test_a_client_that_closes_its_connection_and_repeats_its_call_is_no_overlap(
    simulator: SimulatorFixture, token: str
) -> None:
    simulator.control.add_fault("slow", seconds=20, times=5)
    for number in range(1, 6):
        connection = simulator.send_refresh(token)
        wait_until_received(simulator, number)  # the call in flight may still be the one before
        connection.close()
    assert simulator.refresh(token).ok
    stats = simulator.control.get_stats()
    assert stats["calls"]["token/refresh"] == {"client_gone": 5, "ok": 1}
    assert (stats["most_refreshes_of_one_hub"], stats["violations"], stats["in_flight"]) == (1, 0, 0)


def test_calls_in_flight_are_still_counted_after_a_reset(simulator: SimulatorFixture, token: str) -> None:
    simulator.control.add_fault("slow", seconds=60, times=1)
    with simulator.send_refresh(token):
        simulator.wait_until_in_flight(1)
        simulator.control.reset()
        assert simulator.refresh(token).ok
    assert simulator.control.get_stats()["violations"] == 1


def test_hundreds_of_slow_calls_are_handled_concurrently(simulator: SimulatorFixture) -> None:
    tokens = list(simulator.control.install_many(300).values())
    simulator.control.add_fault("held")
    connections = [simulator.send_refresh(token) for token in tokens]
    simulator.wait_until_in_flight(300)
    simulator.control.clear_faults()
    for connection in connections:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.close()
    stats = simulator.control.get_stats(by_hub=False)
    assert stats["calls"]["token/refresh"] == {"ok": 300}
    assert (stats["by_hub"], stats["most_in_flight"]) == ({}, 300)
