"""The work of tools/bench.py in PyTorch: a process that answers requests by line.

    python tools/bench_torch.py torch|easyfsl

This reads requests from standard input, one JSON object per line, and answers each with
one JSON object. It needs torch, and easyfsl for that peer, and may run in a different
environment than jaxfer. Images are `classes` x 20 random images of the shape that is
asked for, since the time does not depend on their content.
"""

import json
import platform
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

PER_CLASS = 20


class Flatten(nn.Module):
    """Flattens all axes but the first."""

    def forward(self, x):
        """Return the flattened batch."""
        return x.reshape(x.size(0), -1)


def conv4(image_channels: int) -> nn.Sequential:
    """Return the embedding network of Snell et al. 2017: four blocks of 64 channels."""
    blocks = []
    for channels in (image_channels, 64, 64, 64):
        blocks += [
            nn.Conv2d(channels, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*blocks, Flatten())


class Snell:
    """Embeds support and query in one pass; distances are computed by broadcasting."""

    def __init__(self, net: nn.Module, layout: torch.memory_format) -> None:
        """Store the embedding network and the memory layout of its images."""
        self.net = net
        self.layout = layout

    def logits(self, support, query):
        """Return minus the squared distances, `[way * n_query, way]`."""
        way, shot = support.shape[:2]
        images = torch.cat([support.flatten(0, 1), query.flatten(0, 1)])
        z = self.net(images.contiguous(memory_format=self.layout))
        prototypes = z[: way * shot].view(way, shot, -1).mean(1)
        queries = z[way * shot :]
        return -torch.pow(queries.unsqueeze(1) - prototypes.unsqueeze(0), 2).sum(2)


class EasyFsl:
    """The same method in easyfsl, whose distances are not squared."""

    def __init__(self, net: nn.Module, layout: torch.memory_format) -> None:
        """Store the embedding network and the memory layout of its images."""
        from easyfsl.methods import PrototypicalNetworks

        self.net = PrototypicalNetworks(net)
        self.layout = layout

    def logits(self, support, query):
        """Return minus the distances, `[way * n_query, way]`."""
        labels = torch.arange(support.shape[0], device=support.device)
        labels = labels.repeat_interleave(support.shape[1])
        flat = [
            x.flatten(0, 1).contiguous(memory_format=self.layout)
            for x in (support, query)
        ]
        self.net.process_support_set(flat[0], labels)
        return self.net(flat[1])


class Work:
    """One kind of work, prepared for timing."""

    def __init__(self, name: str, request: dict) -> None:
        """Create images, network and optimizer."""
        torch.manual_seed(0)
        self.device = torch.device(request["device"])
        self.way, self.shot, self.query = (request[k] for k in ("way", "shot", "query"))
        height, width, channels = request["image"]
        shape = (request["classes"], PER_CLASS, channels, height, width)
        images = torch.randint(0, 256, shape, dtype=torch.uint8)
        self.images = images.to(self.device)
        self.training = request["what"] == "train"
        layouts = {"nchw": torch.contiguous_format}
        layouts["channels_last"] = torch.channels_last
        layout = layouts[request["layout"]]
        net = conv4(channels).to(self.device, memory_format=layout)
        self.model = (EasyFsl if name == "easyfsl" else Snell)(net, layout)
        self.model.net.train(self.training)
        self.optimizer = torch.optim.Adam(self.model.net.parameters(), lr=1e-3)

    def episode(self):
        """Return support and query of random classes, as floats in [0, 1]."""
        n = self.shot + self.query
        chosen = torch.randperm(len(self.images))[: self.way]
        rows = torch.stack([torch.randperm(PER_CLASS)[:n] for _ in range(self.way)])
        images = self.images[chosen[:, None], rows].float() / 255
        return images[:, : self.shot], images[:, self.shot :]

    def __call__(self, episodes: int) -> float:
        """Return the seconds that a number of episodes takes."""
        labels = torch.arange(self.way).repeat_interleave(self.query).to(self.device)
        began = time.perf_counter()
        for _ in range(episodes):
            support, query = self.episode()
            if self.training:
                self.optimizer.zero_grad()
                loss = F.cross_entropy(self.model.logits(support, query), labels)
                loss.backward()
                self.optimizer.step()
                loss.item()
            else:
                with torch.no_grad():
                    logits = self.model.logits(support, query)
                    (logits.argmax(1) == labels).float().mean().item()
        return time.perf_counter() - began


def main() -> None:
    """Answer requests until there are no more."""
    name = sys.argv[1]
    if name == "easyfsl":
        import easyfsl  # noqa: F401  # Fail at once if missing.
    works: dict[str, Work] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "threads" in request:
            torch.set_num_threads(request["threads"])
            answer = {"torch": torch.__version__, "python": platform.python_version()}
        else:
            episodes = request.pop("episodes")
            key = json.dumps(request)
            works[key] = works.get(key) or Work(name, request)
            answer = {"seconds": works[key](episodes)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
