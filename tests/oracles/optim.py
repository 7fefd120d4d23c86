"""Optimisers as their papers print them: one vector in float64, one step at a time.

Nothing here is imported from the package.
"""

import math

import numpy as np


def sgd(x, gradients, lr):
    """x ← x − η g."""
    for g in gradients:
        x = x - lr * g
        yield x


def momentum(x, gradients, lr, beta, nesterov=False):
    """Velocities as in Sutskever et al. 2013, with a rate that does not change."""
    v = np.zeros(x.shape)
    for g in gradients:
        v = beta * v - lr * g
        x = x + (beta * v - lr * g if nesterov else v)
        yield x


def rmsprop(x, gradients, lr, beta, epsilon):
    """x ← x − η g / (√ mean of g² + ε)."""
    v = np.zeros(x.shape)
    for g in gradients:
        v = beta * v + (1 - beta) * g**2
        x = x - lr * g / (np.sqrt(v) + epsilon)
        yield x


def adam(x, gradients, lr, beta1, beta2, epsilon, decay=0.0):
    """Algorithm 1 of Kingma and Ba 2015; with decay, 2 of Loshchilov and Hutter 2019.

    `lr` may be a list, one rate for each step.
    """
    m, v = np.zeros(x.shape), np.zeros(x.shape)
    for t, g in enumerate(gradients, 1):
        rate = lr[t - 1] if isinstance(lr, list) else lr
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        x = x - rate * m_hat / (np.sqrt(v_hat) + epsilon) - rate * decay * x
        yield x


def cosine(t, peak, steps, warmup):
    """The learning rate of step t, by the points of a half circle."""
    if t <= warmup:
        return peak * t / warmup
    if t >= steps:
        return 0.0
    angle = 180 * (t - warmup) / (steps - warmup)
    return peak * math.cos(math.radians(angle / 2)) ** 2
