"""Graphics cards that people have: memory, memory bandwidth and PCI Express, as their makers publish them.

Memory is in GiB, bandwidth in GB/s (powers of 1000). Cards whose memory is the computer's own (Apple) are left out:
what they can take depends on the machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from server.errors import BrimError
from server.offload.devices import Device
from server.offload.nvml import PCIE_LANE_BYTES


@dataclass(frozen=True, slots=True)
class Card:
    """One card model."""

    name: str
    memory: float
    bandwidth: float
    pcie: int
    lanes: int
    backend: str

    def device(self, number: int = 0) -> Device:
        """The card as a device to plan for, all of its memory free."""
        total = int(self.memory * 2**30)
        return Device(
            name=f"{self.backend}{number}",
            description=self.name,
            backend=self.backend,
            total=total,
            free=total,
            bandwidth=self.bandwidth * 1e9,
            link=PCIE_LANE_BYTES[self.pcie] * self.lanes,
            hypothetical=True,
        )


def _cards(backend: str, rows: str) -> list[Card]:
    cards: list[Card] = []
    for row in rows.strip().splitlines():
        name, memory, bandwidth, pcie, lanes = (cell.strip() for cell in row.split("|"))
        cards.append(Card(name, float(memory), float(bandwidth), int(pcie), int(lanes), backend))
    return cards


# name | memory GiB | bandwidth GB/s | PCIe generation | lanes
_NVIDIA = """
GTX 1060 6GB        |   6 |  192 | 3 | 16
GTX 1070            |   8 |  256 | 3 | 16
GTX 1080 Ti         |  11 |  484 | 3 | 16
GTX 1650            |   4 |  128 | 3 | 16
GTX 1660 Super      |   6 |  336 | 3 | 16
RTX 2060            |   6 |  336 | 3 | 16
RTX 2070 Super      |   8 |  448 | 3 | 16
RTX 2080 Ti         |  11 |  616 | 3 | 16
RTX 3050            |   8 |  224 | 4 |  8
RTX 3060            |  12 |  360 | 4 | 16
RTX 3060 Ti         |   8 |  448 | 4 | 16
RTX 3070            |   8 |  448 | 4 | 16
RTX 3080            |  10 |  760 | 4 | 16
RTX 3080 Ti         |  12 |  912 | 4 | 16
RTX 3090            |  24 |  936 | 4 | 16
RTX 3090 Ti         |  24 | 1008 | 4 | 16
RTX 4060            |   8 |  272 | 4 |  8
RTX 4060 Ti         |   8 |  288 | 4 |  8
RTX 4060 Ti 16GB    |  16 |  288 | 4 |  8
RTX 4070            |  12 |  504 | 4 | 16
RTX 4070 Ti         |  12 |  504 | 4 | 16
RTX 4070 Ti Super   |  16 |  672 | 4 | 16
RTX 4080            |  16 |  717 | 4 | 16
RTX 4080 Super      |  16 |  736 | 4 | 16
RTX 4090            |  24 | 1008 | 4 | 16
RTX 4060 Laptop     |   8 |  256 | 4 |  8
RTX 4070 Laptop     |   8 |  256 | 4 |  8
RTX 4080 Laptop     |  12 |  432 | 4 | 16
RTX 4090 Laptop     |  16 |  576 | 4 | 16
RTX 5060            |   8 |  448 | 5 |  8
RTX 5060 Ti         |   8 |  448 | 5 |  8
RTX 5060 Ti 16GB    |  16 |  448 | 5 |  8
RTX 5070            |  12 |  672 | 5 | 16
RTX 5070 Ti         |  16 |  896 | 5 | 16
RTX 5080            |  16 |  960 | 5 | 16
RTX 5090            |  32 | 1792 | 5 | 16
RTX A2000           |  12 |  288 | 4 | 16
RTX A4000           |  16 |  448 | 4 | 16
RTX A5000           |  24 |  768 | 4 | 16
RTX A6000           |  48 |  768 | 4 | 16
RTX 4000 Ada        |  20 |  360 | 4 | 16
RTX 6000 Ada        |  48 |  960 | 4 | 16
RTX PRO 6000        |  96 | 1792 | 5 | 16
Tesla P40           |  24 |  347 | 3 | 16
Tesla T4            |  16 |  320 | 3 | 16
Tesla V100 32GB     |  32 |  900 | 3 | 16
A10                 |  24 |  600 | 4 | 16
A100 40GB           |  40 | 1555 | 4 | 16
A100 80GB           |  80 | 1935 | 4 | 16
L4                  |  24 |  300 | 4 | 16
L40S                |  48 |  864 | 4 | 16
H100 80GB PCIe      |  80 | 2039 | 5 | 16
H200                | 140 | 4800 | 5 | 16
"""
_AMD = """
RX 6600 XT          |   8 |  256 | 4 |  8
RX 6700 XT          |  12 |  384 | 4 | 16
RX 6800 XT          |  16 |  512 | 4 | 16
RX 7600             |   8 |  288 | 4 |  8
RX 7800 XT          |  16 |  624 | 4 | 16
RX 7900 XT          |  20 |  800 | 4 | 16
RX 7900 XTX         |  24 |  960 | 4 | 16
RX 9070 XT          |  16 |  640 | 5 | 16
"""
_INTEL = """
Arc A770 16GB       |  16 |  560 | 4 | 16
Arc B580            |  12 |  456 | 4 |  8
"""

GENERIC = Card("a GPU", 8, 400, 4, 16, "CUDA")
"""Stands for a card of which only the memory is known."""
CARDS = (*_cards("CUDA", _NVIDIA), *_cards("ROCm", _AMD), *_cards("SYCL", _INTEL))


def find_card(name: str) -> Card:
    """The card that a user names: `RTX 4060`, `rtx4060`, `GeForce RTX 4060`.

    Raises:
        BrimError: there is none of that name; the message names those that are like it.
    """
    wanted = _key(name)
    by_key = {_key(card.name): card for card in CARDS}
    if wanted in by_key:
        return by_key[wanted]
    numbers = re.findall(r"\d{2,}", name)
    alike = [card.name for card in CARDS if numbers and numbers[0] in card.name]
    hint = f"; there are {', '.join(alike)}" if alike else "; `brim plan MODEL --all-gpus` lists all"
    raise BrimError(f"no card called '{name}' is known{hint}. Give its memory instead: --vram 8GiB")


def _key(name: str) -> str:
    """A name without makers, spaces and case."""
    bare = re.sub(r"nvidia|geforce|amd|radeon|intel|gpu", "", name.lower())
    return re.sub(r"[^a-z0-9]", "", bare)


def generic_card(name: str, memory: int, number: int = 0) -> Device:
    """A card of so many bytes of memory and otherwise of a middling kind."""
    return replace(GENERIC.device(number), description=name, total=memory, free=memory)
