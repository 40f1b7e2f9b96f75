"""The check beyond what the command line's tests show: users with few rights."""

from __future__ import annotations

from shipper.check import check
from shipper.load import schema
from shipper.load.clickhouse import connect
from tests.conftest import database_settings


async def test_a_user_who_may_not_compare_tables_is_no_fault(restricted_server: str) -> None:
    """A run's user may lack CREATE DATABASE: the migrations are all there, and that is what counts."""
    owner = await connect(database_settings(f"{restricted_server}/audit"))
    await schema.apply(owner)
    await owner.close()
    url = restricted_server.replace("http://", "http://loader:pw@") + "/audit"
    answers = {answer.subject: answer async for answer in check(database_settings(url))}
    assert answers["schema"].ok
    assert answers["schema"].detail == "all migrations applied; this user may not compare the tables"
    assert answers["ClickHouse"].ok
    assert "pw@" not in repr(answers)
