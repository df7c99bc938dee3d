"""`extends: PATH` in a recipe: the file is laid over another one, section by section and key by key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from disco_zoo.core.files import user_path
from disco_zoo.core.yaml_io import read_yaml
from disco_zoo.errors import BadRecipe, did_you_mean

# The keys that decide which other keys their section has: another choice drops the parent's options.
SELECTORS = {"views": "recipe", "method": "name"}

_YAML_SUFFIXES = (".yaml", ".yml")
_FAULTY_KEY = re.compile(r"(?:unknown key ')?([\w-]+(?:\.[\w-]+)*)")


@dataclass
class MergedRecipe:
    """A recipe's values with those of the files it extends.

    Attributes:
        values: sections and their keys, without `extends`.
        explicit: "section.key" (or a top-level "key") of everything that some file says.
        inherited: those of them that the recipe's own file does not say, and the file that does.
        faults: found while reading.
    """

    values: dict[str, Any] = field(default_factory=dict)
    explicit: set[str] = field(default_factory=set)
    inherited: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def lay_over(self, values: Mapping[str, Any], file: str | None) -> None:
        """Override the present values by `values`; `file` is None for the recipe's own file."""
        for name, value in values.items():
            below = self.values.get(name)
            if not (isinstance(value, dict) and isinstance(below, dict)) or _chooses_another(name, below, value):
                self.forget(name)
            if isinstance(value, dict):
                self.values[name] = {**self.values.get(name, {}), **value}
                for key in value:
                    self.note(f"{name}.{key}", file)
            elif value is not None:  # null takes away what lies below
                self.values[name] = value
                self.note(name, file)

    def note(self, path: str, file: str | None = None) -> None:
        """Record that "section.key" comes from `file`; None for the recipe's own file and for overrides."""
        self.explicit.add(path)
        self.inherited.pop(path, None)
        if file is not None:
            self.inherited[path] = file

    def forget(self, name: str) -> None:
        """Remove a section or a top-level key, and its recorded origin."""
        self.values.pop(name, None)
        for path in [path for path in self.explicit if path.split(".")[0] == name]:
            self.explicit.discard(path)
            self.inherited.pop(path, None)


def read_merged(path: Path, recipes: Path) -> MergedRecipe:
    """Read a recipe and all files that it extends; a file's own values override those of the files that it extends.

    Args:
        path: the recipe.
        recipes: folder of the bundled ones, where `extends` looks after the folder of the file itself.

    Raises:
        BadRecipe: a file is missing, is no YAML or has no keys, or files extend each other in a circle.
    """
    merged = MergedRecipe()
    for file, values, faults in reversed([*_ancestry(path, recipes)]):
        merged.faults += [fault if file is None else f"{fault} (in {file})" for fault in faults]
        merged.lay_over(values, file)
    return merged


def name_file(fault: str, inherited: Mapping[str, str]) -> str:
    """Add to a fault of an inherited key which file holds it; `inherited` is that of `MergedRecipe`."""
    found = _FAULTY_KEY.match(fault)
    parts = found[1].split(".") if found else []
    for length in range(len(parts), 0, -1):
        file = inherited.get(".".join(parts[:length]))
        if file is not None:
            return f"{fault} (in {file})"
    return fault


def _ancestry(path: Path, recipes: Path) -> Iterator[tuple[str | None, dict[str, Any], list[str]]]:
    """The recipe, what it extends, and so on: name (None for the first), values, and keys that appear twice."""
    seen: list[Path] = []
    current: Path | None = path
    while current is not None:
        if current.resolve() in [file.resolve() for file in seen]:
            circle = " extends ".join(_shown(file, recipes) for file in [*seen, current])
            raise BadRecipe(f"{path.name}: extends goes round in a circle: {circle}")
        values, faults = _read(current)
        yield (_shown(current, recipes) if seen else None), values, faults
        seen.append(current)
        current = _parent(current, values.pop("extends", None), recipes)


def _parent(path: Path, extends: Any, recipes: Path) -> Path | None:
    if extends is None:
        return None
    origin = _shown(path, recipes)
    if not isinstance(extends, str) or not extends.strip():
        raise BadRecipe(f"{origin}: extends: must be the path of one recipe, not {extends!r}")
    name = extends if extends.endswith(_YAML_SUFFIXES) else f"{extends}.yaml"
    for folder in (path.parent, recipes):
        file = folder / user_path(name)
        if os.path.isfile(file):  # unlike Path's, it never raises
            return file
    known = [file.relative_to(recipes).as_posix().removesuffix(".yaml") for file in sorted(recipes.rglob("*.yaml"))]
    raise BadRecipe(
        f"{origin}: extends: '{extends}' is neither beside that file nor among the bundled recipes."
        + did_you_mean(extends, known)
    )


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    """One file: its values, and a message for each key that appears twice."""
    try:
        values, faults = read_yaml(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadRecipe(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise BadRecipe(f"{path} cannot be read: {error.strerror or error}") from error
    if not isinstance(values, dict):
        raise BadRecipe(f"{path} holds no keys")
    return values, faults


def _chooses_another(section: str, below: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    selector = SELECTORS.get(section)
    return selector is not None and selector in values and below.get(selector) not in (None, values[selector])


def _shown(path: Path, recipes: Path) -> str:
    """A bundled file as `scale/name.yaml`, others as they were found."""
    return path.relative_to(recipes).as_posix() if path.is_relative_to(recipes) else str(path)
