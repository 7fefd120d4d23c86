"""Training steps side by side with PyTorch, JAX and HIPS autograd, in float32.

One step is the loss, its gradient and one update of Adam.  All sides start from the
same parameters and see the same batch, so their losses can be compared step by step.
PyTorch, JAX and autograd are needed here only: what is not installed is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
from bench.harness import Workload
from numpy.typing import NDArray

from mlfs import autodiff
from mlfs.core import nn, optim

LIBRARIES = ("numpy", "scipy", "torch", "jax", "autograd")
LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8  # Adam
HEADS = 4
COMPARED = 5  # steps whose losses must agree before any is timed

Tree = dict[str, Any]  # nested dicts and lists of float32 arrays
Step = Callable[[], float]  # one training step; returns the loss before it
Data = NDArray[Any]


def optional(name: str) -> Any:
    """The module of this name, or None where it is not installed."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        return None


torch, jax, hips = optional("torch"), optional("jax"), optional("autograd")


# What is timed


@dataclass(frozen=True, slots=True)
class Task:
    """A problem, the step of each side on it, and the targets.

    `problem` makes the same parameters and data anew on each call, since a side may
    update its parameters in place.  `target` maps a peer to the largest good ratio.
    """

    name: str
    problem: Callable[[], tuple[Any, ...]]
    ours: Callable[..., Callable[[], Any]]
    peers: dict[str, Callable[..., Callable[[], Any]]]
    target: dict[str, float]
    rounds: int
    repeat: int = 1


def workloads() -> Iterator[Workload]:
    """Every task against every peer that is installed."""
    for task in tasks():
        for peer, make in task.peers.items():
            if PEERS[peer] is None:
                continue
            yield Workload(
                task.name,
                task.ours(*task.problem()),
                peer,
                make(*task.problem()),
                same,
                task.target.get(peer),
                task.rounds,
                repeat=task.repeat,
                compared=COMPARED,
            )


PEERS = {"PyTorch": torch, "JAX": jax, "autograd": hips}


def tasks() -> list[Task]:
    """The six tasks: four networks to train, and a small one to act with and train."""
    third = 1 / 3
    return [
        Task(
            "MLP 64-256-256-10, batch 128",
            mlp_problem,
            ours_mlp,
            peers(torch_mlp, jax_step(mlp_loss), hips_step(mlp_loss)),
            {"PyTorch": 1.0, "autograd": third},
            60,
        ),
        Task(
            "convolutions, 2 of 3x3x32 on 8x8, batch 64",
            conv_problem,
            ours_conv,
            peers(torch_conv, jax_step(conv_loss), hips_step(conv_loss)),
            {"PyTorch": 1.0, "autograd": third},
            30,
        ),
        Task(
            "transformer, 2 blocks, d = 64, T = 64, batch 32",
            transformer_problem,
            ours_transformer,
            peers(
                torch_transformer,
                jax_step(transformer_loss),
                hips_step(transformer_loss),
            ),
            {"PyTorch": 1.2, "autograd": third},
            20,
        ),
        Task(
            "LSTM 32-64, T = 50, batch 32",
            lstm_problem,
            ours_lstm,
            peers(torch_lstm, jax_step(lstm_loss), hips_step(lstm_loss)),
            {"PyTorch": 1.3, "autograd": third},
            30,
        ),
        Task(
            "value net 4-64-64-2: act on one observation",
            act_problem,
            ours_act,
            peers(torch_act, jax_act, hips_act),
            {"PyTorch": 0.5, "autograd": third},
            40,
            repeat=200,
        ),
        Task(
            "value net 4-64-64-2: update on a batch of 64",
            update_problem,
            ours_update,
            peers(torch_update, jax_step(value_loss), hips_step(value_loss)),
            {"PyTorch": 0.5, "autograd": third},
            # 600 steps: after 800 the mean gradient of a unit that died (0.9**n)
            # leaves the normal range of float32, where arithmetic is slow.
            30,
            repeat=20,
        ),
    ]


