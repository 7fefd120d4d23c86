"""Derivatives by other ways than ours: differences, complex steps, and by hand.

Nothing here is imported from the package.
"""

from itertools import pairwise

import numpy as np
from scipy import linalg


def slope(f, x, v, h=1e-3):
    """d/dε f(x + ε v) at 0, by central differences at four steps, extrapolated.

    Romberg's table removes the errors in h², h⁴ and h⁶; what is left is round-off,
    about 1e-16 / (h/8) of the size of f.
    """
    rows = [(f(x + s * v) - f(x - s * v)) / (2 * s) for s in h / 2.0 ** np.arange(4)]
    for k in range(1, 4):
        rows = [(4**k * fine - coarse) / (4**k - 1) for coarse, fine in pairwise(rows)]
    return rows[0]


def curvature(f, x, u, v, h=4e-3):
    """d²/dε dδ f(x + ε u + δ v) at 0, the same way."""
    return slope(lambda y: slope(f, y, v, h), x, u, h)


def complex_step(f, x, v, h=1e-20):
    """d/dε f(x + ε v) at 0 of an analytic f: no difference, so no cancellation.

    Squire and Trapp 1998, "Using complex variables to estimate derivatives of real
    functions", SIAM Review 40, 110-112.
    """
    return np.imag(f(x + 1j * h * v)) / h


def central(f, x, h):
    """(f(x + h) − f(x − h)) / 2h, entry by entry of x."""
    out = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[i] = h
        out[i] = (f(x + step) - f(x - step)) / (2 * h)
    return out


def jacobian(f, x):
    """∂f/∂x, shape (shape of f + shape of x), one column for each entry of x."""
    columns = []
    for i in np.ndindex(x.shape):
        unit = np.zeros(x.shape)
        unit[i] = 1.0
        columns.append(slope(f, x, unit))
    return np.stack(columns, -1).reshape(columns[0].shape + x.shape)


def baydin(x1, x2):
    """Value, gradient and Hessian of ln x₁ + x₁ x₂ − sin x₂, by hand.

    The running example of Baydin, Pearlmutter, Radul and Siskind 2018, "Automatic
    differentiation in machine learning: a survey", JMLR 18(153), Tables 2 and 3.
    """
    value = np.log(x1) + x1 * x2 - np.sin(x2)
    gradient = np.array([1 / x1 + x2, x1 - np.cos(x2)])
    return value, gradient, np.array([[-1 / x1**2, 1.0], [1.0, np.sin(x2)]])


def exp_sin(x, n):
    """The n-th derivative of eˣ sin x: multiply by √2 and turn by π/4, n times."""
    return 2 ** (n / 2) * np.exp(x) * np.sin(x + n * np.pi / 4)


def mlp(weights, x, labels):
    """Loss and gradients of a tanh network with softmax cross-entropy, by hand.

    weights is a list of (W, b); the backward pass is written out layer by layer with
    loops over examples, as it stands in the textbooks before anything is vectorised.
    """
    loss = 0.0
    grads = [(np.zeros(W.shape), np.zeros(b.shape)) for W, b in weights]
    for row, label in zip(x, labels, strict=True):
        layers = [row]
        for i, (W, b) in enumerate(weights):
            z = layers[-1] @ W + b
            layers.append(z if i == len(weights) - 1 else np.tanh(z))
        p = np.exp(layers[-1] - layers[-1].max())
        p /= p.sum()
        loss -= np.log(p[label]) / len(x)
        delta = p.copy()
        delta[label] -= 1.0
        delta /= len(x)
        for i in reversed(range(len(weights))):
            grads[i][0][...] += np.outer(layers[i], delta)
            grads[i][1][...] += delta
            if i:
                delta = (weights[i][0] @ delta) * (1 - layers[i] ** 2)
    return loss, grads


def cholesky_tangent(L, dA):
    """dL for A = L Lᵀ: L Φ(L⁻¹ dA L⁻ᵀ), Φ the lower half with half its diagonal."""
    inner = linalg.solve_triangular(L, dA, lower=True)
    inner = linalg.solve_triangular(L, inner.T, lower=True).T
    return L @ (np.tril(inner) - 0.5 * np.diag(np.diag(inner)))
