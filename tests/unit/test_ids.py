"""Identifiers."""

from __future__ import annotations

import uuid

from eventcore.kernel.ids import UUID7, SystemRandomness, step_key


class SetClock:
    """A clock that stands where it is put."""

    def __init__(self, at: float) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def test_form_of_rfc_9562() -> None:
    parsed = uuid.UUID(text := UUID7(SetClock(1_700_000_000.123), SystemRandomness()).new())
    assert str(parsed) == text
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == 1_700_000_000_123


def test_ascending_and_unique_within_a_millisecond() -> None:
    ids = UUID7(SetClock(1_700_000_000.0), SystemRandomness())
    made = [ids.new() for _ in range(10_000)]
    assert made == sorted(made)
    assert len(set(made)) == 10_000
    assert all(uuid.UUID(text).version == 7 for text in made)


def test_ascending_when_the_clock_steps_back() -> None:
    clock = SetClock(1_700_000_000.0)
    ids = UUID7(clock, SystemRandomness())
    made = [ids.new()]
    for at in (1_699_999_000.0, 1_699_999_999.9, 1_700_000_000.0, 1_700_000_000.001):
        clock.at = at
        made.append(ids.new())
    assert made == sorted(set(made))


def test_two_generators_differ() -> None:
    clock = SetClock(1_700_000_000.0)
    assert UUID7(clock, SystemRandomness()).new() != UUID7(clock, SystemRandomness()).new()


def test_step_key() -> None:
    assert step_key("r1", "notify[3]/inner") == step_key("r1", "notify[3]/inner", 0)
    others = {
        step_key("r1", "a"),
        step_key("r2", "a"),
        step_key("r1", "b"),
        step_key("r1", "a", 1),
        step_key("r", "1a"),
    }
    assert len(others) == 5
    assert len(step_key("r1", "a")) == 32


def test_randomness() -> None:
    randomness = SystemRandomness()
    assert 0 <= randomness.random() < 1
    assert 0 <= randomness.bits(8) < 256
    assert randomness.token() != randomness.token()
