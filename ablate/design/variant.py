"""A variant, and what makes two variants one: its identity.

The hash of a trial is over its variant's identity, so that whatever changes a result must be in it, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ablate import yamlfile
from ablate.block import Shape
from ablate.code import outside_digest
from ablate.collect import Orphan
from ablate.data.dataset import DataSpec
from ablate.design.levels import Level
from ablate.grammar import TrainSpec
from ablate.network import Network
from ablate.plugins import release_of
from ablate.spec import Assignment
from ablate.trainable import Trainable

IDENTITY_FORMAT = 1
"""Raised when the meaning of an identity changes, so that no stored result is taken for another."""


@dataclass(frozen=True)
class Control:
    """What a control was solved for: which variant's cost, by which parameter, and what came of it."""

    of: str
    match: str
    """``params`` or ``flops``."""
    by: str
    value: int | float
    wanted: int
    reached: int


@dataclass
class Variant:
    """One network with one training recipe."""

    name: str
    levels: dict[str, str]
    """Factor → level. Of a component: ``with`` or ``without``."""
    network: Network
    data: DataSpec
    train: TrainSpec
    shape: Shape
    classes: int
    orphans: tuple[Orphan, ...] = ()
    assigned: tuple[Assignment, ...] = ()
    """The assignments of its levels, of the profile and of ``--set`` that took effect."""
    inactive: tuple[Assignment, ...] = ()
    """Those that did not: what they were to change is not in this variant."""
    patched: tuple[Level, ...] = ()
    baseline: str | None = None
    """The variant that this one is compared with; ``None`` for a baseline and where there is none."""
    duplicate_of: str | None = None
    control: Control | None = None
    """Of a baseline that was made as expensive as a variant: which, and how."""
    trainable: Trainable = field(default_factory=Trainable)
    tuning: Mapping[str, Any] | None = None
    """How its recipe was tuned, if it was: ``space``, ``objective``, ``trained``, ``values`` and more."""
    tree: yamlfile.Mapping = field(default_factory=yamlfile.Mapping, repr=False)

    @cached_property
    def identity_parts(self) -> dict[str, Any]:
        """What the variant is, but for names: network, initialisation, recipe, data."""
        return {
            "format": IDENTITY_FORMAT,
            "network": self.network.graph.canonical,
            "init": self._init(),
            "train": self.train.identity() | self.trainable.identity(self.network.graph),
            "data": self.data.identity(),
        }

    def _init(self) -> dict[str, Any]:
        """The recipe where it starts anything, and what is loaded, by content; without weights it is the recipe."""
        recipe, weights = self.network.init.model_dump(mode="json"), self.network.weights
        if weights is None:
            return recipe
        return ({} if weights.leaves_nothing else recipe) | {"weights": weights.identity()}

    @cached_property
    def identity(self) -> str:
        """128 bits of SHA-256, hexadecimal."""
        return digest(self.identity_parts)

    @property
    def sameness(self) -> tuple[str | None, ...]:
        """Equal for variants that are one network with one recipe on one folder of data.

        The identity leaves out where the data lie, since a trial's hash has their content; nothing is read here yet.
        Of the weights that a study gives, a seed each, it has the first seed's.
        """
        return self.identity, self.data.root, self.network.weights.source.key if self.network.weights else ""

    @property
    def kinds(self) -> dict[str, type]:
        """Its blocks, data set and augmentations, by what a trial's hash calls them; of blocks those that act."""
        graph, data = self.network.graph, self.data
        acting = {row["block"] for row in graph.canonical if "block" in row}
        kinds: dict[str, type] = {f"data {data.name}": data.data_set}
        kinds |= {f"block {node.block.name}": node.block for node in graph.nodes if node.block.name in acting}
        return kinds | {f"augment {augmentation.name}": type(augmentation) for augmentation in data.augment}

    @cached_property
    def outside(self) -> dict[str, str]:
        """Its blocks, data set and augmentations that are not of this package → the digests of their sources."""
        digests = {name: outside_digest(kind) for name, kind in self.kinds.items()}
        return {name: digest for name, digest in digests.items() if digest is not None}

    @cached_property
    def packages(self) -> dict[str, tuple[str, str]]:
        """Those of ``outside`` that installed packages bring as plugins → (distribution, version)."""
        found = {name: release_of(self.kinds[name].__module__) for name in self.outside}
        return {name: release for name, release in found.items() if release is not None}

    @property
    def code(self) -> dict[str, dict[str, str]]:
        """Of each of ``outside``: ``digest`` and, of a plugin's, ``distribution`` and ``version``."""
        told = {name: {"digest": digest} for name, digest in self.outside.items()}
        for name, (distribution, version) in self.packages.items():
            told[name] |= {"distribution": distribution, "version": version}
        return told

    def inactive_factors(self) -> frozenset[str]:
        """The factors whose level changes nothing here because what it changes is not in this variant."""
        acting = {assignment.layer for assignment in self.assigned}
        idle = {assignment.layer for assignment in self.inactive} | {orphan.layer for orphan in self.orphans}
        return frozenset(level.factor for level in self.patched if level.layer in idle and level.layer not in acting)


def digest(parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def trial_hash(variant: Variant, seed: int, content_hash: str, numerics: Mapping[str, Any]) -> str:
    """What a trial is: its variant's identity, the names that seed it, the data's content, the seed, the numerics.

    And the source of what comes from outside this package, with the version of a plugin's: in a spec it has nothing but
    its name. 128 bits of SHA-256.
    Equal hashes mean equal results on one kind of machine: bit for bit where the numerics promise that (fp32, eager),
    else within rounding.
    """
    parts = [variant.identity, variant.network.graph.seeding_names, content_hash, seed, dict(numerics)]
    weights, outside = variant.network.weights, variant.outside
    # each only where there is one, so that trials without keep their hashes
    if weights:
        parts.append(weights.loading(seed).digest)
    if outside:
        parts.append({"code": outside})
    if variant.packages:
        parts.append({"packages": variant.packages})
    return digest(parts)