def peers(*makers: Callable[..., Callable[[], Any]]) -> dict[str, Any]:
    """The maker of each peer's step, by the peer's name."""
    return dict(zip(PEERS, makers, strict=True))


def same(ours: float, theirs: float) -> None:
    """The losses, or the actions, agree to 1e-4 of their size.

    Raises:
        AssertionError: they do not.
    """
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


# Parameters and data


def dense(rng: np.random.Generator, n: int, m: int) -> Tree:
    """Weights W (n, m) of variance 2 / n and biases b (m,) near zero."""
    return {"W": normal(rng, (n, m), math.sqrt(2 / n)), "b": normal(rng, (m,), 0.01)}


def normal(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Data:
    """Normal float32 numbers with mean zero."""
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def mlp_parameters(rng: np.random.Generator, *sizes: int) -> list[Tree]:
    """Dense layers between layers of these sizes."""
    return [dense(rng, n, m) for n, m in pairwise(sizes)]


def conv_parameters(rng: np.random.Generator) -> Tree:
    """Two 3x3 kernels W (3, 3, in, 32) with b (32,), and a dense layer to 10."""
    kernels = {}
    for name, n in (("conv1", 1), ("conv2", 32)):
        W = normal(rng, (3, 3, n, 32), math.sqrt(2 / (9 * n)))
        kernels[name] = {"W": W, "b": normal(rng, (32,), 0.01)}
    return kernels | {"out": dense(rng, 8 * 8 * 32, 10)}


def transformer_parameters(rng: np.random.Generator) -> Tree:
    """Embeddings, two pre-norm blocks, the last norm and the dense layer to 65."""
    d = 64
    return {
        "token": normal(rng, (65, d), 0.5),
        "position": normal(rng, (64, d), 0.5),
        "block1": block_parameters(rng, d),
        "block2": block_parameters(rng, d),
        "norm": norm_parameters(rng, d),
        "out": dense(rng, d, 65),
    }


def block_parameters(rng: np.random.Generator, d: int) -> Tree:
    """Attention (qkv and out) and an MLP (up and down), each with its norm."""
    return {
        "norm1": norm_parameters(rng, d),
        "attention": {"qkv": dense(rng, d, 3 * d), "out": dense(rng, d, d)},
        "norm2": norm_parameters(rng, d),
        "up": dense(rng, d, 4 * d),
        "down": dense(rng, 4 * d, d),
    }


def norm_parameters(rng: np.random.Generator, d: int) -> Tree:
    """Scale near one and shift near zero, both (d,)."""
    return {"scale": 1 + normal(rng, (d,), 0.1), "shift": normal(rng, (d,), 0.1)}


def lstm_parameters(rng: np.random.Generator) -> Tree:
    """Wx (32, 256) from x, Wh (64, 256) from h, b (256,); gates i, f, g, o."""
    cell = {
        "Wx": normal(rng, (32, 256), 0.125),
        "Wh": normal(rng, (64, 256), 0.125),
        "b": normal(rng, (256,), 0.1),
    }
    return {"lstm": cell, "out": dense(rng, 64, 10)}


def mlp_problem() -> tuple[list[Tree], Data, Data]:
    """Parameters, x (128, 64) and classes y (128,)."""
    rng = np.random.default_rng(1)
    p = mlp_parameters(rng, 64, 256, 256, 10)
    return p, normal(rng, (128, 64), 1.0), rng.integers(10, size=128)


def conv_problem() -> tuple[Tree, Data, Data]:
    """Parameters, images x (64, 8, 8, 1) and classes y (64,)."""
    rng = np.random.default_rng(2)
    p = conv_parameters(rng)
    return p, normal(rng, (64, 8, 8, 1), 1.0), rng.integers(10, size=64)


def transformer_problem() -> tuple[Tree, Data, Data]:
    """Parameters, tokens x (32, 64) and the tokens that follow them."""
    rng = np.random.default_rng(3)
    p = transformer_parameters(rng)
    text = rng.integers(65, size=(32, 65))
    return p, text[:, :-1].copy(), text[:, 1:].copy()


def lstm_problem() -> tuple[Tree, Data, Data]:
    """Parameters, x (T, batch, input) = (50, 32, 32) and classes y (32,)."""
    rng = np.random.default_rng(4)
    p = lstm_parameters(rng)
    return p, normal(rng, (50, 32, 32), 1.0), rng.integers(10, size=32)


def act_problem() -> tuple[list[Tree], Data]:
    """Parameters and one observation (4,)."""
    rng = np.random.default_rng(5)
    return mlp_parameters(rng, 4, 64, 64, 2), normal(rng, (4,), 1.0)


def update_problem() -> tuple[list[Tree], Data, tuple[Data, Data]]:
    """Parameters, observations (64, 4), and of each the action and its target."""
    rng = np.random.default_rng(6)
    p, x = mlp_parameters(rng, 4, 64, 64, 2), normal(rng, (64, 4), 1.0)
    return p, x, (rng.integers(2, size=64), normal(rng, (64,), 1.0))


# Ours


def ours_step(loss: Callable[..., Any], parameters: Any, *data: Any) -> Step:
    """One step on loss(parameters, *data), ours."""
    optim.keep_memory()  # as optim.fit does; the peers here gain from it, too
    slope = autodiff.value_and_grad(loss)
    adam = optim.Adam(LR, beta1=BETA1, beta2=BETA2, epsilon=EPS)
    state = adam.init(parameters)

    def step() -> float:
        nonlocal state
        value, gradients = slope(state.parameters, *data)
        state = adam.step(state, gradients)
        return float(value)

    return step


def ours_mlp(parameters: list[Tree], x: Data, y: Data) -> Step:
    """A step of the MLP, ours."""

    def loss(p: list[Tree], x: Any, y: Any) -> Any:
        return nn.mean_cross_entropy(nn.mlp(p, x), y)

    return ours_step(loss, parameters, x, y)


def ours_conv(parameters: Tree, x: Data, y: Data) -> Step:
    """A step of the convolutional net, ours."""

    def loss(p: Tree, x: Any, y: Any) -> Any:
        for name in ("conv1", "conv2"):
            x = nn.conv2d(p[name], x, padding=1, activation="relu")
        flat = np.reshape(x, (len(x), -1))
        return nn.mean_cross_entropy(nn.dense(p["out"], flat), y)

    return ours_step(loss, parameters, x, y)


def ours_transformer(parameters: Tree, x: Data, y: Data) -> Step:
    """A step of the transformer, ours."""

    def loss(p: Tree, x: Any, y: Any) -> Any:
        x = nn.embedding(p["token"], x) + p["position"]
        for name in ("block1", "block2"):
            x = nn.block(p[name], x, heads=HEADS, causal=True)
        z = nn.dense(p["out"], nn.layer_norm(p["norm"], x))
        return nn.mean_cross_entropy(z, y)

    return ours_step(loss, parameters, x, y)


def ours_lstm(parameters: Tree, x: Data, y: Data) -> Step:
    """A step of the LSTM, ours."""

    def loss(p: Tree, x: Any, y: Any) -> Any:
        h, _ = nn.lstm(p["lstm"], x)
        return nn.mean_cross_entropy(nn.dense(p["out"], h[-1]), y)

    return ours_step(loss, parameters, x, y)


def ours_act(parameters: list[Tree], x: Data) -> Callable[[], int]:
    """The action of the largest value, ours."""
    return lambda: int(nn.mlp(parameters, x).argmax())


def ours_update(parameters: list[Tree], x: Data, chosen: tuple[Data, Data]) -> Step:
    """A step towards the targets of the chosen actions, ours."""
    rows = np.arange(len(x))

    def loss(p: list[Tree], x: Any, chosen: tuple[Any, Any]) -> Any:
        action, target = chosen
        return np.mean((nn.mlp(p, x)[rows, action] - target) ** 2)

    return ours_step(loss, parameters, x, chosen)


# PyTorch: modules as its users write them, eager


def torch_step(loss: Callable[[], Any], weights: list[Any]) -> Step:
    """One step of torch.optim.Adam on these weights."""
    torch.set_num_threads(1)
    adam = torch.optim.Adam(weights, lr=LR, betas=(BETA1, BETA2), eps=EPS)

    def step() -> float:
        adam.zero_grad()
        value = loss()
        value.backward()
        adam.step()
        return float(value.item())

    return step


def torch_mlp(parameters: list[Tree], x: Data, y: Data) -> Step:
    """A step of the MLP in PyTorch."""
    net = torch_net(parameters)
    entropy = torch.nn.functional.cross_entropy
    x, y = torch.tensor(x), torch.tensor(y)
    return torch_step(lambda: entropy(net(x), y), list(net.parameters()))


def torch_net(p: list[Tree]) -> Any:
    """Dense layers with ReLU between them."""
    *hidden, out = (torch_dense(layer) for layer in p)
    pairs = [(layer, torch.nn.ReLU()) for layer in hidden]
    return torch.nn.Sequential(*(part for pair in pairs for part in pair), out)


def torch_dense(p: Tree) -> Any:
    """A torch.nn.Linear, which keeps its weights as (out, in)."""
    return torch_load(torch.nn.Linear(*p["W"].shape), p["W"].T, p["b"])


def torch_load(module: Any, *arrays: Data) -> Any:
    """The module with these values in its parameters, in their order."""
    with torch.no_grad():
        for weight, array in zip(module.parameters(), arrays, strict=True):
            weight.copy_(torch.tensor(np.ascontiguousarray(array)))
    return module


def torch_conv(parameters: Tree, x: Data, y: Data) -> Step:
    """A step of the convolutional net in PyTorch, images as (batch, channel, 8, 8)."""
    kernels = []
    for name in ("conv1", "conv2"):
        W, b = parameters[name].values()
        kernel = torch.nn.Conv2d(*W.shape[2:], kernel_size=3, padding=1)
        kernels.append(torch_load(kernel, W.transpose(3, 2, 0, 1), b))
    out = dict(parameters["out"])
    # Flattened, its channels come before the places; ours come after.
    out["W"] = out["W"].reshape(8, 8, 32, 10).transpose(2, 0, 1, 3).reshape(-1, 10)
    net = torch.nn.Sequential(
        kernels[0],
        torch.nn.ReLU(),
        kernels[1],
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch_dense(out),
    )
    entropy = torch.nn.functional.cross_entropy
    x, y = torch.tensor(x.transpose(0, 3, 1, 2).copy()), torch.tensor(y)
    return torch_step(lambda: entropy(net(x), y), list(net.parameters()))


def torch_transformer(parameters: Tree, x: Data, y: Data) -> Step:
    """A step of the transformer in PyTorch, with its fused attention."""
    F = torch.nn.functional
    net = torch.nn.ModuleDict(
        {name: torch_block(parameters[name]) for name in ("block1", "block2")}
        | {
            "token": torch_load(torch.nn.Embedding(65, 64), parameters["token"]),
            "position": torch_load(torch.nn.Embedding(64, 64), parameters["position"]),
            "norm": torch_norm(parameters["norm"]),
            "out": torch_dense(parameters["out"]),
        }
    )

    def block(p: Any, x: Any) -> Any:
        B, T, d = x.shape
        qkv = p["attention"]["qkv"](p["norm1"](x)).view(B, T, 3, HEADS, d // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + p["attention"]["out"](heads.transpose(1, 2).reshape(B, T, d))
        return x + p["down"](F.gelu(p["up"](p["norm2"](x))))

    def loss() -> Any:
        h = net["token"](x) + net["position"].weight
        h = block(net["block2"], block(net["block1"], h))
        return F.cross_entropy(net["out"](net["norm"](h)).flatten(0, 1), y)

    x, y = torch.tensor(x), torch.tensor(y.ravel())
    return torch_step(loss, list(net.parameters()))


def torch_block(p: Tree) -> Any:
    """The modules of one block, under the same names."""
    return torch.nn.ModuleDict({name: torch_part(part) for name, part in p.items()})


def torch_part(p: Tree) -> Any:
    """A dense layer or a norm, or what holds several of them."""
    if "W" in p:
        return torch_dense(p)
    return torch_norm(p) if "scale" in p else torch_block(p)


def torch_norm(p: Tree) -> Any:
    """A torch.nn.LayerNorm."""
    return torch_load(torch.nn.LayerNorm(len(p["scale"])), *p.values())


def torch_lstm(parameters: Tree, x: Data, y: Data) -> Step:
    """A step of torch.nn.LSTM.

    It has two biases that are only ever added.  The second is held at zero here;
    with both, each would take Adam's step, and their sum twice the step.
    """
    Wx, Wh, b = parameters["lstm"].values()
    lstm = torch_load(torch.nn.LSTM(32, 64), Wx.T, Wh.T, b, np.zeros_like(b))
    lstm.bias_hh_l0.requires_grad_(False)
    out = torch_dense(parameters["out"])
    weights = [lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0]
    entropy = torch.nn.functional.cross_entropy
    x, y = torch.tensor(x), torch.tensor(y)

    def loss() -> Any:
        _, (h, _) = lstm(x)
        return entropy(out(h[0]), y)

    return torch_step(loss, [*weights, *out.parameters()])


def torch_act(parameters: list[Tree], x: Data) -> Callable[[], int]:
    """The action of the largest value in PyTorch, without recording."""
    torch.set_num_threads(1)
    net = torch_net(parameters)

    def act() -> int:
        with torch.no_grad():
            return int(net(torch.from_numpy(x)).argmax().item())

    return act


def torch_update(parameters: list[Tree], x: Data, chosen: tuple[Data, Data]) -> Step:
    """A step towards the targets of the chosen actions in PyTorch."""
    net = torch_net(parameters)
    x, action, target = (torch.tensor(each) for each in (x, *chosen))
    action = action[:, None]

    def loss() -> Any:
        q = net(x).gather(1, action)[:, 0]
        return torch.nn.functional.mse_loss(q, target)

    return torch_step(loss, list(net.parameters()))


# JAX and autograd: one text of the losses, and `lib` for what differs between the two


def mlp(lib: Any, p: list[Tree], x: Any) -> Any:
    """Dense layers with ReLU between them."""
    *hidden, out = p
    for layer in hidden:
        x = lib.np.maximum(x @ layer["W"] + layer["b"], 0)
    return x @ out["W"] + out["b"]


def cross_entropy(lib: Any, z: Any, y: Any) -> Any:
    """-log softmax(z)[y], the mean over rows."""
    return lib.np.mean(lib.logsumexp(z, axis=1) - z[np.arange(len(y)), y])


def mlp_loss(lib: Any, p: list[Tree], x: Any, y: Any) -> Any:
    """The loss of the MLP."""
    return cross_entropy(lib, mlp(lib, p, x), y)


def conv_loss(lib: Any, p: Tree, x: Any, y: Any) -> Any:
    """The loss of the convolutional net."""
    for name in ("conv1", "conv2"):
        x = lib.np.maximum(lib.conv(p[name]["W"], x) + p[name]["b"], 0)
    flat = lib.np.reshape(x, (len(y), -1))
    return cross_entropy(lib, flat @ p["out"]["W"] + p["out"]["b"], y)


def transformer_loss(lib: Any, p: Tree, x: Any, y: Any) -> Any:
    """The loss of the transformer."""
    x = p["token"][x] + p["position"]
    x = block(lib, p["block2"], block(lib, p["block1"], x))
    z = layer_norm(lib, p["norm"], x) @ p["out"]["W"] + p["out"]["b"]
    return cross_entropy(lib, lib.np.reshape(z, (-1, 65)), lib.np.reshape(y, (-1,)))


def block(lib: Any, p: Tree, x: Any) -> Any:
    """Attention and the MLP, each on the normed stream and added to it."""
    qkv, out = p["attention"]["qkv"], p["attention"]["out"]
    h = layer_norm(lib, p["norm1"], x) @ qkv["W"] + qkv["b"]
    x = x + attention(lib, h) @ out["W"] + out["b"]
    h = layer_norm(lib, p["norm2"], x) @ p["up"]["W"] + p["up"]["b"]
    h = 0.5 * h * (1 + lib.erf(h / math.sqrt(2)))
    return x + h @ p["down"]["W"] + p["down"]["b"]


def layer_norm(lib: Any, p: Tree, x: Any) -> Any:
    """Each vector with mean zero and variance one, then scaled and shifted."""
    x = x - lib.np.mean(x, axis=-1, keepdims=True)
    deviation = lib.np.sqrt(lib.np.mean(x * x, axis=-1, keepdims=True) + 1e-5)
    return x / deviation * p["scale"] + p["shift"]


def attention(lib: Any, qkv: Any) -> Any:
    """Causal attention of qkv (B, T, 3 d), its heads side by side in (B, T, d)."""
    B, T, d = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    heads = lib.np.reshape(qkv, (B, T, 3, HEADS, d // HEADS))
    q, k, v = lib.np.transpose(heads, (2, 0, 3, 1, 4))
    mask = np.triu(np.full((T, T), -np.inf, dtype=np.float32), 1)
    s = q @ lib.np.swapaxes(k, 2, 3) * (1 / math.sqrt(d // HEADS)) + mask
    out = lib.np.transpose(lib.softmax(s) @ v, (0, 2, 1, 3))
    return lib.np.reshape(out, (B, T, d))


def lstm_loss(lib: Any, p: Tree, x: Any, y: Any) -> Any:
    """The loss of the LSTM."""
    h = lib.hidden(p["lstm"], x)
    return cross_entropy(lib, h @ p["out"]["W"] + p["out"]["b"], y)


def value_loss(lib: Any, p: list[Tree], x: Any, chosen: tuple[Any, Any]) -> Any:
    """The mean squared error of the chosen actions' values."""
    action, target = chosen
    q = mlp(lib, p, x)[np.arange(len(x)), action]
    return lib.np.mean((q - target) ** 2)


def cell(lib: Any, z: Any, c: Any) -> tuple[Any, Any]:
    """One time step of the LSTM from the gates' inputs z (batch, 4 H) and c."""
    i, f, g, o = lib.np.split(z, 4, axis=1)
    c = lib.sigmoid(f) * c + lib.sigmoid(i) * lib.np.tanh(g)
    return lib.sigmoid(o) * lib.np.tanh(c), c


# JAX: the whole step compiled


def jax_step(loss: Callable[..., Any]) -> Callable[..., Step]:
    """Maker of a step on this loss, forward, backward and Adam in one jax.jit."""

    def make(parameters: Any, *data: Any) -> Step:
        state = jax_start(parameters)
        data = jax.tree.map(jax.numpy.asarray, data)
        update = jax.jit(partial(jax_update, partial(loss, jax_lib())))

        def step() -> float:
            nonlocal state
            value, state = jax.block_until_ready(update(state, *data))
            return float(value)

        return step

    return make


def jax_start(parameters: Any) -> tuple[Any, ...]:
    """The parameters, Adam's two means and the number of steps, on JAX's device."""
    p = jax.tree.map(jax.numpy.array, parameters)
    zero = jax.tree.map(jax.numpy.zeros_like, p)
    return p, zero, zero, jax.numpy.float32(0)


def jax_update(loss: Callable[..., Any], state: tuple[Any, ...], *data: Any) -> Any:
    """The loss and the state after one step of Adam."""
    p, m, v, t = state
    value, g = jax.value_and_grad(loss)(p, *data)
    t = t + 1
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
    rate, root = LR / (1 - BETA1**t), jax.numpy.sqrt(1 - BETA2**t)

    def moved(p: Any, m: Any, v: Any) -> Any:
        return p - rate * m / (jax.numpy.sqrt(v) / root + EPS)

    return value, (jax.tree.map(moved, p, m, v), m, v, t)


def jax_lib() -> SimpleNamespace:
    """What the losses need, from JAX."""
    jnp = jax.numpy

    def conv(W: Any, x: Any) -> Any:
        return jax.lax.conv_general_dilated(
            x, W, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def hidden(p: Tree, x: Any) -> Any:
        def forward(hc: tuple[Any, Any], z: Any) -> tuple[Any, None]:
            return cell(lib, z + hc[0] @ p["Wh"], hc[1]), None

        zero = jnp.zeros((x.shape[1], len(p["Wh"])), x.dtype)
        (h, _), _ = jax.lax.scan(forward, (zero, zero), x @ p["Wx"] + p["b"])
        return h

    lib = SimpleNamespace(
        np=jnp,
        erf=jax.scipy.special.erf,
        logsumexp=jax.scipy.special.logsumexp,
        sigmoid=jax.nn.sigmoid,
        softmax=jax.nn.softmax,
        conv=conv,
        hidden=hidden,
    )
    return lib


def jax_act(parameters: list[Tree], x: Data) -> Callable[[], int]:
    """The action of the largest value in JAX."""
    lib, p = jax_lib(), jax.tree.map(jax.numpy.array, parameters)
    best = jax.jit(lambda p, x: lib.np.argmax(mlp(lib, p, x)))
    return lambda: int(best(p, x))


# HIPS autograd: plain code, and Adam array by array


def hips_step(loss: Callable[..., Any]) -> Callable[..., Step]:
    """Maker of a step on this loss in autograd."""

    def make(parameters: Any, *data: Any) -> Step:
        slope = hips.value_and_grad(partial(loss, hips_lib()))
        weights = leaves(parameters)
        means = [(np.zeros_like(w), np.zeros_like(w)) for w in weights]
        t = 0

        def step() -> float:
            nonlocal t
            t += 1
            value, gradient = slope(parameters, *data)
            for w, g, (m, v) in zip(weights, leaves(gradient), means, strict=True):
                m += (1 - BETA1) * (g - m)
                v += (1 - BETA2) * (g * g - v)
                w -= LR / (1 - BETA1**t) * m / (np.sqrt(v / (1 - BETA2**t)) + EPS)
            return float(value)

        return step

    return make


def leaves(tree: Any) -> list[Data]:
    """The arrays of nested dicts and lists, in order."""
    if isinstance(tree, dict):
        return leaves(list(tree.values()))
    if isinstance(tree, list):
        return [array for part in tree for array in leaves(part)]
    return [tree]


def hips_lib() -> SimpleNamespace:
    """What the losses need, from autograd."""
    anp = import_module("autograd.numpy")
    special = import_module("autograd.scipy.special")

    def conv(W: Any, x: Any) -> Any:
        H, width = x.shape[1:3]
        x = anp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "constant")
        near = [x[:, i : i + H, j : j + width] for i in range(3) for j in range(3)]
        return anp.concatenate(near, axis=3) @ anp.reshape(W, (-1, W.shape[3]))

    def hidden(p: Tree, x: Any) -> Any:
        h = c = np.zeros((x.shape[1], len(p["Wh"])), x.dtype)
        for x_t in x:
            h, c = cell(lib, x_t @ p["Wx"] + h @ p["Wh"] + p["b"], c)
        return h

    lib = SimpleNamespace(
        np=anp,
        erf=special.erf,
        logsumexp=special.logsumexp,
        sigmoid=lambda x: 0.5 * (1 + anp.tanh(0.5 * x)),
        softmax=lambda s: anp.exp(s - special.logsumexp(s, axis=-1, keepdims=True)),
        conv=conv,
        hidden=hidden,
    )
    return lib


def hips_act(parameters: list[Tree], x: Data) -> Callable[[], int]:
    """The action of the largest value through autograd's NumPy."""
    lib = hips_lib()
    return lambda: int(lib.np.argmax(mlp(lib, parameters, x)))
