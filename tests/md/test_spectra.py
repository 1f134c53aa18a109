"""Spectra: signals and molecules whose spectra are known, and the real dynamics of a model."""

import json

import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet
from ase.vibrations import VibrationsData
from scipy import constants, signal
from scipy.integrate import trapezoid
from scipy.spatial.transform import Rotation

from dimenet_tf.commands import main
from dimenet_tf.errors import UserError
from dimenet_tf.md import DimeNetCalculator, correlation, harmonic, intensities, spectra, spectrum, trajectories
from dimenet_tf.md.batched import Batched, joined
from dimenet_tf.md.stepping import Stepper
from dimenet_tf.md.trajectories import Settings, run
from dimenet_tf.structures.inputs import read_molecule
from helpers.diatomic import Diatomic
from helpers.models import painn
from helpers.numerics import read_csv
from helpers.pretrained import FORCES, load_once

CM_PER_FS = correlation.CM_PER_FS


def wave(wavenumber, times, timestep, phase=0.3):
    return np.cos(2 * np.pi * CM_PER_FS * wavenumber * timestep * np.arange(times) + phase)


@pytest.fixture(scope="module")
def predictor():
    return painn()


@pytest.fixture(scope="module")
def diatomic():
    return Diatomic()


def test_autocorrelation_is_what_scipy_sums():
    x = np.random.default_rng(0).normal(size=(50, 3))
    ours = correlation.autocorrelation(x, 20)
    for component in range(3):
        sums = signal.correlate(x[:, component], x[:, component], method="direct")[49:69]
        np.testing.assert_allclose(ours[:, component], sums / (50 - np.arange(20)), atol=1e-13)


@pytest.mark.parametrize("wavenumber, timestep", [(1000.0, 1.0), (3700.0, 2.0), (60.0, 0.5)])
def test_an_oscillator_has_its_place_its_width_and_its_mean_square(wavenumber, timestep):
    times, resolution = round(12000 / timestep), 10.0
    x = 0.7 * wave(wavenumber, times, timestep)[:, None, None] * np.array([1.0, 2.0])
    grid, density = correlation.power_spectrum(x, timestep, resolution)
    assert grid[1] < resolution / 4
    assert abs(grid[density.argmax()] - wavenumber) <= grid[1]
    half = grid[density > density.max() / 2]
    assert np.ptp(half) == pytest.approx(resolution, abs=2 * grid[1])
    assert trapezoid(density, grid) == pytest.approx((x**2).mean(axis=0).sum(), rel=1e-12)  # Parseval
    line = abs(grid - wavenumber) < 4 * resolution
    assert trapezoid(density[line], grid[line]) == pytest.approx(5 * 0.7**2 / 2, rel=0.02)
    # the rate has (2 pi c v)^2 as much, up to the highest wavenumber that the steps can show
    _, rate = correlation.rate_spectrum(x, timestep, resolution)
    expected = 5 * 0.7**2 / 2 * (2 * np.pi * CM_PER_FS * wavenumber) ** 2
    assert trapezoid(rate[line], grid[line]) == pytest.approx(expected, rel=0.02)


def test_a_damped_oscillator_is_a_lorentzian():
    # stochastically driven: C(t) = exp(-t / tau) cos(w t), FWHM 1 / (pi c tau)
    rng, timestep, tau, wavenumber = np.random.default_rng(1), 2.0, 500.0, 1500.0
    turn = np.exp((-1 / tau + 2j * np.pi * CM_PER_FS * wavenumber) * timestep)
    noise = rng.normal(size=(40000, 32, 2)) @ [1, 1j] * np.sqrt(0.5 * (1 - abs(turn) ** 2))
    x = signal.lfilter([1], [1, -turn], noise, axis=0).real[1000:]
    grid, density = correlation.power_spectrum(x, timestep, 5.0)
    width = 1 / (np.pi * CM_PER_FS * tau)
    lorentzian = x.var() / np.pi * (width / 2) / ((grid - wavenumber) ** 2 + (width / 2) ** 2)
    near = abs(grid - wavenumber) < 3 * width
    assert np.abs(density - lorentzian)[near].max() < 0.15 * lorentzian.max()
    assert trapezoid(density, grid) == pytest.approx(x.var(), rel=0.01)


