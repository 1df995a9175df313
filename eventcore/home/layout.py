"""The folder layout of a home: where things lie, how a home is found, and how an empty one is made."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eventcore.kernel.errors import HomeError

SETTINGS_NAME = "eventcore.toml"
STATE_NAME = ".eventcore"

ENV_HOME = "EVENTCORE_HOME"
ENV_PLUGIN_DIR = "EVENTCORE_PLUGIN_DIR"

#: The environment variables that the home understands, and what each does.
ENVIRONMENT: dict[str, str] = {
    ENV_HOME: "The home to use, in place of the nearest one above the current folder. Path.",
    ENV_PLUGIN_DIR: "The plugin folder to use in place of the home's plugins/. Path.",
    "EVENTCORE_CPU_LIMIT": "CPU seconds of one call of a plugin, in place of [sandbox] cpu_seconds. Number.",
    "KARI_CPU_LIMIT": "Another name of EVENTCORE_CPU_LIMIT, which wins when both are set. Number.",
    "EVENTCORE_ADVANCED_MODE": "Show the widgets of plugins that nobody trusts: true, 1, yes or on. Flag.",
    "ADVANCED_MODE": "Another name of EVENTCORE_ADVANCED_MODE, which wins when both are set. Flag.",
    "KARI_PLUGIN_DIR": f"Another name of {ENV_PLUGIN_DIR}, which wins when both are set. Path.",
}

_NO_HOME_HINT = "make one with `eventcore init`, or name one with EVENTCORE_HOME"


@dataclass(frozen=True, slots=True)
class Home:
    """A folder with `eventcore.toml`. Only paths are kept here; nothing is read but to find it.

    Attributes:
        root: the folder, absolute and free of symbolic links.
        plugins: the home's plugin folder: `plugins/`, or what `EVENTCORE_PLUGIN_DIR` says.
    """

    root: Path
    plugins: Path

    @property
    def settings(self) -> Path:
        """`eventcore.toml`."""
        return self.root / SETTINGS_NAME

    @property
    def hooks(self) -> Path:
        """The operator's own hook files."""
        return self.root / "hooks"

    @property
    def workflows(self) -> Path:
        """The workflow definitions."""
        return self.root / "workflows"

    @property
    def state(self) -> Path:
        """`.eventcore/`: everything that running makes. May be missing until `ensure_state`."""
        return self.root / STATE_NAME

    @property
    def database(self) -> Path:
        """The SQLite file, unless the settings name another store."""
        return self.state / "eventcore.db"

    @property
    def socket(self) -> Path:
        """Where the control socket should be. A path too long for a socket is replaced; the lock file tells by what."""
        return self.state / "control.sock"

    @property
    def lock(self) -> Path:
        """The owner lock."""
        return self.state / "lock"

    @classmethod
    def at(cls, root: Path | str, environ: Mapping[str, str] | None = None) -> Home:
        """The home in the folder `root`.

        Args:
            environ: environment variables that may override parts of the layout; None for none.

        Raises:
            HomeError: the folder has no `eventcore.toml`.
        """
        folder = _resolved(Path(root))
        if not _is_home(folder):
            raise HomeError(f"{folder} is not a home: it has no {SETTINGS_NAME}", hint=_NO_HOME_HINT)
        return cls._of(folder, environ)

    @classmethod
    def find(cls, start: Path | str, environ: Mapping[str, str] | None = None) -> Home:
        """The home that `EVENTCORE_HOME` in `environ` names, else the nearest one at or above `start`.

        Hook files run with the caller's rights, so a home above `start` that belongs to another user is refused: on a
        shared machine anybody could put one into /tmp.

        Raises:
            HomeError: there is none up to the root of the file system, or it belongs to somebody else.
        """
        named = (environ or {}).get(ENV_HOME)
        if named:
            folder = _resolved(Path(named))
            if not _is_home(folder):
                raise HomeError(f"{ENV_HOME} names {folder}, which has no {SETTINGS_NAME}", hint=_NO_HOME_HINT)
            return cls._of(folder, environ)
        first = _resolved(Path(start))
        for folder in (first, *first.parents):
            if _is_home(folder):
                if folder != first:
                    _refuse_foreign(folder)
                return cls._of(folder, environ)
        raise HomeError(f"no {SETTINGS_NAME} in {first} or any folder above it", hint=_NO_HOME_HINT)

    @classmethod
    def init(cls, path: Path | str, environ: Mapping[str, str] | None = None) -> tuple[Home, tuple[Path, ...]]:
        """Make what a home needs and is missing in the folder `path`; what exists is left as it is.

        Returns:
            The home, and the files and folders that were made, in order; none when all was there.

        Raises:
            HomeError: something of it cannot be made.
        """
        # Imported here for start-up: the settings need pydantic, which the command line does without to find a home.
        from eventcore.home.settings_file import write_default

        folder = _resolved(Path(path))
        made: list[Path] = []
        try:
            for wanted in (folder, folder / "hooks", folder / "plugins", folder / "workflows"):
                if not wanted.is_dir():
                    wanted.mkdir(parents=True)
                    made.append(wanted)
            if write_default(folder / SETTINGS_NAME):
                made.append(folder / SETTINGS_NAME)
            if _write_new(folder / ".gitignore", f"{STATE_NAME}/\n"):
                made.append(folder / ".gitignore")
        except OSError as error:
            raise HomeError(f"cannot make a home in {folder}: {error.strerror}: {error.filename}") from error
        return cls._of(folder, environ), tuple(made)

    @classmethod
    def _of(cls, root: Path, environ: Mapping[str, str] | None) -> Home:
        override = plugin_dir_from(environ or {})
        return cls(root, _resolved(override) if override else root / "plugins")

    def ensure_state(self) -> Path:
        """Make `.eventcore/`, for its owner only (0700), and return it. A wider mode is narrowed.

        Raises:
            HomeError: it cannot be made, is no folder, or belongs to another user.
        """
        try:
            self.state.mkdir(mode=0o700, exist_ok=True)
            info = self.state.stat()
            if os.name == "posix":
                _own_only(self.state, info)
            # Ignored by git even in a home whose own .gitignore does not name it.
            _write_new(self.state / ".gitignore", "*\n")
        except OSError as error:
            raise HomeError(f"cannot use {self.state}: {error.strerror}") from error
        return self.state


