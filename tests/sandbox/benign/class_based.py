"""A class with settings, state between calls, and a cleanup."""

CLASS = "Counter"
EXPECTED = {"calls": 1, "step": 1}


class Counter:
    def __init__(self, config):
        self.step = config.get("step", 1)
        self.calls = 0

    def initialize(self):
        return True

    def execute(self, params):
        self.calls += self.step
        return {"calls": self.calls, "step": self.step}

    def cleanup(self):
        self.calls = 0
