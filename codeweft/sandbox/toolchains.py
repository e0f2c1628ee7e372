"""How each language's programs are compiled and run in the box, and whether this machine has what that takes.

In:  toolchains.toml, the commands on PATH.  Out: recipes (argv, files, limits) whose paths hold inside the box, and the
folders that have to be bound there.

Unusual: a toolchain outside /usr (rustup, nvm) lives under a home the box never shows, so its own folder is bound below
/opt/toolchains and every argv names it there. What can be compiled beforehand (C++'s header, Go's packages, javac's own
classes) is made once a machine in a folder that is bound while still empty, and used from the moment it is there.
"""

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from codeweft.base.config import nearest
from codeweft.base.errors import UserError
from codeweft.sandbox.config import COMPILING, Limits
from codeweft.sandbox.preparing import READY, Argv, Preparation, filled, filled_values, folder_for, make

TABLE = Path(__file__).with_name("toolchains.toml")
RELEASE = Path("/etc/os-release")  # says which distribution this is
BOUND = "/opt/toolchains"  # where folders from outside /usr appear in the box
PYTHON = "/opt/python"  # where the prefix of the running interpreter appears in the box
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "TZ": "UTC"}
IN_BOX = ("/usr/", "/bin/", "/lib/", "/lib64/", "/sbin/")  # the box has these at the same place
ANSWERS = 30.0  # seconds a command may take to tell its version


@dataclass(frozen=True, eq=False)
class Toolchain:
    """One table of toolchains.toml, where each field is explained."""

    name: str
    label: str
    aliases: Argv
    tested: bool
    programs: dict[str, Argv]
    version: Argv
    file: str
    run: Argv
    install: dict[str, str]
    fatal: str = ""
    compile: tuple[Argv, ...] = ()
    prefix: Argv = ()
    prefer: dict[str, list[str]] = field(default_factory=dict)
    interpreters: dict[str, str] = field(default_factory=dict)
    public: str = ""
    main: str = ""
    main_default: str = "main"
    package: str = ""
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    compile_limits: Limits = COMPILING
    extra: Argv = ()
    opening: str = ""
    closing: str = ""
    closing_before: str = r"\Z"
    ending: str = ""
    prepare: Preparation | None = None
    variants: tuple[dict[str, Any], ...] = ()

    def suited_to(self, program: str) -> "Toolchain":
        """The toolchain with the values of the first variant whose pattern is found in the program."""
        for variant in self.variants:
            if re.search(variant["when"], program):
                return replace(self, **_fixed({key: value for key, value in variant.items() if key != "when"}))
        return self


@dataclass(frozen=True, eq=False)
class Installed:
    """What this machine has of a toolchain.

    `words` is the argv that starts each program inside the box, `outside` the same on this machine; `missing` names
    what was not found; `binds` maps folders of this machine to their place in the box; `prepared` is the folder in
    which `prepare` puts the folder "ready".
    """

    toolchain: Toolchain
    words: dict[str, Argv]
    outside: dict[str, Argv]
    missing: Argv
    binds: dict[str, str]
    prepared: Path | None = None

    @functools.cached_property
    def version(self) -> str:
        """The version that the toolchain tells, empty where it is missing."""
        if self.missing:
            return ""
        told = _answer(filled(self.toolchain.version, self.outside, {}))
        match = re.search(r"\d+(?:\.\d+)+", told)
        return match[0] if match else told.split("\n", 1)[0][:40]

    @property
    def hint(self) -> str:
        """What to type to install it here."""
        return install_hint(self.toolchain)


@dataclass(frozen=True)
class Recipe:
    """How one program is compiled and run: everything is relative to /box, and the source goes into `file`."""

    file: str
    files: dict[str, str]
    compile: tuple[Argv, ...]
    run: Argv
    environment: dict[str, str]
    limits: Limits
    compile_limits: Limits


@functools.cache
def all_toolchains() -> dict[str, Toolchain]:
    """Every toolchain by its name, in the table's order.

    >>> list(all_toolchains())[:3]
    ['python', 'c', 'cpp']
    """
    return {name: _toolchain(name, row) for name, row in tomllib.loads(TABLE.read_text(encoding="utf-8")).items()}


def _toolchain(name: str, row: dict[str, Any]) -> Toolchain:
    unknown = set(row) - {entry.name for entry in fields(Toolchain)}
    assert not unknown, (name, unknown)
    return Toolchain(name=name, **_fixed(row))


