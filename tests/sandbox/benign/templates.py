"""Templates with Jinja, and text work."""

import difflib
import html
import re
import string
import textwrap
import unicodedata

import jinja2

EXPECTED = {"page": "<b>&lt;x&gt;</b>", "words": ["b", "c"], "wrapped": 3, "plain": "e", "near": ["apple"]}


def run(params):
    page = jinja2.Environment(autoescape=True).from_string("<b>{{ x }}</b>").render(x="<x>")
    assert html.unescape(page) == "<b><x></b>"
    assert string.Template("$a").substitute(a=1) == "1"
    return {
        "page": page,
        "words": re.findall(r"(?<=a)(\w)", "ab ac"),
        "wrapped": len(textwrap.wrap("one two three", 5)),
        "plain": unicodedata.normalize("NFD", "é")[0],
        "near": difflib.get_close_matches("appel", ["apple", "pear"], 1),
    }
