"""What most people would write: `celery -A bench.per_task worker`. One task per connection, its row through the ORM.

Fair, even generous: it seals nothing, has no leases and no history, leaves retries out, sends no events, acknowledges
early, and finds its queue filled. Its calls go through a session that keeps its connection; so do its statements.
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

from shared.settings import Settings

REFRESH = "per_task.refresh"
QUEUE = "per_task"
settings = Settings.from_env(os.environ, needs=("DATABASE_URL", "REDIS_URL"))  # noqa: TID251  an entry point
app = Celery("per_task", broker=settings.redis_url)
app.conf.update(task_ignore_result=True, task_default_queue=QUEUE, broker_connection_retry_on_startup=True)


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    __table_args__ = {"schema": "per_task"}  # noqa: RUF012  SQLAlchemy's own way

    hub_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    refresh_token: Mapped[str]
    access_token: Mapped[str | None]
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    due_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), index=True)


class Hands:
    """What each process of the pool works with, made after the fork."""

    rows: sessionmaker[Session]
    http: requests.Session


@signals.worker_process_init.connect
def _start(**_: Any) -> None:
    url = make_url(settings.database_url).set(drivername="postgresql+psycopg2")
    Hands.rows = sessionmaker(create_engine(url, pool_size=1))
    Hands.http = requests.Session()
    Hands.http.trust_env = False


@app.task(name=REFRESH)
def refresh(hub_id: int) -> None:
    with Hands.rows.begin() as rows:
        account = rows.get_one(Account, hub_id)
        reply = Hands.http.post(
            f"{settings.hubspot_api_url}/oauth/{settings.hubspot_api_version}/token",
            data={
                "grant_type": "refresh_token",
                "client_id": settings.hubspot_client_id,
                "client_secret": settings.hubspot_client_secrets[0],
                "refresh_token": account.refresh_token,
            },
            timeout=20,
        )
        reply.raise_for_status()
        grant = reply.json()
        now = datetime.now(UTC)  # noqa: TID251  as most people would
        account.access_token = grant["access_token"]
        account.refresh_token = grant["refresh_token"]
        account.expires_at = now + timedelta(seconds=grant["expires_in"])
        account.due_at = now + timedelta(seconds=0.7 * grant["expires_in"])
