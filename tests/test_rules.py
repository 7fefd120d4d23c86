"""Every derivative in the table: against differences, to second order, both ways.

No rule is listed here by hand: they are found in `rules.RULES`, and a rule that CASES
does not know fails a test that says so.
"""

import functools
import itertools

import numpy as np
import pytest
from scipy import special

from mlfs import autodiff as ad
from mlfs.core import rules, tape
from mlfs.core.tape import CONSTANT, RULES
from oracles import autodiff as oracle

# ---------------------------------------------------------------- cases

# Where a ufunc of one argument is smooth; the whole line by default.
DOMAIN = {
    np.log: (0.3, 3.0),
    np.log2: (0.3, 3.0),
    np.log10: (0.3, 3.0),
    np.log1p: (-0.6, 2.0),
    np.sqrt: (0.3, 3.0),
    np.reciprocal: (0.4, 2.0),
    np.arcsin: (-0.8, 0.8),
    np.arccos: (-0.8, 0.8),
    np.tan: (-1.2, 1.2),
    special.gammaln: (0.5, 4.0),
    special.psi: (0.5, 4.0),
}
ANALYTIC = {
    *(np.exp, np.exp2, np.expm1, np.log, np.log2, np.log10, np.log1p, np.sin, np.cos),
    *(np.tan, np.sinh, np.cosh, np.tanh, np.arctan, np.sqrt, np.square, np.reciprocal),
    *(np.negative, np.positive, np.arcsin, np.arccos),
}
PAIRS = {  # where both arguments of a ufunc of two are smooth
    np.divide: ((-2.0, 2.0), (0.5, 2.0)),
    np.power: ((0.4, 2.0), (-2.0, 2.0)),
    np.arctan2: ((0.3, 2.0), (0.3, 2.0)),
}
BROADCASTS = [
    ((), ()),
    ((3,), (3,)),
    ((3,), ()),
    ((), (2, 3)),
    ((2, 3), (3,)),
    ((3,), (2, 3)),
    ((2, 1), (1, 3)),
    ((2, 1, 3), (4, 1)),
    ((1, 3), (2, 3)),
    ((1,), (2, 1)),
]


def spd(x):
    """A symmetric positive definite matrix of any matrix."""
    return x @ np.swapaxes(x, -1, -2) + 2.0 * np.eye(x.shape[-1])


def away(x):
    """A matrix that is well conditioned, of any matrix."""
    return x + 3.0 * np.eye(x.shape[-1])


