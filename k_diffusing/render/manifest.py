"""A manifest: what was asked of a grid, and how it differs from what is asked now."""

import argparse
import hashlib
import json
import sys
from typing import Any

from k_diffusing._versions import package_versions
from k_diffusing.render.axes import AXES
from k_diffusing.render.cells import Solver
from k_diffusing.render.names import contents
from k_diffusing.render.weights import model_identity
from k_diffusing.render.words import shown

PACKAGES = ("torch", "diffusers", "transformers", "k-diffusion")
SETTINGS = ("negative_prompt", "height", "width", "noise", "program", "dtype", "device", "reference")
SCRIPT_SETTINGS = ("flow_coordinates", "max_sequence_length")  # of test_flux.py alone


def asked(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line asks for: all that a picture depends on, and nothing of this machine's folders.

    The device counts without its number: one grid may be shared by several of a kind.
    """
    axes: dict[str, Any] = {"samplers": args.samplers or "all"}
    axes |= {axis.option: given for axis in AXES.values() if (given := getattr(args, axis.option, None)) is not None}
    axes |= {axis.option: "default" for axis in AXES.values() if axis.own and axis.option not in axes}
    settings = {name: getattr(args, name) for name in (*SETTINGS, *SCRIPT_SETTINGS) if hasattr(args, name)}
    settings["device"] = args.device and args.device.split(":")[0]
    if args.program is None:  # as manifests have it that were made before there were programs
        del settings["program"]
    made = {"model": model_identity(args.model), "axes": axes, "settings": settings, "versions": versions()}
    files = contents(args.sampler_texts)
    return made | {"sampler_files": files} if files else made


def versions() -> dict[str, str | None]:
    """Of the packages that pictures depend on, and of Python; nothing is imported."""
    return package_versions(*PACKAGES) | {"python": sys.version.split()[0]}


def digest(manifest: dict[str, Any]) -> str:
    """8 hexadecimal digits of the sha256 of what was asked."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:8]


def compared(there: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """In what a manifest differs from what is asked for; weights that are not here yet are not compared."""
    there = {name: there.get(name) for name in wanted}
    if None in (there["model"]["fingerprint"], wanted["model"]["fingerprint"]):
        there["model"] = wanted["model"] | {"name": there["model"]["name"]}
    before, now = there.pop("sampler_files", None) or {}, wanted.get("sampler_files", {})
    lines = differences(there, {name: wanted[name] for name in there})
    return lines + [
        f"{file} was edited since: sha256 {before[file]} there, {content} here"
        for file, content in now.items()
        if before.get(file, content) != content
    ]


def other_solvers(there: dict[str, Any], facts: list[list]) -> list[str]:
    """In what a manifest's samplers differ from those that were looked up."""
    return differences({"samplers": there["solvers"]}, {"samplers": facts})


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """One line for each entry, at any depth, that two manifests do not share: "steps: 28 there, 5 here"."""
    lines = []
    for name in dict.fromkeys([*there, *here]):
        old, new = there.get(name), here.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new)
        elif old != new:
            lines.append(f"{name.replace('_', ' ')}: {shown(old)} there, {shown(new)} here")
    return lines


def fault_of(manifest: dict[str, Any]) -> str | None:
    """What is wrong with a manifest that somebody has edited, in a few words; None if it can be compared and shown."""
    kinds = {name: dict for name in ("model", "axes", "settings", "versions")} | {"solvers": list, "command": list}
    for name, kind in kinds.items():
        if not isinstance(manifest.get(name), kind):
            kept = shown(manifest[name]) if name in manifest else "missing"
            return f'"{name}" is {kept} and should be {"an object" if kind is dict else "a list"}'
    model, optional = manifest["model"], str | None
    if not isinstance(model.get("name"), str):
        return f'the name in "model" is {shown(model.get("name"))} and should be a text'
    for name in ("revision", "fingerprint"):
        if name not in model or not isinstance(model[name], optional):
            return f'the {name} in "model" is {shown(model.get(name))} and should be a text or null'
    for facts in manifest["solvers"]:
        if not (isinstance(facts, list) and is_solver(facts)):
            return f'"solvers" has {shown(facts)}, which is no sampler'
    for name in ("sampler_texts", "sampler_files", "grid_texts"):
        texts = manifest.get(name, {})
        if not (isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values())):
            return f'"{name}" is {shown(texts)} and should be an object of texts'
    if not all(isinstance(word, str) for word in manifest["command"]):
        return f'"command" is {shown(manifest["command"])} and should be words'
    return None


def is_solver(facts: list) -> bool:
    """Whether a manifest's list is a Solver."""
    *kinds, _ = Solver.__annotations__.values()
    known, counted = facts[: len(kinds)], facts[len(kinds) :]
    if not (len(known) == len(kinds) and all(map(isinstance, known, kinds)) and known[1] >= 1):
        return False
    return not counted or (len(counted) == 1 and isinstance(counted[0], list) and all(map(is_pair, counted[0])))


def is_pair(value) -> bool:
    """Whether it is two integers."""
    return isinstance(value, list) and [type(one) for one in value] == [int, int]
