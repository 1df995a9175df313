"""Wants to run a program, and gets an error that can be caught."""

import os
import subprocess

EXPECTED = {"run": "PermissionError", "system": True, "version": "no git"}


def _version():
    try:
        return subprocess.check_output(["git", "--version"], text=True, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return "no git"


def run(params):
    try:
        subprocess.run(["true"], check=True)
        outcome = "ran"
    except OSError as error:
        outcome = type(error).__name__
    try:
        refused = os.system("true") != 0
    except OSError:
        refused = True
    return {"run": outcome, "system": refused, "version": _version()}
