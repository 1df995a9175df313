"""From a manifest's file to a `PluginManifest`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from os import PathLike
from typing import Any

from eventcore.kernel.documents import MAX_BYTES, Document, Format, parse
from eventcore.kernel.errors import EventCoreError, InvalidManifest, Problem
from eventcore.kernel.names import slug
from eventcore.plugins.manifest.model import PluginManifest, of_checked
from eventcore.plugins.manifest.reader import Reader
from eventcore.plugins.manifest.vocabulary import VOCABULARY
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.plain_files import read_plain

#: File name of a manifest -> its format. A folder that holds one of them is a plugin's.
MANIFEST_NAMES: dict[str, Format] = {"plugin_manifest.json": "json", "plugin.yaml": "yaml", "plugin.toml": "toml"}

#: Names that are their own slugs: most are, and the general rule takes ten times as long.
_IS_SLUG = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{0,63}(?<!-)")

#: What a JSON manifest without a name must have (seed 000).
_NAMELESS = ("plugin_api_version", "intent", "required_roles", "trusted_ui", "module")


def read_manifest(path: str | PathLike[str], *, category: str | None = None) -> PluginManifest:
    """Read and check a manifest. Imports and runs nothing of the plugin.

    Args:
        path: the file; its name tells the dialect.
        category: for a manifest that names none; None means the folder above the plugin's, unless that is `plugins`.

    Raises:
        InvalidManifest: with every problem found, each with its line.
    """
    file = os.fspath(path)
    folder, slash, name = file.rpartition("/")
    if name not in MANIFEST_NAMES:
        raise InvalidManifest([Problem(file, None, "", f"must be called {' or '.join(MANIFEST_NAMES)}")])
    return parse_manifest(_read(file), file, MANIFEST_NAMES[name], folder or slash or ".", category)


def parse_manifest(
    text: str | bytes, file: str, format: Format, folder: str, category: str | None = None
) -> PluginManifest:
    """The manifest in `text`; `folder` is the plugin's. Otherwise like `read_manifest`."""
    document = parse(text, file, format, error=InvalidManifest)
    if not isinstance(document.value, dict):
        raise InvalidManifest([Problem(file, 1, "", "must be a table of keys and values")])
    reader = Reader(document)
    table = _walk(reader, document, format)
    _Finish(reader, table, format, folder, category).run()
    if reader.problems:
        raise InvalidManifest(reader.problems)
    fields = reader.fields
    fields["path"] = file
    # Parts that say nothing are left to the model's defaults, which cost nothing to make.
    if reader.limits:
        fields["limits"] = reader.limits
    if reader.sandbox:
        fields["sandbox"] = reader.sandbox
    if reader.monitoring:
        fields["monitoring"] = reader.monitoring
    if reader.declared:
        fields["declared_permissions"] = reader.declared
    if reader.extra:
        fields["extra"] = reader.extra
    if reader.warnings:
        fields["warnings"] = tuple(reader.warnings)
    return of_checked(fields)


def _read(file: str) -> bytes:
    try:
        return read_plain(os.path.dirname(file) or ".", os.path.basename(file), MAX_BYTES)
    except OSError as error:
        raise InvalidManifest([Problem(file, None, "", f"cannot be read: {error.strerror}")]) from None


def _walk(reader: Reader, document: Document, format: Format) -> Mapping[str, Any]:
    """Check every key; the table of top-level keys, in TOML with those of `[plugin]` among them."""
    vocabulary, table = VOCABULARY[format], document.value
    if format != "toml":
        reader.walk(table, vocabulary, ())
        return table  # type: ignore[no-any-return]
    inner = table.get("plugin")
    if not isinstance(inner, dict):
        reader.error((), "[plugin] is required")
        return table  # type: ignore[no-any-return]
    outer = {key: value for key, value in table.items() if key != "plugin"}
    for key in inner.keys() & outer.keys():
        reader.error((key,), "is given twice, at the top and in [plugin]")
    reader.walk(inner, vocabulary, ("plugin",))
    reader.walk(outer, vocabulary, ())
    return {**outer, **inner}


