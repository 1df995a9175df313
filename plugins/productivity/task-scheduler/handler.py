"""Answers the intent `schedule_task`: files a task in memory and plans its reminder."""

from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from croniter import croniter

from eventcore.sdk import bound, ctx

logger = logging.getLogger(__name__)

PRIORITIES = ("low", "medium", "high", "urgent")
MAX_TITLE = 500

#: Recurrence -> cron pattern, in UTC. Any other text is read as a cron pattern itself.
CRON = {"hourly": "0 * * * *", "daily": "0 9 * * *", "weekly": "0 9 * * 1", "monthly": "0 9 1 * *"}

#: Kind -> (words that tell it, minutes that it usually takes), the first that fits.
KINDS: dict[str, tuple[tuple[str, ...], int]] = {
    "communication": (("meeting", "call", "discuss", "present", "talk"), 30),
    "development": (("code", "develop", "program", "bug", "feature"), 120),
    "documentation": (("report", "analysis", "research", "document"), 60),
    "review": (("review", "approve", "check", "verify"), 45),
    "deployment": (("deploy", "release", "publish", "launch"), 90),
}
USUAL_MINUTES = 60
HARD = ("complex", "difficult", "challenging", "comprehensive", "detailed")

__plugin_info__ = {
    "name": "task_scheduler",
    "version": "1.0.0",
    "description": "Files tasks and reminds of them",
    "author": "EventCore",
    "capabilities": ["task_creation", "categorization", "duration_estimation", "reminders", "recurrence"],
}


async def run(params: dict[str, Any]) -> dict[str, Any]:
    """File a task.

    Args:
        params: `task_title` (required), `task_description`, `due_date` (ISO 8601; UTC where it names no offset),
            `priority` (low, medium, high, urgent; default medium), `recurrence` (hourly, daily, weekly, monthly or a
            cron pattern), `assignee`, `tags` (list of text).

    Returns:
        `success`, `task_id`, `task`, `scheduled_time`, `next_reminder`, `message`; or `success: false`, `error`,
        `message`.
    """
    try:
        task = await _task(params)
    except ValueError as error:
        return {"success": False, "error": str(error.args[0]), "message": str(error.args[-1])}
    await _store_task(task)
    if task["next_reminder"]:
        await _schedule_reminder(task["id"], datetime.fromisoformat(task["next_reminder"]), task)
    logger.info("filed %s: %s", task["id"], task["title"])
    return {
        "success": True,
        "task_id": task["id"],
        "task": task,
        "scheduled_time": task["created_at"],
        "next_reminder": task["next_reminder"],
        "message": f"Task '{task['title']}' is filed with {task['priority']} priority",
    }


async def _task(params: dict[str, Any]) -> dict[str, Any]:
    """The task that the parameters describe.

    Raises:
        ValueError: (code, message) of what is wrong with them.
    """
    title, description = _text(params, "task_title")[:MAX_TITLE], _text(params, "task_description")
    if not title:
        raise ValueError("task_title is required", "say what is to be done, as task_title")
    tags = [str(tag) for tag in params.get("tags") or ()]
    now = datetime.now(UTC)
    due, priority, recurrence = _due(params.get("due_date")), _priority(params), _text(params, "recurrence").lower()
    category = await _categorize_task(title, description, tags)
    reminder = _first(recurrence, now) if recurrence else _reminder(now, due, priority)
    return {
        "id": f"task_{uuid.uuid4().hex[:8]}",
        "title": title,
        "description": description,
        "due_date": due.isoformat() if due else None,
        "priority": priority,
        "category": category,
        "estimated_duration_minutes": await _estimate_duration(title, description, category),
        "recurrence": recurrence or None,
        "assignee": params.get("assignee"),
        "tags": tags,
        "status": "scheduled",
        "created_at": now.isoformat(),
        "next_reminder": reminder.isoformat() if reminder else None,
    }


def _text(params: dict[str, Any], name: str) -> str:
    value = params.get(name) or ""
    return value.strip() if isinstance(value, str) else ""


def _priority(params: dict[str, Any]) -> str:
    wanted = _text(params, "priority").lower() or "medium"
    if wanted in PRIORITIES:
        return wanted
    logger.warning("there is no priority %r; taking medium", wanted[:40])
    return "medium"


def _due(text: Any) -> datetime | None:
    if not text:
        return None
    try:
        due = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        message = f"{str(text)[:40]!r} is no date; write one like 2026-12-31T18:00:00Z"
        raise ValueError("invalid_due_date", message) from None
    return due if due.tzinfo is not None else due.replace(tzinfo=UTC)


def _reminder(now: datetime, due: datetime | None, priority: str) -> datetime | None:
    """When to remind of a task that comes once; never in the past, and not at all without a due date."""
    if due is None:
        return None
    wanted = {
        "urgent": now + timedelta(hours=1),
        "high": now + timedelta(days=1),
        "medium": due - timedelta(days=3),
        "low": due - timedelta(days=1),
    }[priority]
    return wanted if wanted > now else now + timedelta(hours=1)


def _first(recurrence: str, now: datetime) -> datetime:
    pattern = CRON.get(recurrence, recurrence)
    if len(pattern) > 100 or len(pattern.split()) != 5 or not croniter.is_valid(pattern):
        message = f"{recurrence[:40]!r} is no recurrence; use {', '.join(CRON)} or a cron pattern"
        raise ValueError("invalid_recurrence", message)
    first: datetime = croniter(pattern, now).get_next(datetime)
    return first


async def _categorize_task(title: str, description: str, tags: list[str]) -> str:
    """The kind of a task, by words in its title, description and tags."""
    text = f"{title} {description} {' '.join(tags)}".lower()
    return next((kind for kind, (words, _) in KINDS.items() if any(word in text for word in words)), "general")


async def _estimate_duration(title: str, description: str, category: str) -> int:
    """Minutes: what the kind usually takes, half as much again for a hard one, up to thrice that for a long story."""
    minutes = float(KINDS[category][1] if category in KINDS else USUAL_MINUTES)
    if any(word in title.lower() for word in HARD):
        minutes *= 1.5
    return int(minutes * (1 + min(len(description) / 100, 2.0)))


async def _store_task(task: dict[str, Any]) -> None:
    """Remember the task. Outside a host, as in a test of this file alone, it is only logged."""
    if bound() is None:
        logger.info("not in a host: %s is not remembered", task["id"])
        return
    await ctx.memory.write(f"task {task['id']} {task['title']}", task)


async def _schedule_reminder(task_id: str, reminder_time: datetime, task: dict[str, Any] | None = None) -> None:
    """Plan the event `task_reminder` for that time, and again and again if the task recurs."""
    if bound() is None:
        logger.info("not in a host: no reminder of %s is planned", task_id)
        return
    task = task or {}
    data = {"task_id": task_id, "title": task.get("title"), "assignee": task.get("assignee")}
    when: dict[str, Any] = {"at": reminder_time}
    if recurrence := task.get("recurrence"):
        when = {"cron": CRON.get(recurrence, recurrence)}
    await ctx.schedule(task_id, emit="task_reminder", data=data, **when)