def test_the_shift_of_velocity_verlet():
    # the recursion x(t + dt) - 2 x(t) + x(t - dt) = -(w dt)^2 x(t), solved by a cosine of the shifted frequency
    timestep, true = 1.0, 3700.0
    w = 2 * np.pi * CM_PER_FS * true
    shifted = np.arccos(1 - (w * timestep) ** 2 / 2) / (2 * np.pi * CM_PER_FS * timestep)
    assert shifted > true + 70
    found, slope = correlation.undo_verlet(np.array([shifted, shifted + 1e-3]), timestep)
    assert found[0] == pytest.approx(true, rel=1e-12)
    assert slope[0] == pytest.approx(np.diff(found)[0] / 1e-3, rel=1e-5)


def test_constants_and_formulas():
    debye = 1e-21 / constants.c / constants.e * 1e10  # e*Ang
    assert intensities.infrared_intensity(debye**2) == pytest.approx(42.2561, rel=1e-5)  # of 1 (D/Ang)^2/amu
    # Long, The Raman Effect: pi^2/eps0^2 (v0 - v)^4 h / (8 pi^2 c v) (45 a'^2 + 7 g'^2) / 45, in SI polarizabilities
    v, v0, kT = 1e5, 1 / 514e-9, constants.k * 300
    si = 80 * (4 * np.pi * constants.epsilon_0 * 1e-30) ** 2 / (1e-20 * constants.atomic_mass)
    cross = np.pi**2 / constants.epsilon_0**2 * (v0 - v) ** 4 * constants.h / (8 * np.pi**2 * constants.c * v) * si / 45
    cross /= 1 - np.exp(-constants.h * constants.c * v / kT)
    assert intensities.raman_cross_section(80.0, 1000.0, 300.0) == pytest.approx(cross * 1e4 * 1e30, rel=1e-6)


def test_invariants_of_the_polarizability():
    a = np.random.default_rng(2).normal(size=(3, 3))
    a = a + a.T
    turn = Rotation.random(random_state=3).as_matrix()
    for tensor in (a, turn @ a @ turn.T):
        assert intensities.isotropic(tensor) == pytest.approx(np.trace(a) / 3, rel=1e-12)
        (xx, xy, xz), (_, yy, yz), (_, _, zz) = tensor
        gamma2 = 0.5 * ((xx - yy) ** 2 + (yy - zz) ** 2 + (zz - xx) ** 2) + 3 * (xy**2 + yz**2 + xz**2)
        assert 1.5 * (intensities.anisotropic(tensor) ** 2).sum() == pytest.approx(gamma2, rel=1e-12)
    activity = intensities.RamanActivity(np.array(2.0), np.array(3.0))
    np.testing.assert_allclose(activity.parallel + activity.perpendicular, activity.total)


def test_a_bent_linear_molecule_keeps_all_its_vibrations():
    """Stopping the rotation of CO2 about its axis would take a half of a bend's energy."""
    bent = molecule("CO2")
    bent.positions[0, 1] += 0.05
    motions = []
    for momentum in np.eye(9).reshape(9, 3, 3):
        system = bent.copy()
        system.set_momenta(momentum)
        trajectories.remove_rigid_motion(system, 1, vibrations=4)
        np.testing.assert_allclose(system.get_momenta().sum(axis=0), 0, atol=1e-12)
        motions.append(system.get_momenta().ravel())
    assert np.linalg.matrix_rank(motions, tol=1e-8) == 4


def test_isotopes_keep_their_masses():
    water = molecule("H2O")
    water.set_masses([15.999, 2.014, 1.008])
    assert joined([water] * 2).get_masses().tolist() == [15.999, 2.014, 1.008] * 2