class Draw:
    """Arrays of given shapes, the same in every run; no kink at 0 within a step."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def __call__(self, *shape, low=-2.0, high=2.0):
        x = np.asarray(self.rng.uniform(low, high, shape))
        return np.asarray(x + 0.05 * np.sign(x) if low < 0 else x)


draw = Draw(0)
more = Draw(1)  # so that new cases leave the old ones as they are
i_rep = np.array([0, 2, 2, 1])
mask = np.array([True, False, True])
_x = draw(2, 3)

# What no table tells: how to call it, and on what.  (function, arguments)
CASES = {
    np.where: [
        (lambda a, b: np.where(mask, a, b), (draw(2, 3), draw(3))),
        (lambda a, b: np.where(a > 0, a, b), (draw(2, 3), draw())),
    ],
    np.absolute: [(abs, (draw(2, 3),)), (np.abs, (draw(),))],
    np.real: [(lambda x: np.real(x * (1 + 2j)), (draw(3),)), (np.real, (draw(3),))],
    np.imag: [(lambda x: np.imag(np.exp(1j * x)), (draw(3),))],
    np.conjugate: [(lambda x: np.imag(np.conj(x * (1 + 2j)) * x), (draw(3),))],
    getattr(np, "astype", "astype"): [
        (lambda x: x.astype(np.float64) * x, (draw(3),)),
        (lambda x: np.real(x.astype(complex) * (x + 1j * x**2)), (draw(3),)),
    ],
    np.clip: [
        (lambda x: np.clip(x, -1.0, 1.0), (draw(3, 4),)),
        (lambda x, lo: np.clip(x, lo, None), (draw(3, 4), draw(4))),
        (lambda x, hi: x.clip(None, hi), (draw(3, 4), draw(3, 1))),
    ],
    np.copy: [(lambda x: x.copy() * np.copy(x), (draw(3),))],
    np.sum: [
        (np.sum, (draw(2, 3),)),
        (lambda x: np.sum(x, 0), (draw(2, 3),)),
        (lambda x: np.sum(x, axis=-1, keepdims=True), (draw(2, 3),)),
        (lambda x: x.sum(axis=(0, 2)), (draw(2, 3, 4),)),
        (lambda x: np.sum(x, axis=(-1, 0), keepdims=True), (draw(2, 3, 4),)),
        (np.sum, (draw(),)),
    ],
    np.mean: [
        (np.mean, (draw(2, 3),)),
        (lambda x: x.mean(axis=1, keepdims=True), (draw(2, 3),)),
        (lambda x: np.mean(x, (0, -1)), (draw(2, 3, 4),)),
    ],
    np.var: [
        (np.var, (draw(2, 3),)),
        (lambda x: x.var(axis=0, ddof=1), (draw(4, 3),)),
        (lambda x: np.var(x, axis=(0, 1), keepdims=True), (draw(2, 3),)),
    ],
    np.std: [
        (np.std, (draw(2, 3),)),
        (lambda x: x.std(axis=-1, ddof=1, keepdims=True), (draw(2, 3),)),
    ],
    np.max: [
        (np.max, (draw(2, 3),)),
        (lambda x: x.max(axis=0), (draw(2, 3),)),
        (lambda x: np.amax(x, axis=(0, 2), keepdims=True), (draw(2, 3, 4),)),
    ],
    np.min: [
        (np.min, (draw(2, 3),)),
        (lambda x: x.min(axis=-1, keepdims=True), (draw(2, 3),)),
        (lambda x: np.amin(x, axis=0), (draw(2, 3),)),
    ],
    np.prod: [
        (np.prod, (draw(2, 3),)),
        (lambda x: x.prod(axis=0), (draw(3, 2),)),
        (lambda x: np.prod(x, axis=(0, 2), keepdims=True), (draw(2, 3, 2),)),
        (np.prod, (np.array([1.0, 0.0, 3.0, 4.0]),)),
        (np.prod, (np.array([0.0, 0.0, 3.0, 4.0]),)),
        (lambda x: np.prod(x, axis=1), (np.array([[0.0, 2.0], [3.0, 4.0]]),)),
        (lambda x: np.prod(x, axis=1), (np.array([[0.0, 2.0, 3.0], [1.0, 0.0, 0.0]]),)),
        (np.prod, (np.array([0.0, 0.0]),)),
    ],
    np.cumsum: [
        (np.cumsum, (draw(2, 3),)),
        (lambda x: x.cumsum(axis=0), (draw(3, 2),)),
        (lambda x: np.cumsum(x, axis=-1), (draw(2, 3),)),
    ],
    np.reshape: [
        (lambda x: np.reshape(x, (3, 2)), (draw(2, 3),)),
        (lambda x: x.reshape(-1, 2), (draw(2, 3),)),
        (lambda x: x.reshape((6,)), (draw(2, 3),)),
    ],
    np.ravel: [
        (np.ravel, (draw(2, 3),)),
        (lambda x: x.flatten() * x.ravel(), (draw(2, 3),)),
    ],
    np.expand_dims: [
        (lambda x: np.expand_dims(x, 1), (draw(2, 3),)),
        (lambda x: np.expand_dims(x, (0, -1)), (draw(2, 3),)),
    ],
    np.squeeze: [
        (np.squeeze, (draw(2, 1, 3),)),
        (lambda x: x.squeeze(axis=0), (draw(1, 3, 1),)),
    ],
    np.transpose: [
        (np.transpose, (draw(2, 3, 4),)),
        (lambda x: np.transpose(x, (1, 2, 0)), (draw(2, 3, 4),)),
        (lambda x: x.transpose(2, 0, 1), (draw(2, 3, 4),)),
        (lambda x: x.transpose((0, 2, 1)), (draw(2, 3, 4),)),
        (lambda x: np.permute_dims(x, (1, 0)), (draw(2, 3),)),
        (lambda x: x.transpose() + x.T, (draw(3, 3),)),
        (lambda x: x.mT, (draw(2, 3, 4),)),
        (lambda x: np.transpose(x, (-1, 0, 1)), (draw(2, 3, 4),)),
    ],
    np.swapaxes: [
        (lambda x: np.swapaxes(x, 0, -1), (draw(2, 3, 4),)),
        (lambda x: x.swapaxes(1, 2), (draw(2, 3, 4),)),
    ],
    np.moveaxis: [
        (lambda x: np.moveaxis(x, 0, -1), (draw(2, 3, 4),)),
        (lambda x: np.moveaxis(x, (0, 1), (-1, -2)), (draw(2, 3, 4),)),
        (lambda x: np.moveaxis(x, (2, 0), (0, 1)), (draw(2, 3, 4),)),
    ],
    np.broadcast_to: [
        (lambda x: np.broadcast_to(x, (2, 4, 3)), (draw(4, 1),)),
        (lambda x: np.broadcast_to(x, (2, 3)), (draw(),)),
    ],
    "getitem": [
        (lambda x: x[1], (draw(3, 2),)),
        (lambda x: x[1, 0], (draw(3, 2),)),
        (lambda x: x[::-2, None], (draw(3, 2),)),
        (lambda x: x[..., 1:], (draw(3, 2),)),
        (lambda x: x[mask], (draw(3, 2),)),
        (lambda x: x[x > 0], (draw(3, 4),)),
        (lambda x: x[i_rep], (draw(3, 2),)),
        (lambda x: x[[0, 0, 1], [1, 1, 0]], (draw(3, 2),)),
        (lambda x: x[:, i_rep[:, None]], (draw(2, 3),)),
        (lambda x: x[0] * x[0] + x[1] * x[0], (draw(3, 2),)),
        (lambda x: x[i_rep] * x[1:2] + x, (draw(4, 2),)),
        (lambda x: x[()] * 2, (draw(),)),
    ],
    "scatter": [
        (
            lambda x: rules.scatter(x, index=i_rep, like=np.zeros((3, 2))),
            (draw(4, 2),),
        ),
        (
            lambda x: rules.scatter(x, index=slice(1, 3), like=np.zeros((3, 2))),
            (draw(2, 2),),
        ),
    ],
    np.take: [
        (lambda x: np.take(x, i_rep), (draw(2, 3),)),
        (lambda x: x.take(i_rep, axis=-1), (draw(2, 3),)),
    ],
    np.take_along_axis: [
        (lambda x: np.take_along_axis(x, i_rep[:, None], 0), (draw(3, 2)[:, :1],)),
        (lambda x: np.take_along_axis(x, np.array([[2, 2], [0, 1]]), -1), (_x,)),
    ],
    np.sort: [
        (np.sort, (draw(2, 4),)),
        (lambda x: np.sort(x, axis=0), (draw(4, 2),)),
        (np.sort, (np.sin(5 * np.arange(12.0)).reshape(2, 2, 3),)),
    ],
    np.flip: [
        (np.flip, (draw(2, 3),)),
        (lambda x: np.flip(x, 1), (draw(2, 3),)),
        (lambda x: np.flip(x, (0, -1)), (draw(2, 3, 2),)),
    ],
    np.roll: [
        (lambda x: np.roll(x, 2), (draw(2, 3),)),
        (lambda x: np.roll(x, -1, axis=1), (draw(2, 3),)),
    ],
    np.repeat: [
        (lambda x: np.repeat(x, 2), (draw(2, 3),)),
        (lambda x: x.repeat([1, 0, 2], axis=1), (draw(2, 3),)),
    ],
    np.tile: [
        (lambda x: np.tile(x, 2), (draw(2, 3),)),
        (lambda x: np.tile(x, (2, 1, 3)), (draw(2, 3),)),
        (lambda x: np.tile(x, (2,)), (draw(2, 1, 3),)),
    ],
    np.concatenate: [
        (lambda a, b: np.concatenate([a, b]), (draw(2, 3), draw(1, 3))),
        (lambda a, b: np.concatenate((a, b, a), axis=-1), (draw(2, 3), draw(2, 1))),
        (lambda a, b: np.concatenate([a, b], axis=None), (draw(2, 3), draw(2))),
        (lambda a: np.concatenate([np.ones(2), a, np.ones(1)]), (draw(3),)),
    ],
    np.stack: [
        (lambda a, b: np.stack([a, b, a]), (draw(3), draw(3))),
        (lambda a, b: np.stack((a, b), axis=-1), (draw(2, 3), draw(2, 3))),
    ],
    np.vstack: [(lambda a, b: np.vstack([a, b]), (draw(3), draw(2, 3)))],
    np.hstack: [
        (lambda a, b: np.hstack([a, b]), (draw(3), draw(2))),
        (lambda a, b: np.hstack([a, b]), (draw(2, 1), draw(2, 3))),
        (lambda a, b: np.hstack([a, b]), (draw(), draw())),
    ],
    np.split: [
        (lambda x: np.split(x, 2)[1] * np.split(x, 2)[0], (draw(4, 2),)),
        (lambda x: np.split(x, [1, 3], axis=-1)[1], (draw(2, 4),)),
    ],
    np.array_split: [
        (lambda x: np.array_split(x, 3)[0] * x[0], (draw(4, 2),)),
        (lambda x: np.array_split(x, [1], axis=1)[1], (draw(2, 3),)),
        (lambda x: np.array_split(x, 3)[1] * np.array_split(x, 3)[2], (more(4, 2),)),
    ],
    np.pad: [
        (lambda x: np.pad(x, 1), (draw(2, 3),)),
        (lambda x: np.pad(x, ((0, 1), (2, 0)), constant_values=3.0), (draw(2, 3),)),
        (lambda x: np.pad(x, (1, 2)), (draw(3),)),
    ],
    np.diagonal: [
        (lambda x: np.diagonal(x, 1), (draw(3, 4),)),
        (lambda x: x.diagonal(axis1=0, axis2=-1), (draw(3, 2, 3),)),
    ],
    np.trace: [
        (np.trace, (draw(3, 4),)),
        (lambda x: x.trace(-1, 1, 2), (draw(2, 3, 3),)),
    ],
    np.diag: [
        (np.diag, (draw(3),)),
        (lambda x: np.diag(x, -1), (draw(3),)),
        (lambda x: np.diag(x, 2), (more(3),)),
        (lambda x: np.diag(x, 1), (draw(3, 3),)),
    ],
    np.tril: [(lambda x: np.tril(x, -1), (draw(3, 4),)), (np.tril, (draw(2, 3, 3),))],
    np.triu: [(lambda x: np.triu(x, 1), (draw(3, 4),)), (np.triu, (draw(2, 3, 3),))],
    np.matmul: [
        (np.matmul, (draw(2, 3), draw(3, 4))),
        (lambda a, b: a @ b, (draw(3), draw(3))),
        (lambda a, b: a @ b, (draw(2, 3), draw(3))),
        (lambda a, b: a @ b, (draw(3), draw(3, 2))),
        (lambda a, b: a @ b, (draw(5, 2, 3), draw(3, 4))),
        (lambda a, b: a @ b, (draw(2, 3), draw(5, 3, 4))),
        (lambda a, b: a @ b, (draw(5, 2, 3), draw(5, 3, 4))),
        (lambda a, b: a @ b, (draw(5, 1, 2, 3), draw(4, 3, 2))),
        (lambda a, b: a @ b, (draw(5, 2, 3), draw(3))),
        (lambda a, b: a @ b, (draw(3), draw(5, 3, 2))),
        (lambda b: np.arange(6.0).reshape(2, 3) @ b, (draw(3, 2),)),
    ],
    np.tensordot: [
        (np.tensordot, (draw(2, 3, 4), draw(3, 4, 2))),
        (lambda a, b: np.tensordot(a, b, axes=1), (draw(2, 3), draw(3))),
        (lambda a, b: np.tensordot(a, b, ([0, -1], [1, 0])), (draw(2, 3), draw(3, 2))),
        (lambda a, b: np.tensordot(a, b, 0), (draw(2), draw(3))),
        (lambda a, b: np.tensordot(a, b, (0, 1)), (more(3, 2), more(4, 3))),
    ],
    np.dot: [
        (np.dot, (draw(3), draw(3))),
        (np.dot, (draw(2, 3), draw(3, 2))),
        (lambda a, b: a.dot(b), (draw(), draw(3))),
        (np.dot, (draw(2, 3), draw(4, 3, 2))),
        (np.dot, (draw(2, 4, 3), draw(3))),
    ],
    np.vdot: [
        (np.vdot, (draw(2, 3), draw(2, 3))),
        (
            lambda a, b: np.real(np.vdot(a * (1 + 2j), b * (2 - 1j))),
            (more(3), more(3)),
        ),
    ],
    np.inner: [
        (np.inner, (draw(3), draw(3))),
        (np.inner, (draw(2, 3), draw(4, 3))),
        (np.inner, (draw(), draw(3))),
        (np.inner, (more(2, 4, 3), more(2, 3))),
        (np.inner, (more(2, 3), more(2, 4, 3))),
    ],
    np.outer: [
        (np.outer, (draw(2), draw(3))),
        (np.outer, (draw(2, 2), draw(3))),
        (np.outer, (more(2, 2), more(3, 2))),
    ],
    np.einsum: [
        (functools.partial(np.einsum, "ij,jk->ik"), (draw(2, 3), draw(3, 4))),
        (functools.partial(np.einsum, "ij,jk"), (draw(2, 3), draw(3, 4))),
        (functools.partial(np.einsum, "ij->j"), (draw(2, 3),)),
        (functools.partial(np.einsum, "ij->"), (draw(2, 3),)),
        (functools.partial(np.einsum, "ii->i"), (draw(3, 3),)),
        (functools.partial(np.einsum, "ii"), (draw(3, 3),)),
        (functools.partial(np.einsum, "ij,ik,j->k"), (draw(2, 3), draw(2, 4), draw(3))),
        (functools.partial(np.einsum, "...i,ij->...j"), (draw(2, 4, 3), draw(3, 2))),
        (functools.partial(np.einsum, "b...i,bi"), (draw(2, 4, 3), draw(2, 3))),
        (functools.partial(np.einsum, "...i,...i->..."), (more(2, 4, 3), more(4, 3))),
        (functools.partial(np.einsum, "iij,j->i"), (draw(2, 2, 3), draw(3))),
        (functools.partial(np.einsum, "ij,jk->k", optimize=True), (_x, draw(3, 2))),
        (functools.partial(np.einsum, "a, b -> ba"), (draw(2), draw(3))),
    ],
    np.linalg.solve: [
        (lambda a, b: np.linalg.solve(away(a), b), (draw(3, 3), draw(3, 2))),
        (lambda a, b: np.linalg.solve(away(a), b), (draw(3, 3), draw(3))),
        (lambda a, b: np.linalg.solve(away(a), b), (draw(2, 3, 3), draw(2, 3, 1))),
        (lambda a, b: np.linalg.solve(away(a), b), (draw(3, 3), draw(2, 3, 1))),
    ],
    np.linalg.inv: [  # noqa: TID251
        (lambda a: np.linalg.inv(away(a)), (draw(3, 3),)),  # noqa: TID251
        (lambda a: np.linalg.inv(away(a)), (draw(2, 3, 3),)),  # noqa: TID251
    ],
    "inverse": [],  # the same
    np.linalg.det: [
        (lambda a: np.linalg.det(away(a)), (draw(3, 3),)),
        (lambda a: np.linalg.det(away(a)), (draw(2, 3, 3),)),
    ],
    np.linalg.slogdet: [
        (lambda a: np.linalg.slogdet(away(a))[1], (draw(3, 3),)),
        (lambda a: np.linalg.slogdet(-away(a))[1], (draw(2, 3, 3),)),
    ],
    np.linalg.cholesky: [
        (lambda a: np.linalg.cholesky(spd(a)), (draw(3, 3),)),
        (lambda a: np.linalg.cholesky(spd(a)), (draw(2, 3, 3),)),
    ],
    np.linalg.norm: [
        (np.linalg.norm, (draw(3),)),
        (np.linalg.norm, (draw(2, 3),)),
        (lambda x: np.linalg.norm(x, axis=1, keepdims=True), (draw(2, 3),)),
        (lambda x: np.linalg.norm(x, 1, axis=0), (draw(2, 3),)),
        (lambda x: np.linalg.norm(x, np.inf, axis=-1), (draw(2, 3),)),
        (
            lambda x: np.linalg.norm(x, np.inf, axis=0, keepdims=True),
            (np.array([[1.0, -2.0, 0.5], [-0.3, 0.4, 1.6]]),),
        ),
        (lambda x: np.linalg.norm(x, 1, axis=1, keepdims=True), (more(2, 3),)),
        (lambda x: np.linalg.norm(x, 2), (more(3),)),
        (lambda x: np.linalg.norm(x, 2, axis=0), (more(2, 3),)),
        (lambda x: np.linalg.norm(x, "fro", axis=(0, 2)), (more(2, 3, 2),)),
        (lambda x: np.linalg.norm(x, 1), (more(3),)),
        (lambda x: np.linalg.norm(x, np.inf), (np.array([1.0, -2.0, 0.5]),)),
        (lambda x: np.linalg.norm(x * (1 + 2j)), (draw(3),)),
    ],
}
for _name, _n in itertools.product(("fft", "ifft", "rfft", "irfft"), (4, 5)):
    _f = getattr(np.fft, _name)
    CASES.setdefault(_f, []).extend(
        [
            (lambda x, f=_f: np.abs(f(x)), (draw(2, _n),)),
            (lambda x, f=_f: np.real(f(x, axis=0) * (1 + 2j)), (draw(_n, 2),)),
            (lambda x, f=_f: np.imag((1 + 1j) * f(x, n=3)) ** 2, (draw(_n),)),
            (lambda x, f=_f: np.real((2 - 1j) * f(x, 7)), (draw(_n),)),
            (lambda x, f=_f: np.real((2 - 1j) * f(x, 7, axis=0)), (more(_n, 2),)),
            (lambda x, f=_f: np.real((2 - 1j) * f(x, 3, axis=0)), (more(_n, 2),)),
            (lambda x, f=_f: np.real((2 - 1j) * f(x, 3)), (more(2, _n),)),
        ]
    )
    if _name != "rfft":
        CASES[_f].append(
            (lambda x, f=_f: np.real((2 - 1j) * f(x * np.exp(1j * x))), (draw(_n),))
        )
OURS = {
    ad.logsumexp: [
        (ad.logsumexp, (draw(2, 3),)),
        (lambda x: ad.logsumexp(x, 0), (draw(2, 3),)),
        (lambda x: ad.logsumexp(x, (0, -1), keepdims=True), (draw(2, 3, 4),)),
    ],
    ad.softmax: [
        (ad.softmax, (draw(2, 3),)),
        (lambda x: ad.softmax(x, 0), (draw(3, 2),)),
    ],
    ad.log_softmax: [
        (ad.log_softmax, (draw(2, 3),)),
        (lambda x: ad.log_softmax(x, 0), (draw(3, 2),)),
    ],
}


def ufunc_cases(ufunc):
    """A ufunc's cases: all patterns of broadcasting within its domain."""
    if ufunc.nin == 1:
        low, high = DOMAIN.get(ufunc, (-2.0, 2.0))
        for shape in ((), (3,), (2, 1, 3)):
            yield ufunc, (draw(*shape, low=low, high=high),)
    else:
        (a, b), (c, d) = PAIRS.get(ufunc, ((-2.0, 2.0), (-2.0, 2.0)))
        for first, second in BROADCASTS:
            yield ufunc, (draw(*first, low=a, high=b), draw(*second, low=c, high=d))
        yield lambda x, f=ufunc: f(x, x * x), (draw(3, low=a if a > 0 else c),)


