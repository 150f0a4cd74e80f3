"""Lays a user's PodTemplateSpec over ours, and refuses what it may not say.

Maps merge by key. Of lists, those that Kubernetes merges by a key do too; the rest replace. Nothing
is looked into that both sides do not hold, so a template may hold fields that we do not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from serving_contract.kubernetes import (
    APP_LABEL_PREFIX,
    ASCEND_RT_VISIBLE_DEVICES,
    ASCEND_VISIBLE_DEVICES,
    GROUP,
    LABEL_NAME,
    PORT_NAME,
)
from serving_operator.body import Body, fields, items
from serving_operator.errors import TemplateInvalid

_MERGED_BY: Final = {
    "containers": "name",
    "initContainers": "name",
    "ports": "name",
    "volumeMounts": "mountPath",
}
_REPLACED_BY: Final = {"env": "name", "volumes": "name"}
"""Their elements are one of several kinds each, so that merging two makes neither."""
_REPLACED: Final = frozenset({"livenessProbe", "readinessProbe", "startupProbe", "affinity"})

Path = tuple[str, ...]
_ANYWHERE: Final = frozenset({ASCEND_VISIBLE_DEVICES, ASCEND_RT_VISIBLE_DEVICES})
_OURS: Final[tuple[Path, ...]] = (
    ("metadata", "name"),
    ("metadata", "generateName"),
    ("metadata", "namespace"),
    ("metadata", "ownerReferences"),
    ("metadata", "finalizers"),
    ("spec", "terminationGracePeriodSeconds"),
    ("spec", "restartPolicy"),
    ("spec", "nodeName"),
)
_OURS_INSIDE: Final[tuple[Path, ...]] = (("lifecycle", "preStop"), ("ports", PORT_NAME))
_LABELS: Final = ("metadata", "labels")
_CONTAINERS: Final = ("spec", "containers")


def lay_over(
    ours: Body, template: Mapping[str, object], *, container: str, protected: Iterable[Path]
) -> Body:
    """Return our pod template with the user's laid over it.

    Args:
        ours: a PodTemplateSpec.
        template: the user's; its keys win, null deletes.
        container: the name of our main container.
        protected: paths inside that container which the template may not touch; elements of
            lists go by their name.

    Raises:
        TemplateInvalid: the template touches what is ours, or has the wrong shape.
    """
    _refuse_directives(template)
    inner = [(*_CONTAINERS, container, *path) for path in (*_OURS_INSIDE, *protected)]
    for path in (*_OURS, *_our_labels(template), *inner):
        if _touches(template, path):
            raise TemplateInvalid(f"template.{'.'.join(path)}: is the operator's and cannot be set")
    _refuse_device_variables(template)
    merged = _merge(ours, template, "template")
    assert isinstance(merged, dict)
    return merged


def _our_labels(template: Mapping[str, object]) -> list[Path]:
    prefixes = (APP_LABEL_PREFIX, f"{GROUP}/")
    theirs = [key for key in fields(template, *_LABELS) if key.startswith(prefixes)]
    return [(*_LABELS, key) for key in (LABEL_NAME, *theirs)]


def _touches(value: object, path: Path) -> bool:
    """Return whether merging `value` could change what lies at `path`: set it or delete it."""
    if not path or value is None:
        return True
    key, *rest = path
    if isinstance(value, list):
        named = [item for item in value if isinstance(item, Mapping) and item.get("name") == key]
        return any(_touches(item, tuple(rest)) for item in named)
    return isinstance(value, Mapping) and key in value and _touches(value[key], tuple(rest))


def _refuse_device_variables(template: Mapping[str, object]) -> None:
    for kind in ("containers", "initContainers"):
        for container in items(template, "spec", kind):
            for variable in items(container, "env"):
                if variable.get("name") in _ANYWHERE:
                    where = f"template.spec.{kind}.{container.get('name')}.env"
                    raise TemplateInvalid(
                        f"{where}.{variable['name']}: is the device plugin's and cannot be set"
                    )


def _refuse_directives(template: Mapping[str, object]) -> None:
    """Refuse strategic-merge directives anywhere; the depth is the user's, so no recursion."""
    stack: list[object] = [template]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            if directive := next((key for key in value if str(key).startswith("$")), None):
                raise TemplateInvalid(f"template: the directive {directive} is not understood here")
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def _merge(ours: object, theirs: object, path: str) -> object:
    if ours is None:
        return _without_nulls(theirs)
    if isinstance(ours, dict):
        return _merge_maps(ours, _expect_map(theirs, path), path)
    return theirs


def _merge_maps(ours: Body, theirs: Mapping[str, object], path: str) -> Body:
    merged = dict(ours)
    for key, value in theirs.items():
        below = f"{path}.{key}"
        if value is None:
            merged.pop(key, None)
        elif key in _REPLACED:
            _expect_map(value, below)
            merged.pop(key, None)
            if value:
                merged[key] = value
        elif key in _MERGED_BY or key in _REPLACED_BY:
            merged[key] = _merge_lists(key, ours.get(key), value, below)
        else:
            merged[key] = _merge(ours.get(key), value, below)
    return merged


def _merge_lists(kind: str, ours: object, theirs: object, path: str) -> list[object]:
    """Merge two lists whose elements have a key; ours stay in place, new ones follow."""
    key = _MERGED_BY.get(kind) or _REPLACED_BY[kind]
    merged: dict[object, object] = {item.get(key): item for item in _maps(ours, path)}
    for position, item in enumerate(_maps(theirs, path)):
        # A port needs no name; it is then nobody's counterpart.
        name = item.get(key) or (position if kind == "ports" else None)
        if name is None:
            raise TemplateInvalid(f"{path}[{position}].{key}: is missing")
        before = merged.get(name) if kind in _MERGED_BY else None
        merged[name] = _merge(before, item, f"{path}.{name}")
    return list(merged.values())


def _maps(value: object, path: str) -> list[Mapping[str, object]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise TemplateInvalid(f"{path}: must be a list")
    for position, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise TemplateInvalid(f"{path}[{position}]: must be a map")
    return value


def _expect_map(value: object, path: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TemplateInvalid(f"{path}: must be a map")
    return value


def _without_nulls(value: object) -> object:
    """Drop nulls of a map that has no counterpart; there is nothing that they could delete."""
    if not isinstance(value, Mapping):
        return value
    return {key: item for key, item in value.items() if item is not None}
