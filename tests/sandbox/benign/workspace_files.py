"""Writes a report into the folder it was granted, by way of a temporary file that takes its place."""

import json
import os
from pathlib import Path

EXPECTED = {"report": {"n": 1}, "files": ["report.json"]}


def run(params):
    place = Path(params["workspace"])
    with open(place / "report.json.new", "w") as file:
        json.dump({"n": 1}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(place / "report.json.new", place / "report.json")
    return {"report": json.loads((place / "report.json").read_text()), "files": os.listdir(place)}