def label(key):
    if isinstance(key, tuple):
        return "-".join(key)
    return key if isinstance(key, str) else key.__name__


def all_cases():
    """Every rule's cases; those of methods are among those of their functions."""
    for key in RULES:
        if key in CASES:
            found = CASES[key]
        elif isinstance(key, np.ufunc):
            found = ufunc_cases(key)
        else:
            continue
        for i, (f, args) in enumerate(found):
            yield pytest.param(f, args, id=f"{label(key)}-{i}")
    for key, found in OURS.items():
        for i, (f, args) in enumerate(found):
            yield pytest.param(f, args, id=f"{key.__name__}-{i}")


each_case = pytest.mark.parametrize(("f", "args"), list(all_cases()))


def test_every_rule_has_a_case():
    """Methods and properties go by the functions that they are named after."""
    known = set(CASES) | {key for key in RULES if isinstance(key, np.ufunc)}
    called = {id(RULES[key]) for key in known if key in RULES}
    inner = {"primitive"}
    unknown = [
        key
        for key in RULES
        if key not in known
        and id(RULES[key]) not in called
        and not (isinstance(key, tuple) and key[0] in inner | {"method", "property"})
    ]
    assert not unknown, f"no case in CASES of tests/test_rules.py for {unknown}"


# ---------------------------------------------------------------- the tests


