"""YAML, XML, HTML, e-mail, base64."""

import base64
import email.message
import email.parser
import html.parser
import xml.etree.ElementTree as ElementTree

import yaml

EXPECTED = {"yaml": {"a": [1, 2]}, "xml": ["1"], "links": ["/x"], "subject": "hi", "base64": "aGk="}


class _Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name == "href"]


def run(params):
    links = _Links()
    links.feed('<a href="/x">x</a>')
    message = email.message.EmailMessage()
    message["Subject"] = "hi"
    message.set_content("text")
    return {
        "yaml": yaml.safe_load("a: [1, 2]"),
        "xml": [one.get("id") for one in ElementTree.fromstring('<r><i id="1"/></r>')],
        "links": links.found,
        "subject": email.parser.Parser().parsestr(message.as_string())["subject"],
        "base64": base64.b64encode(b"hi").decode(),
    }
