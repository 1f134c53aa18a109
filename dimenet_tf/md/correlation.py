"""Power spectra of what dynamics recorded, from autocorrelations (Wiener and Khinchin)."""

from __future__ import annotations

import numpy as np
import scipy.fft

CM_PER_FS = 2.99792458e-5
"""Speed of light: the number of periods per femtosecond of a wave of 1 cm^-1."""
GRID_PER_RESOLUTION = 8  # grid points of a spectrum within the width of its lines


def autocorrelation(signal: np.ndarray, lags: int) -> np.ndarray:
    """Return the time average of signal(t) signal(t + lag), without bias: each over the pairs that there are.

    Parameters
    ----------
    signal : (times, ...) real
    lags : how many, from 0; at most the number of times

    Returns
    -------
    (lags, ...) float64
    """
    times = len(signal)
    length = scipy.fft.next_fast_len(times + lags, real=True)  # zero padding prevents wrap-around
    transformed = scipy.fft.rfft(np.asarray(signal, np.float64), length, axis=0)
    sums = scipy.fft.irfft(np.abs(transformed) ** 2, length, axis=0)[:lags]
    pairs = times - np.arange(lags)
    return sums / pairs.reshape(-1, *[1] * (signal.ndim - 1))


def correlation_time(resolution: float) -> float:
    """Return the largest lag, fs, that lines of a width (FWHM, cm^-1) need."""
    return 1 / (CM_PER_FS * resolution)


def power_spectrum(signal: np.ndarray, timestep: float, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the density over wavenumbers of the mean square of a signal.

    D(v) = 2 c int C(t) w(t) exp(-2 pi i c v t) dt, with C(t) the autocorrelation, averaged over trajectories and summed
    over components, and w(t) = cos^2(pi t / 2 T) up to the lag T (Hann's window: lines get a FWHM of 1 / (c T)). Since
    w(0) = 1 the window changes no integral: the density's (by trapezoids, up to half of the sampling rate) is C(0).

    Parameters
    ----------
    signal : (times, trajectories, ...) real; means are not taken off
    timestep : fs
    resolution : FWHM of a line that is infinitely narrow, cm^-1; the signal must last for `correlation_time` of it

    Returns
    -------
    wavenumbers : (points,) cm^-1, from 0
    density : (points,), unit of the signal squared times cm
    """
    lags = int(correlation_time(resolution) / timestep) + 1
    if lags > len(signal):
        raise ValueError(f"{len(signal)} times are too few for {lags} lags")
    components = signal.reshape(*signal.shape[:2], -1)
    correlation = np.zeros(lags)
    for trajectory in range(components.shape[1]):  # one after the other: the transforms need memory
        correlation += autocorrelation(components[:, trajectory], lags).sum(axis=1) / components.shape[1]
    correlation *= np.cos(0.5 * np.pi * np.arange(lags) / lags) ** 2
    length = scipy.fft.next_fast_len(2 * GRID_PER_RESOLUTION * lags, real=True)
    even = np.zeros(length)
    even[:lags], even[-lags + 1 :] = correlation, correlation[:0:-1]
    density = 2 * CM_PER_FS * timestep * scipy.fft.rfft(even).real
    return scipy.fft.rfftfreq(length, CM_PER_FS * timestep), density


def rate_spectrum(signal: np.ndarray, timestep: float, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the power spectrum of a signal's time derivative (per fs); as `power_spectrum`.

    The derivative is made of differences of neighboring values, which take the factor sin(x) / x, x = pi c v timestep,
    off an oscillation; here it is put back, so that this is exact for every wavenumber.
    """
    wavenumbers, density = power_spectrum(
        np.diff(np.asarray(signal, np.float64), axis=0) / timestep, timestep, resolution
    )
    return wavenumbers, density / np.sinc(CM_PER_FS * timestep * wavenumbers) ** 2  # sin(pi x) / (pi x)


def undo_verlet(wavenumbers: np.ndarray, timestep: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the wavenumbers that exact dynamics would have, and their derivatives with respect to those given.

    Velocity Verlet moves a harmonic oscillator of angular frequency w at w', sin(w' dt / 2) = w dt / 2: an O-H stretch
    is 19 cm^-1 too high for a time step of 0.5 fs.

    Parameters
    ----------
    wavenumbers : cm^-1, up to half of 1 / (c timestep)
    timestep : of the integrator, fs
    """
    x = np.pi * CM_PER_FS * timestep * wavenumbers
    return np.sin(x) / (np.pi * CM_PER_FS * timestep), np.cos(x)