def flat(f, args):
    """f as a function of one vector, with random weights on its results."""
    shapes = [a.shape for a in args]
    ends = np.cumsum([a.size for a in args])[:-1]
    weights = np.random.default_rng(5).normal(size=np.shape(f(*args)))

    def of_vector(x):
        parts = np.split(x, ends)
        return [np.reshape(p, s) for p, s in zip(parts, shapes, strict=True)]

    def number(x):
        return np.sum(weights * f(*of_vector(x)))

    x = np.concatenate([a.ravel() for a in args])
    rng = np.random.default_rng(6)
    return number, x, *rng.normal(size=(2, x.size)), weights


@each_case
def test_value_is_numpys(f, args):
    """Tracing changes no result."""
    want = f(*args)
    got, _ = ad.vjp(f, *args)
    np.testing.assert_allclose(got, want, rtol=1e-14, atol=1e-15)
    assert np.shape(got) == np.shape(want)
    got, _ = ad.jvp(f, args, args)
    np.testing.assert_allclose(got, want, rtol=1e-14, atol=1e-15)


@each_case
def test_first_order(f, args):
    number, x, u, _, weights = flat(f, args)
    want = oracle.slope(number, x, u)
    scale = 1 + np.abs(oracle.slope(number, x, x))
    np.testing.assert_allclose(ad.grad(number)(x) @ u, want, atol=1e-9 * scale)
    shares = ad.vjp(f, *args)[1](weights)
    assert [s.shape for s in shares] == [a.shape for a in args]
    moved = flat_vector(shares) @ u
    np.testing.assert_allclose(moved, want, atol=1e-9 * scale)