def test_a_diatomic_through_all_of_it(tmp_path, diatomic):
    """Harmonic analysis is exact; dynamics, with steps so long that the integrator's shift is large, agrees with it."""
    model = diatomic
    modes = harmonic.analyse(model, model.atoms())
    assert modes.wavenumbers == pytest.approx([model.wavenumber()], rel=1e-6)
    mass = np.prod(model.atoms().get_masses()) / model.atoms().get_masses().sum()
    assert modes.infrared == pytest.approx(intensities.infrared_intensity(model.charge**2 / mass), rel=1e-6)
    mean, anisotropy = (model.along + 2 * model.across) / 3, model.along - model.across
    assert modes.raman.isotropic == pytest.approx(45 * mean**2 * units.Bohr**6 / mass, rel=1e-6)
    assert modes.raman.anisotropic == pytest.approx(7 * anisotropy**2 * units.Bohr**6 / mass, rel=1e-6)
    settings = Settings(picoseconds=4, timestep=2.0, stride=1, trajectories=3, equilibration=0.2, seed=1)
    recording = run(model, model.atoms(), settings, tmp_path, {}, show=False)
    assert recording.energies.shape == (2000, 3) and trajectories.drift(recording, 2.0, 2) < 0.01
    assert len(set(recording.energies[0].round(6))) == 3  # starts of their own
    temperature = recording.temperatures.mean()  # of one mode in three trajectories: far from the thermostat's
    table = spectrum.compute(
        recording.velocities,
        model.atoms().get_masses(),
        recording.dipole,
        recording.polarizability,
        1,
        2.0,
        2.0,
        temperature,
        20.0,
    )
    wavenumbers = table[spectrum.WAVENUMBER]
    for name, expected in (
        (spectrum.VDOS, 1.0),
        (spectrum.INFRARED, modes.infrared[0]),
        (spectrum.ISOTROPIC, modes.raman.isotropic[0]),
        (spectrum.ANISOTROPIC, modes.raman.anisotropic[0]),
        (
            spectrum.PARALLEL,
            intensities.raman_cross_section(modes.raman.parallel, modes.wavenumbers, temperature)[0],
        ),
    ):
        assert abs(wavenumbers[np.nanargmax(table[name])] - model.wavenumber()) < 3, name
        line = abs(wavenumbers - model.wavenumber()) < 100
        # velocities and positions of velocity Verlet differ by (w dt)^2 / 4 in their mean squares: 3.5 % here
        assert trapezoid(table[name][line], wavenumbers[line]) == pytest.approx(expected, rel=0.06), name
    spectrum.draw(table, modes, temperature, tmp_path / "spectrum.png")
    assert (tmp_path / "spectrum.png").stat().st_size > 10_000


def test_thermalised_starts_have_the_temperature(tmp_path, diatomic):
    settings = Settings(
        temperature=200, picoseconds=0.2, timestep=2.0, stride=1, trajectories=300, equilibration=0.5, seed=0
    )
    recording = run(diatomic, diatomic.atoms(), settings, tmp_path, {}, show=False)
    # one vibration: half of its total energy is kinetic; 300 of them have it to 6 %
    assert (recording.energies.mean() / units.kB) == pytest.approx(200, rel=0.15)
    momenta = recording.velocities * diatomic.atoms().get_masses()[:, None]
    assert np.abs(momenta.sum(axis=2)).max() < 1e-6 * np.abs(momenta).max()


def test_a_batch_of_trajectories_is_what_ase_does_one_by_one(predictor):
    atoms = molecule("CH3CH2OH")
    rng = np.random.default_rng(0)
    batch = Batched(predictor, [atoms] * 3)
    system = batch.atoms
    system.positions += 0.05 * rng.normal(size=system.positions.shape)
    system.set_velocities(0.02 * rng.normal(size=system.positions.shape))
    singles = [system[9 * i : 9 * (i + 1)] for i in range(3)]
    VelocityVerlet(system, 0.5 * units.fs).run(20)
    for i, single in enumerate(singles):
        single.calc = DimeNetCalculator(predictor)
        VelocityVerlet(single, 0.5 * units.fs).run(20)
        np.testing.assert_allclose(system.positions[9 * i : 9 * (i + 1)], single.positions, rtol=0, atol=1e-10)
        np.testing.assert_allclose(batch.predicted["dipole"][i], single.get_dipole_moment(), rtol=0, atol=1e-9)


