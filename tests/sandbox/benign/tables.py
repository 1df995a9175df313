"""CSV in and out, JSON, and an INI file."""

import configparser
import csv
import io
import json
import tomllib

EXPECTED = {"total": 7, "written": "a,b\r\n1,2\r\n", "ini": "yes", "toml": 1, "json": {"k": [1, None]}}


def run(params):
    rows = list(csv.DictReader(io.StringIO("name,n\nx,3\ny,4\n")))
    out = io.StringIO()
    csv.writer(out).writerows([["a", "b"], [1, 2]])
    ini = configparser.ConfigParser()
    ini.read_string("[s]\nk = yes\n")
    return {
        "total": sum(int(row["n"]) for row in rows),
        "written": out.getvalue(),
        "ini": ini["s"]["k"],
        "toml": tomllib.loads("a = 1")["a"],
        "json": json.loads(json.dumps({"k": [1, None]})),
    }