@each_case
def test_reverse_is_the_transpose_of_forward(f, args):
    """⟨w, J v⟩ = ⟨Jᵀ w, v⟩ to round-off."""
    number, x, u, _, _ = flat(f, args)
    backward = ad.grad(number)(x) @ u
    forward = ad.jvp(number, (x,), (u,))[1]
    np.testing.assert_allclose(forward, backward, rtol=1e-11, atol=1e-12)


@each_case
def test_second_order(f, args):
    number, x, u, v, _ = flat(f, args)
    want = oracle.curvature(number, x, u, v)
    scale = 1 + np.abs(want) + np.abs(oracle.curvature(number, x, x, x))
    over = ad.hvp(number, x, v) @ u
    np.testing.assert_allclose(over, want, atol=2e-6 * scale)
    twice = ad.grad(lambda x: ad.grad(number)(x) @ v)(x) @ u
    np.testing.assert_allclose(twice, over, rtol=1e-10, atol=1e-11)
    forward = ad.jvp(lambda x: ad.jvp(number, (x,), (v,))[1], (x,), (u,))[1]
    np.testing.assert_allclose(forward, over, rtol=1e-10, atol=1e-11)
    mixed = ad.grad(lambda x: ad.jvp(number, (x,), (v,))[1])(x) @ u
    np.testing.assert_allclose(mixed, over, rtol=1e-10, atol=1e-11)


