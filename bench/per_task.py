"""A baseline, `celery -A bench.per_task worker`: one task for each connection, its row through the ORM.

It does less than the product: no encryption, leases, history, retries or events, early acknowledgement, and its queue
is filled in advance. HTTP and database connections are kept alive.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
from celery import Celery, signals
from sqlalchemy import DateTime, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from shared.domain.identity import DEFAULT_APP
from shared.settings import Settings

REFRESH_TASK = "per_task.refresh"
QUEUE = "per_task"
TIMEOUT_SECONDS = 20
DUE_FRACTION = 0.7
settings = Settings.from_env(os.environ, needs=("DATABASE_URL", "REDIS_URL"))  # noqa: TID251  an entry point
hubspot_app = settings.apps[DEFAULT_APP]
app = Celery("per_task", broker=settings.redis_url)
app.conf.update(task_ignore_result=True, task_default_queue=QUEUE, broker_connection_retry_on_startup=True)


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    __table_args__ = {"schema": "per_task"}  # noqa: RUF012  SQLAlchemy expects a dict

    hub_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    refresh_token: Mapped[str]
    access_token: Mapped[str | None]
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    due_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), index=True)


class Resources:
    """Of each process of the pool, created after the fork."""

    sessions: sessionmaker[Session]
    http: requests.Session


@signals.worker_process_init.connect
def _create_resources(**_: Any) -> None:
    url = make_url(settings.database_url).set(drivername="postgresql+psycopg2")
    Resources.sessions = sessionmaker(create_engine(url, pool_size=1))
    Resources.http = requests.Session()


@app.task(name=REFRESH_TASK)
def refresh(hub_id: int) -> None:
    with Resources.sessions.begin() as session:
        account = session.get_one(Account, hub_id)
        reply = Resources.http.post(
            f"{settings.hubspot_api_url}/oauth/{hubspot_app.api_version}/token",
            data={
                "grant_type": "refresh_token",
                "client_id": hubspot_app.client_id,
                "client_secret": hubspot_app.client_secrets[0],
                "refresh_token": account.refresh_token,
            },
            timeout=TIMEOUT_SECONDS,
        )
        reply.raise_for_status()
        grant = reply.json()
        now = datetime.now(UTC)  # noqa: TID251  a baseline needs no injected clock
        account.access_token = grant["access_token"]
        account.refresh_token = grant["refresh_token"]
        account.expires_at = now + timedelta(seconds=grant["expires_in"])
        account.due_at = now + timedelta(seconds=DUE_FRACTION * grant["expires_in"])