def _fixed(row: dict[str, Any]) -> dict[str, Any]:
    """Values of TOML as the fields' types: lists as tuples, limits over their defaults."""
    values: dict[str, Any] = {}
    for key, value in row.items():
        if key == "programs":
            values[key] = {program: tuple(commands) for program, commands in value.items()}
        elif key == "compile":
            values[key] = tuple(tuple(argv) for argv in value)
        elif key == "limits":
            values[key] = Limits(**value)
        elif key == "prepare":
            argvs = tuple(tuple(argv) for argv in value["commands"])
            values[key] = Preparation(argvs, value["files"], value.get("environment", {}))
        elif key == "compile_limits":
            values[key] = replace(COMPILING, **value)
        else:
            values[key] = tuple(value) if isinstance(value, list) else value
    return values


def find(language: str) -> Toolchain:
    """The toolchain of a language by its name or an alias, whatever the case.

    >>> find("C++").name, find("js").name
    ('cpp', 'javascript')
    """
    wanted = language.strip().lower()
    known = {
        alias: toolchain for toolchain in all_toolchains().values() for alias in (*toolchain.aliases, toolchain.name)
    }
    if wanted not in known:
        raise UserError(f"There is no toolchain for the language {language!r}.", nearest(wanted, known))
    return known[wanted]


@functools.cache
def detect(toolchain: Toolchain) -> Installed:
    """Look for a toolchain's programs on PATH; found ones are named as the box will see them."""
    words: dict[str, Argv] = {}
    outside: dict[str, Argv] = {}
    missing: list[str] = []
    binds: dict[str, str] = {}
    if toolchain.name == "python":
        return Installed(toolchain, {"python": (_python_in_box(),)}, {"python": (sys.executable,)}, (), {})
    for program, commands in toolchain.programs.items():
        found = next((path for command in commands if (path := shutil.which(command))), None)
        if found is None:
            missing.append(" or ".join(commands))
            continue
        path = _own_path(toolchain, program, found)
        outside[program], words[program] = (str(path),), (_in_box(path, binds),)
        runner = toolchain.interpreters.get(program, "")
        if runner in words and _is_script(path):
            outside[program], words[program] = outside[runner] + outside[program], words[runner] + words[program]
    for pattern in toolchain.extra:
        binds |= {str(path): str(path) for path in _matching(Path("/"), pattern.lstrip("/"))}
    prepared = None if missing or toolchain.prepare is None else folder_for(toolchain.name, toolchain.prepare, outside)
    if prepared is not None:
        binds[str(prepared)] = f"{BOUND}/{toolchain.name}"
    return Installed(toolchain, words, outside, tuple(missing), binds, prepared)


def _python_in_box() -> str:
    """The running interpreter, whose prefix the box always has, at /opt/python unless it is the system's."""
    real = Path(sys.executable).resolve()
    base = Path(sys.base_prefix).resolve()
    if str(base) == "/usr":
        return str(real)
    return f"{PYTHON}/{real.relative_to(base)}" if real.is_relative_to(base) else f"{PYTHON}/bin/{real.name}"


def _own_path(toolchain: Toolchain, program: str, found: str) -> Path:
    """The file to start for a command: past a proxy that names the toolchain's folder, or a faster one beside it."""
    path = Path(found).resolve()
    if f"{{{program}}}" == next(iter(toolchain.prefix), "") and not str(path).startswith(("/usr/bin/", "/usr/lib/")):
        told = _answer((found, *toolchain.prefix[1:])).strip().split("\n")[-1]
        candidate = (Path(told) / "bin" / Path(found).name).resolve()
        path = candidate if candidate.is_file() else path
    faster = [native for pattern in toolchain.prefer.get(program, []) for native in _matching(path.parent, pattern)]
    if faster:
        return faster[0].resolve()
    # Some commands look at the name they are called by (clang++, ccache), so a link that the box has too is kept.
    return Path(found) if found.startswith(IN_BOX) and str(path).startswith(IN_BOX) else path


def _matching(folder: Path, pattern: str) -> list[Path]:
    """What a pattern, which may begin with some `../`, finds from a folder."""
    while pattern.startswith("../"):
        folder, pattern = folder.parent, pattern.removeprefix("../")
    return sorted(folder.glob(pattern))