@each_case
def test_float32_stays(f, args):
    """Values, gradients and tangents of float32 are float32."""
    narrow = tuple(np.asarray(a, np.float32) for a in args)
    try:
        out, pullback = ad.vjp(f, *narrow)
    except ValueError as error:  # the case itself brings float64 in
        assert "met float32 and float64" in str(error)
        return
    if out.dtype != np.float32:
        assert np.asarray(f(*narrow)).dtype == out.dtype  # astype, as it says
        return
    shares = pullback(np.ones(out.shape, np.float32))
    assert {s.dtype for s in shares} == {np.dtype(np.float32)}
    _, tangent = ad.jvp(f, narrow, narrow)
    assert tangent.dtype == np.float32


@pytest.mark.parametrize("ufunc", sorted(ANALYTIC, key=label), ids=label)
def test_complex_step(ufunc):
    """No cancellation in a complex step: agreement to the last digits."""
    low, high = DOMAIN.get(ufunc, (-2.0, 2.0))
    x, v = draw(5, low=low, high=high), draw(5)
    want = oracle.complex_step(ufunc, x, v)
    got = ad.jvp(ufunc, (x,), (v,))[1]
    np.testing.assert_allclose(got, want, rtol=2e-14)
    got = ad.vjp(ufunc, x)[1](v)[0]
    np.testing.assert_allclose(got, want, rtol=2e-14)