class _Finish:
    """Defaults, what is required, and what holds between keys."""

    def __init__(
        self, reader: Reader, table: Mapping[str, Any], format: Format, folder: str, category: str | None
    ) -> None:
        self.reader, self.fields, self.table = reader, reader.fields, table
        self.format, self.folder, self.category = format, folder, category
        self.root: tuple[str, ...] = ("plugin",) if format == "toml" else ()

    def run(self) -> None:
        self._required()
        self._names()
        self._entry_file()
        self._sandbox()
        self._permissions()
        self._workflow()
        self._hooks()

    def _required(self) -> None:
        table, fields = self.table, self.fields
        if self.format == "json" and "name" not in table:
            fields["dialect"] = "J0"
            self._nameless()
            return
        fields["dialect"] = {"json": "J2", "yaml": "Y", "toml": "T"}[self.format]
        self._need("name", "version", *(("module",) if self.format == "json" else ()))
        fields.setdefault("api_version", "1.0" if self.format == "json" else "1.1")
        if self.format == "json" and "license" not in fields:
            fields["license"], fields["license_assumed"] = "MIT", True

    def _nameless(self) -> None:
        absent = [key for key in _NAMELESS if key not in self.table]
        if len(absent) > 2:  # too little of seed 000's flavour to be meant as it
            self._need("name", "version", "module")
        else:
            self._need(*absent)
        self.fields["name"] = _base(self.folder)

    def _need(self, *keys: str) -> None:
        for key in keys:
            if key not in self.table:
                self.reader.missing(self.root, key, self.table, VOCABULARY[self.format])

    def _names(self) -> None:
        fields = self.fields
        if "name" not in fields:
            return
        try:
            name = fields["name"]
            fields["slug"] = name if _IS_SLUG.fullmatch(name) else slug(name)
        except EventCoreError as error:
            self.reader.error((*self.root, "name"), str(error))
            return
        fields.setdefault("intents", (fields["slug"],))
        if "category" not in fields:
            above = self.category if self.category is not None else _folder_above(self.folder)
            fields["category"] = above or next(iter(fields.get("categories", ())), "")
        self._emits()

    def _emits(self) -> None:
        for name in self.fields.get("emits", ()):
            prefix, dot, _ = name.partition(".")
            if dot and prefix != self.fields["slug"]:
                self.reader.error(("events", "emits"), f"{name}: the prefix must be {self.fields['slug']!r}")

    def _entry_file(self) -> None:
        """The plugin's file: `main`, or what `module` comes to.

        A dotted path that is a file in the plugin's folder is that file. Any other is a path into the package of a host
        that is not here, and stands for the plugin's own file of the path's last name.
        """
        main, module = self.fields.get("main"), self.fields.get("module")
        if module and not (main and self.format == "yaml"):
            inside = module.replace(".", "/") + ".py"
            if "." in module and not os.path.isfile(f"{self.folder}/{inside}"):
                inside = module.rpartition(".")[2] + ".py"
            self.fields["entry_file"] = inside
        else:
            self.fields["entry_file"] = main or ("main.py" if self.format == "yaml" else "handler.py")

    def _sandbox(self) -> None:
        wish = self.reader.sandbox
        if "unsandboxed" in wish and "required" in wish:
            strict = wish["required"] or not wish["unsandboxed"]
            wish["unsandboxed"] = not strict
            which = "sandboxed" if strict else "unsandboxed where the operator trusts it"
            self.reader.warn(
                ("sandbox",), f"stands beside sandbox_required; the stricter one holds: the plugin runs {which}"
            )

    def _permissions(self) -> None:
        if not self.reader.declared:
            return
        required: dict[PluginPermission, None] = {}
        optional: dict[PluginPermission, None] = {}
        for entry in self.reader.declared:
            (optional if entry["optional"] else required).update(dict.fromkeys(entry["permissions"]))
        self.fields["permissions"] = tuple(required)
        self.fields["optional_permissions"] = tuple(word for word in optional if word not in required)
        if self.fields.get("network_default") is False and PluginPermission.NETWORK_ACCESS in required:
            self.reader.error(
                ("resources", "network_access"),
                "is false beside the required permission network_access; make the permission optional or this true",
            )

    def _workflow(self) -> None:
        enabled, target = self.fields.get("enable_external_workflow"), self.fields.get("workflow_slug")
        if enabled and not target:
            self.reader.warn(
                (*self.root, "enable_external_workflow"), "is true without a workflow_slug, so nothing is started"
            )
        elif target and not enabled:
            self.reader.warn(
                (*self.root, "workflow_slug"), "starts nothing unless enable_external_workflow is true as well"
            )

    def _hooks(self) -> None:
        listed = self.fields.get("hooks")
        if listed is None:
            return
        for name in self.fields.get("stages", ()):
            if name not in listed:
                self.reader.warn(("stages", name), "names a hook that is not listed in hooks")
        if "on_command" in listed and "commands" not in self.fields:
            self.reader.warn(("hooks",), "lists on_command, but commands declares none, so it is never called")


def _folder_above(folder: str) -> str:
    above = _base(os.path.dirname(os.path.abspath(folder)))
    return "" if above == "plugins" else above


def _base(folder: str) -> str:
    name = folder.rpartition("/")[2]
    return name if name not in ("", ".", "..") else os.path.basename(os.path.abspath(folder))