def _in_box(path: Path, binds: dict[str, str]) -> str:
    """Where the box shows a program; its toolchain's folder is added to `binds` where the box would not have it."""
    if str(path).startswith(IN_BOX):
        return str(path)
    home = Path(os.environ.get("HOME", "/root"))
    shared = {home, home / ".local", Path("/"), Path("/opt"), Path("/home"), Path("/tmp")}
    own = path.parent.parent
    # A folder that other things live in too is not shown: the program alone has to do.
    bound = path if own in shared else own
    place = f"{BOUND}/{bound.name}-{hashlib.sha256(str(bound).encode()).hexdigest()[:6]}"
    binds[str(bound)] = place
    return place if bound == path else f"{place}/{path.relative_to(own)}"


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def _answer(argv: Argv) -> str:
    """What a command prints, empty where it cannot be run."""
    try:
        ran = subprocess.run(argv, capture_output=True, timeout=ANSWERS, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (ran.stdout or ran.stderr).decode(errors="replace")


def commands(installed: Installed, program: str, limits: Limits | None = None) -> Recipe:
    """How to compile and run a program with an installed toolchain; `limits` of the run, if not the language's."""
    assert not installed.missing, installed.missing
    toolchain = installed.toolchain.suited_to(program)
    limits = limits or toolchain.limits
    public = _first(toolchain.public, program)
    main = _first(toolchain.main, program) or public or toolchain.main_default
    package = _first(toolchain.package, program)
    values = {"heap": str(max(16, limits.memory_mib // 2)), "prepared": f"{BOUND}/{toolchain.name}/{READY}"}
    values["public"] = public or toolchain.main_default
    values["package"] = package or "main"
    values["main"] = f"{package}.{main}" if package else main
    values["file"] = filled((toolchain.file,), {}, values)[0]
    prepared: dict[str, str] = {}
    if toolchain.prepare is not None and installed.prepared is not None and (installed.prepared / READY).exists():
        prepared = filled_values(toolchain.prepare.environment, values)
    return Recipe(
        file=values["file"],
        files={name: text.replace("{package}", values["package"]) for name, text in toolchain.files.items()},
        compile=tuple(filled(argv, installed.words, values) for argv in toolchain.compile),
        run=filled(toolchain.run, installed.words, values),
        environment=ENVIRONMENT | toolchain.environment | prepared,
        limits=limits,
        compile_limits=toolchain.compile_limits,
    )


def _first(pattern: str, text: str) -> str:
    """The group of the first place where the pattern is found; empty without one."""
    match = re.search(pattern, text) if pattern else None
    return match[1] if match else ""


def with_closing(toolchain: Toolchain, program: str) -> str:
    """A program of assertions that, after the last one, prints the line it reads from stdin on a line of its own.

    ValueError where the program's end is not of the shape that the closing needs.
    """
    suited = toolchain.suited_to(program)
    if not suited.closing:
        raise ValueError(f"{suited.label} programs cannot be closed.")
    end = re.search(suited.closing_before, program)
    if end is None:
        raise ValueError(f"The end of this {suited.label} program has no place for a closing.")
    return suited.opening + program[: end.start()] + suited.closing + program[end.start() :] + suited.ending


@functools.cache
def prepare(installed: Installed) -> None:
    """Make what speeds compilations up, unless it is there or another process is making it; once a process.

    It may take a minute. Programs compile without it too, only slower, so a failure is no error.
    """
    preparation = installed.toolchain.prepare
    if preparation is not None and installed.prepared is not None:
        make(preparation, installed.prepared, installed.outside, installed.toolchain.environment)


def install_hint(toolchain: Toolchain) -> str:
    """The install command of this distribution, else of all of them."""
    for name in (*_distributions(), "any"):
        if name in toolchain.install:
            return toolchain.install[name]
    return "; ".join(f"{name}: {command}" for name, command in toolchain.install.items())


def _distributions() -> Argv:
    """This distribution and those it is like, nearest first."""
    if sys.platform == "darwin":
        return ("macos",)
    if not RELEASE.is_file():
        return ()
    values = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', RELEASE.read_text(encoding="utf-8"), re.MULTILINE))
    return tuple(f"{values.get('ID', '')} {values.get('ID_LIKE', '')}".split())


def as_table() -> list[tuple[str, str, str]]:
    """One row a toolchain: language, version or "missing", and what to install where it is missing."""
    rows = []
    for toolchain in all_toolchains().values():
        installed = detect(toolchain)
        rows.append((toolchain.label, installed.version or "missing", installed.hint if installed.missing else ""))
    return rows