def flat_vector(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


@pytest.mark.parametrize("function", sorted(CONSTANT, key=label), ids=label)
def test_constants_carry_no_derivative(function):
    """They run on plain values, and what they return is plain."""
    rest = {
        **dict.fromkeys(["equal", "not_equal", "less", "less_equal"], (0.5,)),
        **dict.fromkeys(["greater", "greater_equal", "floor_divide"], (0.5,)),
        **dict.fromkeys(["logical_and", "logical_or", "logical_xor"], (True,)),
        **dict.fromkeys(["isclose", "allclose", "array_equal"], (0.5,)),
        **dict.fromkeys(["may_share_memory", "shares_memory"], (np.ones(3),)),
        "argpartition": (1,),
        "searchsorted": (0.5,),
        "full_like": (2.0,),
        "digitize": (np.array([0.0, 1.0]),),
    }

    def f(x):
        x = np.reshape(x, (3,)) if function is not np.linalg.matrix_rank else x[None]
        given = abs(x) if function is np.bincount else x
        if function is np.bincount:
            given = np.floor(given).astype(int)
        out = function(given, *rest.get(function.__name__, ()))
        assert not isinstance(out, tape.Traced)
        return np.sum(x)

    assert (ad.grad(f)(np.array([0.2, 0.7, 1.4])) == 1).all()


# ---------------------------------------------------------------- kinks and edges

INF = np.inf
log_2 = np.log(2.0)
# Where differences tell nothing: a function, a point, and the slope that the row names.
KINKS = {
    "norm at 0": (np.linalg.norm, [0.0, 0.0], [0.0, 0.0]),
    "norms, one of 0": (
        lambda x: np.sum(np.linalg.norm(x, axis=1)),
        [[0.0, 0.0], [3.0, 4.0]],
        [[0.0, 0.0], [0.6, 0.8]],
    ),
    "std of equals": (np.std, [2.0, 2.0, 2.0], [0.0, 0.0, 0.0]),
    "stds, one of equals": (
        lambda x: np.sum(np.std(x, axis=1)),
        [[2.0, 2.0], [1.0, 3.0]],
        [[0.0, 0.0], [-0.5, 0.5]],
    ),
    "abs": (lambda x: np.sum(np.abs(x)), [-2.0, 0.0, 3.0], [-1.0, 0.0, 1.0]),
    "abs of a complex 0": (
        lambda x: np.sum(np.abs(x * (3 + 4j))),
        [-2.0, 0.0],
        [-5.0, 0.0],
    ),
    "powers of 0": (
        lambda x: np.sum(x ** np.array([0.0, 1.0, 2.0, 3.0])),
        [0.0, 0.0, 0.0, 2.0],
        [0.0, 1.0, 0.0, 12.0],
    ),
    "power 0": (lambda x: np.sum(x**0), [0.0, 2.0], [0.0, 0.0]),
    "0 to a power": (
        lambda b: np.sum(np.array([0.0, 2.0, 0.0, 0.0]) ** b),
        [1.0, 3.0, 2.0, 0.0],
        [0.0, 8 * log_2, 0.0, 0.0],
    ),
    "maximum": (lambda x: np.sum(np.maximum(x, 1.0)), [0.0, 1.0, 2.0], [0.0, 0.5, 1.0]),
    "minimum": (lambda x: np.sum(np.minimum(1.0, x)), [0.0, 1.0, 2.0], [1.0, 0.5, 0.0]),
    "maximum with itself": (lambda x: np.sum(np.maximum(x, x)), [0.0, 1.0], [1.0, 1.0]),
    "max": (np.max, [1.0, 3.0, 3.0, 0.0], [0.0, 0.5, 0.5, 0.0]),
    "min by rows": (
        lambda x: np.sum(np.min(x, axis=1)),
        [[1.0, 1.0, 2.0], [5.0, 4.0, 4.0]],
        [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]],
    ),
    "clip": (
        lambda x: np.sum(np.clip(x, -1.0, 1.0)),
        [-2.0, -1.0, 0.0, 1.0, 3.0],
        [0.0, 0.5, 1.0, 0.5, 0.0],
    ),
    "logaddexp of logs of 0": (
        lambda x: np.sum(np.exp(np.logaddexp(x, np.array([-INF, -INF, 0.0, 0.0])))),
        [-INF, log_2, -INF, 0.0],
        [0.0, 2.0, 0.0, 1.0],
    ),
    "logaddexp the other way": (
        lambda x: np.sum(np.exp(np.logaddexp(np.array([-INF, -INF, 0.0]), x))),
        [-INF, log_2, -INF],
        [0.0, 2.0, 0.0],
    ),
    "logsumexp of logs of 0": (
        lambda x: np.sum(ad.logsumexp(x, 1)[1:]) + 0 * np.exp(ad.logsumexp(x, 1)[0]),
        [[-INF, -INF], [0.0, 0.0], [-INF, 1.0]],
        [[0.0, 0.0], [0.5, 0.5], [0.0, 1.0]],
    ),
}