def test_a_run_that_was_stopped_goes_on_with_the_same_numbers(tmp_path, monkeypatch, diatomic):
    monkeypatch.setattr(trajectories, "PIECE", 5)
    settings = Settings(picoseconds=0.04, timestep=1.0, stride=2, trajectories=2, equilibration=0.02, seed=3)
    whole = run(diatomic, diatomic.atoms(), settings, tmp_path / "whole", {}, show=False)
    assert whole.dipole.shape == (20, 2, 3) and whole.velocities.shape == (20, 2, 2, 3)
    evaluate, left = Stepper.evaluate, 0

    def stopped(self, molecules):
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return evaluate(self, molecules)

    monkeypatch.setattr(Stepper, "evaluate", stopped)
    stops = 0
    while True:
        left = 14
        try:
            again = run(diatomic, diatomic.atoms(), settings, tmp_path / "stopped", {}, show=False)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 2
    for name in whole._fields:
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    atoms = diatomic.atoms()
    atoms.positions += 1e-7  # as it is when it has been relaxed once more
    left = 1
    known = run(diatomic, atoms, settings, tmp_path / "whole", {}, show=False)  # nothing is left to be computed
    np.testing.assert_array_equal(known.velocities, whole.velocities)
    with pytest.raises(UserError, match="holds a run with other seed, temperature: remove that folder, or choose"):
        other = settings._replace(seed=4, temperature=10.0)
        run(diatomic, diatomic.atoms(), other, tmp_path / "whole", {}, show=False)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers overflow
def test_a_trajectory_that_flies_apart_is_an_error(tmp_path, diatomic):
    settings = Settings(picoseconds=8, timestep=20.0, stride=1, equilibration=0)
    with pytest.raises(UserError, match=r"a trajectory has flown apart \(molecule \d has .*shorter --timestep"):
        run(diatomic, diatomic.atoms(), settings, tmp_path, {}, show=False)


def test_normal_modes_and_intensities_from_finite_differences(predictor):
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.02, seed=0)
    modes = harmonic.analyse(predictor, atoms)
    step, size = 1e-4, 27
    shifts = step * np.eye(size).reshape(size, 9, 3)
    Z = np.tile(atoms.numbers, (2 * size, 1))
    values = predictor.predict({"Z": Z, "R": atoms.positions + np.concatenate([shifts, -shifts])})
    slope = {name: (array[:size] - array[size:]) / (2 * step) for name, array in values.items()}
    hessian = -slope["forces"].reshape(size, size)
    rigid = harmonic.rigid_motions(atoms, 6)
    np.testing.assert_allclose(rigid @ rigid.T, np.eye(6), atol=1e-12)
    weights = np.repeat(atoms.get_masses(), 3) ** 0.5
    inside = np.linalg.svd(rigid)[2][6:]  # what is orthogonal to them
    values = np.linalg.eigvalsh(inside @ (hessian / np.outer(weights, weights)) @ inside.T)
    unit = units._hbar * 1e10 / np.sqrt(units._e * units._amu) / units.invcm
    expected = np.sort(np.sign(values) * np.sqrt(np.abs(values)) * unit)
    np.testing.assert_allclose(np.sort(modes.wavenumbers), expected, rtol=1e-4, atol=1e-2)
    # the modes are orthonormal in normal coordinates, and do not translate or rotate
    flat = modes.modes.reshape(21, 27) * weights
    np.testing.assert_allclose(flat @ flat.T, np.eye(21), atol=1e-10)
    assert np.abs(flat @ rigid.T).max() < 1e-6
    # intensities from derivatives along coordinates instead of modes
    dipole = np.einsum("mi,ix->mx", modes.modes.reshape(21, 27), slope["dipole"])
    np.testing.assert_allclose(
        modes.infrared, intensities.infrared_intensity((dipole**2).sum(axis=1)), rtol=1e-2, atol=1e-3
    )
    change = np.einsum("mi,ixy->mxy", modes.modes.reshape(21, 27), slope["polarizability"])
    np.testing.assert_allclose(
        modes.raman.isotropic, 45 * intensities.isotropic(change) ** 2 * units.Bohr**6, rtol=1e-2, atol=1e-3
    )
    text = harmonic.format_table(modes)
    assert text.splitlines()[0].split("  ")[-1] == "raman anisotropic / Ang^4/amu"
    assert ("imaginary" in text) == bool((modes.wavenumbers < 0).any())


def test_linear_molecules_have_one_vibration_more(predictor):
    assert len(harmonic.analyse(predictor, molecule("CO2")).wavenumbers) == 4


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Call the command in a folder of its own, and return its output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(spectra, "load", load_once)
    molecule("CH3CH2OH").write("ethanol.xyz")

    def call(*arguments, code=0):
        with pytest.raises(SystemExit) as ended:
            main(["spectra", *map(str, arguments)])
        printed = capsys.readouterr()
        assert ended.value.code == code, printed.err
        return printed.out if code == 0 else printed.err

    return call


