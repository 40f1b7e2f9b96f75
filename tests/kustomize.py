"""Renders `deploy/kubernetes/base` where kubectl is not installed: the few things our kustomizations ask for, no more.

Where kubectl is installed the tests use what it renders, and check that this gives the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

# Kinds that lie in no namespace.
_CLUSTER_WIDE = {"Namespace"}
# The generator's options change names only; we turn that off.
_OPTIONS = {"disableNameSuffixHash": True}


def render(folder: Path) -> list[Object]:
    """The objects of the kustomization in `folder`. Raises KeyError for a feature that is not written here."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    for name in ("apiVersion", "kind"):
        kustomization.pop(name)
    if kustomization.pop("generatorOptions", _OPTIONS) != _OPTIONS:
        raise KeyError("generatorOptions")
    objects = [
        found
        for name in kustomization.pop("resources")
        for found in yaml.safe_load_all((folder / name).read_text(encoding="utf-8"))
    ]
    objects += [_config_map(folder, **generator) for generator in kustomization.pop("configMapGenerator", [])]
    for feature, value in kustomization.items():
        for target in objects:
            _TRANSFORMERS[feature](target, value)
    return objects


def _config_map(folder: Path, name: str, files: list[str]) -> Object:
    data = {file: (folder / file).read_text(encoding="utf-8") for file in files}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def _namespace(target: Object, name: str) -> None:
    if target["kind"] not in _CLUSTER_WIDE:
        target["metadata"]["namespace"] = name


def _labels(target: Object, entries: list[Object]) -> None:
    for entry in entries:
        if set(entry) - {"pairs", "includeTemplates"}:
            raise KeyError(f"labels: {sorted(entry)}")
        target["metadata"].setdefault("labels", {}).update(entry["pairs"])
        job = target["spec"]["jobTemplate"] if target["kind"] == "CronJob" else None
        if job and entry.get("includeTemplates"):
            for template in (job, job["spec"]["template"]):
                template.setdefault("metadata", {}).setdefault("labels", {}).update(entry["pairs"])


def _images(target: Object, entries: list[Object]) -> None:
    if target["kind"] != "CronJob":
        return
    for entry in entries:
        if set(entry) != {"name", "newTag"}:
            raise KeyError(f"images: {sorted(entry)}")
        for container in target["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]:
            if container["image"].partition(":")[0] == entry["name"]:
                container["image"] = f"{entry['name']}:{entry['newTag']}"


_TRANSFORMERS: dict[str, Callable[[Object, Any], None]] = {
    "namespace": _namespace,
    "labels": _labels,
    "images": _images,
}