@pytest.mark.parametrize("name", KINKS)
def test_slopes_at_kinks(name):
    """Those that the rows say, in both modes, and nothing of second order is NaN."""
    f, x, want = KINKS[name]
    x, want = np.array(x), np.array(want)
    np.testing.assert_allclose(ad.grad(f)(x), want, rtol=1e-14, atol=1e-300)
    weights = np.arange(1.0, 1 + x.size).reshape(x.shape)
    np.testing.assert_allclose(ad.jvp(f, (x,), (weights,))[1], np.sum(weights * want))
    if np.isfinite(x).all():
        assert np.isfinite(ad.hvp(f, x, weights)).all()


def test_a_power_of_a_negative_base_has_no_slope_in_its_exponent():
    with pytest.raises(
        ValueError, match=r"^power: the base has negative entries, wants"
    ):
        ad.grad(lambda b: np.sum(np.array([-1.0, 2.0]) ** b))(np.array([2.0, 2.0]))


# ---------------------------------------------------------------- values of our own


@pytest.mark.parametrize("name", ["logsumexp", "softmax", "log_softmax"])
@pytest.mark.parametrize("far", [1.0, 1e4])
def test_our_own_functions_are_scipys(name, far):
    """Traced, plain, and where exp alone would overflow."""
    ours, theirs, x = getattr(ad, name), getattr(special, name), far * draw(2, 3, 4)
    axes = [None, (0, -1)] if name == "logsumexp" else []
    for axis in (0, 1, -1, *axes):
        want = theirs(x, axis=axis)
        np.testing.assert_allclose(ours(x, axis), want, rtol=1e-13, atol=1e-300)
        got = ad.vjp(lambda x, a=axis: ours(x, a), x)[0]
        np.testing.assert_array_equal(got, ours(x, axis))
    default = None if name == "logsumexp" else -1
    np.testing.assert_array_equal(ours(x), ours(x, default))
    np.testing.assert_array_equal(ours([3, 1]), ours(np.array([3.0, 1.0])))
    for bad in (np.ones((2, 0)), x * 1j, "abc"):
        with pytest.raises(ValueError, match=r"^a has shape .* wants floats"):
            ours(bad)


def test_logsumexp_keeps_axes_and_takes_logs_of_zero():
    x = draw(2, 3, 4)
    want = special.logsumexp(x, axis=(0, 2), keepdims=True)
    np.testing.assert_allclose(ad.logsumexp(x, (0, 2), keepdims=True), want)
    nothing = np.full((2, 3), -np.inf)
    nothing[1, 2] = 5.0
    np.testing.assert_array_equal(ad.logsumexp(nothing, 1), [-np.inf, 5.0])


def test_astype_changes_the_type_and_back():
    x = draw(3)
    out, pullback = ad.vjp(lambda x: x.astype(np.float32), x)
    assert out.dtype == np.float32
    (share,) = pullback(np.ones(3, np.float32))
    assert share.dtype == np.float64
    out, _ = ad.vjp(lambda x: x.astype(np.complex128), x)
    assert out.dtype == np.complex128
    with pytest.raises(ValueError, match=r"^astype: x is complex128, wants real"):
        ad.grad(lambda x: np.sum((x * 1j).astype(float)))(x)
    whole = []
    ad.vjp(lambda x: whole.append(x.astype(int)) or x, x)
    assert whole[0].dtype == int


def test_the_derivative_by_a_symmetric_matrix_is_symmetric():
    """`spd` would hide a lopsided one, since it gives only symmetric changes."""
    A = spd(draw(2, 3, 3))
    (share,) = ad.vjp(np.linalg.cholesky, A)[1](draw(2, 3, 3))
    np.testing.assert_allclose(share, np.swapaxes(share, -1, -2), rtol=1e-13)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: np.pad(x, 1, mode="edge"), r"^np.pad with mode='edge' cannot"),
        (lambda x: np.pad(x, 1, constant_values=(1, 2)), r"^np.pad with mode="),
        (lambda x: np.linalg.norm(x, 2), r"^np.linalg.norm with ord=2 cannot"),
        (lambda x: np.linalg.norm(x, 1), r"^np.linalg.norm with ord=1 cannot"),
        (lambda x: np.linalg.norm(x, np.inf), r"^np.linalg.norm with ord=inf cannot"),
        (lambda x: np.linalg.norm(x, "nuc"), r"^np.linalg.norm with ord='nuc' cannot"),
        (lambda x: np.linalg.norm(x, 3, axis=0), r"^np.linalg.norm with ord=3 cannot"),
    ],
)
def test_what_has_no_rule_is_refused(call, message):
    with pytest.raises(NotImplementedError, match=message):
        ad.vjp(call, draw(2, 3))
