"""Whether a network is the one that something was found for: told by a few of its weights.

They are read where they lie, so that a network is known again under another name, on another device, in another dtype.
"""

from typing import Any

import torch

PARAMETERS, VALUES = 8, 16  # of how many parameters, evenly through the network, how many values each
SAME = 0.01  # the relative distance up to which they are one network's; bfloat16 rounds by 0.002


def fingerprint(network: torch.nn.Module) -> dict[str, Any] | None:
    """Some facts of a network, as JSON holds them; None where its weights are elsewhere until they are used."""
    named = [(name, values) for name, values in network.named_parameters() if values.is_floating_point()]
    chosen = [named[i * (len(named) - 1) // max(PARAMETERS - 1, 1)] for i in range(min(PARAMETERS, len(named)))]
    if not chosen or any(values.device.type == "meta" for _, values in chosen):
        return None
    return {
        "network": type(network).__name__,
        "parameters": sum(values.numel() for _, values in named),
        "weights": [[round(float(v), 6) for v in values.detach().flatten()[:VALUES]] for _, values in chosen],
    }


def difference(there: dict[str, Any], here: dict[str, Any]) -> str | None:
    """In what two networks differ, in a few words; None where they are one."""
    for name in ("network", "parameters"):
        if there.get(name) != here[name]:
            return f"its {name}: {there.get(name)} there, {here[name]} here"
    a, b = (torch.tensor(sum(facts["weights"], [])) for facts in (there, here))
    if a.shape != b.shape or float((a - b).norm()) > SAME * float(a.norm()):
        return "its weights"
    return None