def plugin_dir_from(environ: Mapping[str, str]) -> Path | None:
    """The plugin folder that the environment names, or None. An empty value counts as not set."""
    named = environ.get(ENV_PLUGIN_DIR) or environ.get("KARI_PLUGIN_DIR")
    return Path(named) if named else None


def _resolved(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise HomeError(f"cannot follow the path {path}: {error}") from error


def _is_home(folder: Path) -> bool:
    try:
        return (folder / SETTINGS_NAME).is_file()
    except OSError:
        # A parent that may not be looked into cannot be the home either.
        return False


def _refuse_foreign(folder: Path) -> None:
    if os.name != "posix":
        return
    owner = (folder / SETTINGS_NAME).stat().st_uid
    if owner not in (os.geteuid(), 0):
        raise HomeError(
            f"the home {folder} belongs to another user (uid {owner})",
            hint=f"if you trust it, name it: {ENV_HOME}={folder}",
        )


def _own_only(folder: Path, info: os.stat_result) -> None:
    if os.geteuid() not in (info.st_uid, 0):
        raise HomeError(f"{folder} belongs to another user (uid {info.st_uid})")
    if stat.S_IMODE(info.st_mode) & 0o077:
        folder.chmod(0o700)


def _write_new(path: Path, text: str) -> bool:
    """Write a file that does not exist yet; False, and nothing changed, if it does."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True