@pytest.mark.slow
def test_ethanol_vibrates_where_harmonic_analysis_says(command, tmp_path):
    """At 50 K, where it is nearly harmonic; within 40 cm^-1 are asked for."""
    options = ["--temperature", 50, "--picoseconds", 1.7, "--timestep", 1, "--stride", 1, "--trajectories", 1]
    options += ["--equilibration", 0, "--resolution", 20]
    printed = command(FORCES, "ethanol.xyz", "out", *options)
    assert "no infrared spectrum (the model has no dipole); no Raman spectrum" in printed
    modes = read_csv(tmp_path / "out/harmonic.csv")["wavenumber / cm^-1"]
    table = read_csv(tmp_path / "out/spectrum.csv")
    assert list(table) == [spectrum.WAVENUMBER, spectrum.VDOS]
    wavenumbers, density = table.values()
    assert trapezoid(density, wavenumbers) == pytest.approx(21, rel=0.01)
    for low, high, expected in ((3300, 4000, modes[-1:]), (2700, 3300, modes[-6:-1])):  # O-H, C-H
        peaks, _ = signal.find_peaks(density, height=0.1 * density[(wavenumbers > low) & (wavenumbers < high)].max())
        peaks = [p for p in wavenumbers[peaks] if low < p < high]
        strongest = wavenumbers[density == density[(wavenumbers > low) & (wavenumbers < high)].max()][0]
        assert peaks and np.abs(strongest - expected).min() < 15
        assert all(np.abs(peak - modes).min() < 40 for peak in peaks)
    about = json.loads((tmp_path / "out/spectra.json").read_text())
    assert about["largest drift / meV/atom/ps"] < 0.1 and about["settings"]["temperature"] == 50
    assert -100 < about["relaxed above lowest potential energy / meV"] < 1 and "another conformer" not in printed
    with np.load(tmp_path / "out/recording.npz") as recorded:
        assert recorded["velocities"].shape == (1700, 1, 9, 3) and recorded["time"][-1] == 1700


def test_frequencies_are_those_of_ase(command, tmp_path):
    printed = command(FORCES, "ethanol.xyz", "--harmonic")
    assert "mode  wavenumber / cm^-1" in printed
    relaxed = read_molecule(tmp_path / "spectra/relaxed.xyz")
    free = VibrationsData.from_2d(relaxed, load_once(FORCES).hessian(relaxed)).get_frequencies()[6:].real
    np.testing.assert_allclose(read_csv(tmp_path / "spectra/harmonic.csv")["wavenumber / cm^-1"], free, atol=0.5)


def test_a_symmetric_geometry_does_not_end_on_a_saddle_point():
    """The hydroxyl group in the plane of the carbons, above them: a maximum between two gauche conformers."""
    predictor, atoms = load_once(FORCES), molecule("CH3CH2OH")
    atoms.set_dihedral(0, 1, 2, 3, 0, indices=[3])
    saddle = harmonic.analyse(predictor, harmonic.relax(predictor, atoms))
    assert saddle.wavenumbers[0] < -100
    relaxed, modes = harmonic.find_minimum(predictor, atoms)
    assert modes.wavenumbers[0] > 20 and relaxed.get_dihedral(0, 1, 2, 3) % 180 > 20


def test_mistakes_are_one_line(command, tmp_path):
    molecule("H").write("hydrogen.xyz")
    for arguments, message in (
        ((FORCES, "nothing.xyz"), "no such file: nothing.xyz"),
        ((FORCES, "ethanol.xyz", "--picoseconds", 1), "1 ps are too short for a resolution of 10 cm^-1"),
        ((FORCES, "ethanol.xyz", "--stride", 20), "between records are too many"),
        ((FORCES, "ethanol.xyz", "--timestep", 0), "--timestep 0 must be greater than 0"),
        ((FORCES, "ethanol.xyz", "--trajectories", 0), "--trajectories 0 must be at least 1"),
        ((FORCES, "ethanol.xyz", "--laser", 0), "--laser 0 must be a wavelength"),
        ((FORCES, "hydrogen.xyz"), "a single atom"),
        (("dimenet_pp-sample-U0", "ethanol.xyz"), "has no forces"),
    ):
        said = command(*arguments, code=2)
        assert said.startswith("error: ") and message in said and len(said.splitlines()) == 1
    assert not (tmp_path / "spectra").exists()
