"""The handler by itself. `eventcore plugins test task-scheduler` runs these."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from unittest.mock import AsyncMock, patch

import pytest
from task_scheduler import handler
from task_scheduler.handler import run

from eventcore.testing import plugin_context


@pytest.mark.asyncio
async def test_a_task_is_filed():
    result = await run({"task_title": "Call Grace", "priority": "high", "due_date": "2040-12-31T23:59:59"})
    assert result["success"] is True
    assert result["task_id"].startswith("task_")
    assert (result["task"]["title"], result["task"]["priority"]) == ("Call Grace", "high")
    assert (result["task"]["category"], result["task"]["estimated_duration_minutes"]) == ("communication", 30)


@pytest.mark.asyncio
async def test_a_title_is_needed():
    result = await run({})
    assert result["success"] is False
    assert "task_title is required" in result["error"]


@pytest.mark.asyncio
async def test_storing_can_be_patched():
    with patch("task_scheduler.handler._store_task", new_callable=AsyncMock) as store:
        assert (await run({"task_title": "Tea", "priority": "medium"}))["success"] is True
        store.assert_called_once()


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["2040-01-31T12:00:00Z", "2040-01-31T12:00:00+00:00", "2040-01-31T12:00:00"])
async def test_a_due_date_may_end_in_z(text):
    result = await run({"task_title": "Report", "due_date": text, "priority": "low"})
    assert result["task"]["due_date"] == "2040-01-31T12:00:00+00:00"
    assert result["next_reminder"] == "2040-01-30T12:00:00+00:00"


@pytest.mark.asyncio
async def test_what_is_no_date_or_recurrence_is_said():
    assert (await run({"task_title": "x", "due_date": "soon"}))["error"] == "invalid_due_date"
    assert (await run({"task_title": "x", "recurrence": "now and then"}))["error"] == "invalid_recurrence"
    assert (await run({"task_title": "x", "priority": "whatever"}))["task"]["priority"] == "medium"


def test_reminders_by_priority_and_never_in_the_past():
    now = datetime(2040, 1, 1, tzinfo=UTC)
    due = now + timedelta(days=10)
    days = {name: (handler._reminder(now, due, name) - now) / timedelta(days=1) for name in handler.PRIORITIES}
    assert days == {"low": 9, "medium": 7, "high": 1, "urgent": 1 / 24}
    assert handler._reminder(now, now + timedelta(days=1), "medium") == now + timedelta(hours=1)
    assert handler._reminder(now, None, "urgent") is None


@pytest.mark.asyncio
async def test_what_it_asks_of_its_host():
    with plugin_context() as host:
        result = await run({"task_title": "Water the plants", "recurrence": "weekly", "assignee": "ada"})
    task_id = result["task_id"]
    assert host.memories[0]["result"]["id"] == task_id
    method, plan = host.asked[-1]
    assert (method, plan["name"], plan["cron"], plan["emit"]) == (
        "scheduler.plan",
        task_id,
        "0 9 * * 1",
        "task_reminder",
    )
    assert plan["data"] == {"task_id": task_id, "title": "Water the plants", "assignee": "ada"}
    assert datetime.fromisoformat(result["next_reminder"]).weekday() == 0
