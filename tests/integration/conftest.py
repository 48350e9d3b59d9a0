"""Fixtures for tests of the stores (engine, stores, a superuser's connection), and a certificate for servers."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine

from shared.db.core.engine import make_engine as connect_engine
from shared.db.reports.connections import ConnectionReports
from tests.support.databases import Databases
from tests.support.stores import ConnectionFixture, SqlFixture, Stores


@pytest.fixture
def engine(databases: Databases, database_url: str) -> Iterator[Engine]:
    """With the worker's login, so that the tests check its privileges."""
    engine = connect_engine(databases.as_worker(database_url), pool_size=10)
    with databases.lend_connection(engine, database_url):
        yield engine
    engine.dispose()


@pytest.fixture
def stores(engine: Engine) -> Stores:
    return Stores(engine, lease_seconds=60)


@pytest.fixture
def reports(engine: Engine) -> ConnectionReports:
    return ConnectionReports(engine)


@pytest.fixture
def sql(connect: Callable[..., Any]) -> SqlFixture:
    return SqlFixture(connect())


@pytest.fixture
def connections(stores: Stores, sql: SqlFixture) -> ConnectionFixture:
    return ConnectionFixture(stores, sql)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokenkeeper test")])
    start = datetime.now(UTC) - timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=3))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(serialization.Encoding.PEM, *form)
    path.write_bytes(pem)
    return path


@pytest.fixture
def self_signed_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def tls(self_signed_tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return self_signed_tls
