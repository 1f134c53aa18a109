"""The driver with the real i-PI (extra pimd)."""

import json
import shutil
import socket
import subprocess
import sys
import time
import uuid

import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.calculators.socketio import SocketIOCalculator
from scipy.integrate import trapezoid

from dimenet_tf.commands import main
from dimenet_tf.errors import UserError
from dimenet_tf.md import DimeNetCalculator, ipi, ipi_spectra, spectrum
from helpers.models import painn
from helpers.numerics import read_csv
from helpers.pretrained import FORCES, load_once

needs_ipi = pytest.mark.skipif(shutil.which("i-pi") is None, reason="i-PI (extra pimd) is not installed")
INPUT = """
<simulation verbosity='low'>
  <output prefix='run'>
    <properties filename='out' stride='1'> [step, conserved{{electronvolt}}, potential{{electronvolt}}] </properties>
    <trajectory filename='velocities' stride='1'> v_centroid </trajectory>
    <trajectory filename='positions' stride='{steps}'> positions{{angstrom}} </trajectory>
    <trajectory filename='forces' stride='{steps}'> forces{{ev/ang}} </trajectory>
    {output}
  </output>
  <total_steps> {steps} </total_steps>
  <prng> <seed> 1 </seed> </prng>
  <ffsocket name='model' mode='{mode}' pbc='{pbc}'> <address> {address} </address> <port> {port} </port>
    <latency> 1e-3 </latency> {socket}
  </ffsocket>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='xyz' units='angstrom'> molecule.xyz </file>
      <cell mode='abc' units='angstrom'> [60, 60, 60] </cell>
      <velocities mode='thermal' units='kelvin'> 100 </velocities>
    </initialize>
    <forces> <force forcefield='model'/> </forces>
    <motion mode='dynamics'> <dynamics mode='nve'> <timestep units='femtosecond'> 0.25 </timestep> </dynamics> </motion>
    <ensemble> <temperature units='kelvin'> 100 </temperature> </ensemble>
  </system>
</simulation>
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start i-PI in a folder of its own; returns how to connect. It is gone afterwards."""
    monkeypatch.chdir(tmp_path)
    processes = []

    def begin(atoms, beads, steps, unix=True, output="", socket_options="", pbc=False):
        ase.io.write("molecule.xyz", atoms, format="xyz")
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        name = uuid.uuid4().hex
        mode, address = ("unix", name) if unix else ("inet", "localhost")
        settings = {"beads": beads, "steps": steps, "output": output, "socket": socket_options, "pbc": pbc}
        (tmp_path / "input.xml").write_text(INPUT.format(mode=mode, address=address, port=port, **settings))
        with (tmp_path / "ipi.log").open("w") as log:
            processes.append(subprocess.Popen(["i-pi", "input.xml"], stdout=log, stderr=log))
        connect = ipi.connector("localhost", port, name if unix else None)
        for _ in range(300):
            try:
                connect().close()  # a client that leaves at once; i-PI must bear it, and the driver comes later
                return connect, ["--unix", name] if unix else ["--port", str(port)]
            except UserError:
                time.sleep(0.1)
        raise AssertionError((tmp_path / "ipi.log").read_text())

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


def last_frame(path):
    return ase.io.read(path, index="-1", format="xyz")


@needs_ipi
@pytest.mark.parametrize("unix", [True, False])
def test_path_integrals_of_ethanol(start, tmp_path, unix):
    """Energy is conserved, batches are batches, forces are those of the calculator."""
    beads, steps = 8, 40
    connect, _ = start(molecule("CH3CH2OH"), beads, steps, unix)
    predictor = load_once(FORCES)
    driver = ipi.Driver(predictor, molecule("CH3CH2OH"), connect, beads)
    assert driver.run() == "i-PI ended"
    assert sum(driver.batches) == beads * (steps + 1)
    assert max(driver.batches) == beads and np.mean(driver.batches) > beads / 3  # i-PI does not always ask at once
    assert driver.summary().startswith(f"{beads * (steps + 1)} structures in {len(driver.batches)} batches (mean ")
    _, conserved, potential = np.loadtxt(tmp_path / "run.out").T
    assert np.isfinite(potential).all() and np.ptp(conserved) < 0.01 < np.ptp(potential)
    for bead in range(beads):
        positions, forces = (
            ase.io.read(tmp_path / f"run.{name}_{bead}.xyz", index="-1", format="xyz")
            for name in ("positions", "forces")
        )
        positions.calc = DimeNetCalculator(predictor)
        np.testing.assert_allclose(forces.positions, positions.get_forces(), rtol=0, atol=2e-3)


@needs_ipi
def test_dipoles_and_polarizabilities_come_back_and_give_spectra(start, tmp_path, capsys, monkeypatch):
    outputs = "".join(
        f"<trajectory filename='{name}' stride='1' extra_type='{name}'> extras </trajectory>"
        for name in ("dipole", "polarizability")
    )
    water = molecule("H2O")
    predictor = painn("float32")
    connect, _ = start(water, 3, 250, output=outputs)
    assert ipi.Driver(predictor, water, connect, 3).run() == "i-PI ended"
    found = ipi_spectra.read(tmp_path / "input.xml")
    assert found.velocities.shape == (251, 1, 3, 3) and found.degrees == 6
    assert (found.timestep, found.stride, found.temperature) == (0.25, 1, 100.0)
    beads = [last_frame(tmp_path / f"run.positions_{i}.xyz") for i in range(3)]
    expected = predictor.predict(beads)
    np.testing.assert_allclose(found.dipole[-1, 0], expected["dipole"].mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(found.polarizability[-1, 0], expected["polarizability"].mean(axis=0), atol=1e-3)
    with pytest.raises(SystemExit, match="^0$"):
        main(["ipi-spectra", "input.xml", "--resolution", "800"])
    assert "spectrum.csv" in capsys.readouterr().out
    table = read_csv(tmp_path / "spectra/spectrum.csv")
    assert {spectrum.VDOS, spectrum.INFRARED, spectrum.PARALLEL} < set(table)
    assert 0 < trapezoid(table[spectrum.VDOS], table[spectrum.WAVENUMBER]) < 6.01
    assert json.loads((tmp_path / "spectra/spectra.json").read_text())["interval / fs"] == 0.25
    file = tmp_path / "run.dipole_1"
    (tmp_path / "run.dipole_00").write_text("of a run with other beads")
    assert len(ipi_spectra.read(tmp_path / "input.xml").dipole) == 251
    whole = file.read_text()
    file.write_text(whole + "".join(whole.splitlines(keepends=True)[-2:]))
    with pytest.raises(UserError, match="run.dipole_1: after step 250 comes 250 instead of 251"):
        ipi_spectra.read(tmp_path / "input.xml")
    file.unlink()
    with pytest.raises(UserError, match=r"no such file: .*run.dipole_1 \(1 of 3 beads"):
        ipi_spectra.read(tmp_path / "input.xml")


@needs_ipi
def test_what_is_refused(start):
    ethanol, predictor = molecule("CH3CH2OH"), painn("float32")
    connect, _ = start(ethanol, 2, 5, socket_options="<batch_size> 2 </batch_size>")
    with pytest.raises(UserError, match="input.xml sets batch_size"):
        ipi.Driver(predictor, ethanol, connect, 2).run()
    torn = ethanol.copy()
    torn.positions += 30 - torn.positions.mean(axis=0)  # i-PI folds to -30 ... 30
    connect, _ = start(torn, 1, 5, pbc=True)
    with pytest.raises(UserError, match="reaches over half of i-PI's cell"):
        ipi.Driver(predictor, torn, connect, 1).run()
    connect, _ = start(ethanol, 1, 5)
    with pytest.raises(UserError, match="i-PI sent 9 atoms, the structure has 3"):
        ipi.Driver(predictor, molecule("H2O"), connect, 1).run()


def test_the_protocol_with_ase_as_server_and_a_server_that_goes(tmp_path, monkeypatch):
    """The command line: ASE asks for forces, and then is gone."""
    monkeypatch.chdir(tmp_path)
    painn("float32").to_folder("model")
    ethanol = molecule("CH3CH2OH")
    ethanol.cell = [50, 50, 50]
    ethanol.write("ethanol.xyz", format="xyz")
    name = uuid.uuid4().hex
    command = [sys.executable, "-m", "dimenet_tf", "ipi", "model", "ethanol.xyz", "--unix", name]
    expected = painn("float32").predict([molecule("CH3CH2OH")])
    with SocketIOCalculator(unixsocket=name) as calculator:
        driver = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            ethanol.calc, ethanol.pbc = calculator, True  # else ASE passes no virial on
            np.testing.assert_allclose(ethanol.get_forces(), expected["forces"][0], rtol=0, atol=1e-4)
            assert ethanol.get_potential_energy() == pytest.approx(expected["energy"][0], abs=1e-5)
            virial = ethanol.positions.T @ expected["forces"][0]
            np.testing.assert_allclose(ethanol.get_stress(voigt=False), -virial / ethanol.get_volume(), atol=1e-6)
            ethanol.rattle(0.1)
            assert np.isfinite(ethanol.get_forces()).all()
            calculator.server.clientsocket.close()  # without EXIT
            out, err = driver.communicate(timeout=60)
        finally:
            driver.kill()
    assert driver.returncode == 0, err
    assert out == "i-PI has gone: 2 structures in 2 batches (mean 1.0, largest 1)\n"
    for wrong, message in (
        ([], f"no i-PI at /tmp/ipi_{name}"),
        (["--beads", "0"], "--beads 0 must be at least 1"),
    ):
        refused = subprocess.run([*command, *wrong], text=True, capture_output=True)
        assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
        assert refused.stderr.startswith("error: ") and message in refused.stderr


def test_extras_are_in_atomic_units():
    predicted = {"dipole": np.array([[units.Bohr, 0, 0]]), "polarizability": np.eye(3)[None]}
    assert json.loads(ipi.extras(predicted, 0)) == {"dipole": [1.0, 0.0, 0.0], "polarizability": np.eye(3).tolist()}
    assert ipi.extras({"energy": np.zeros(1)}, 0) == ""


def test_what_input_xml_must_have(tmp_path):
    path = tmp_path / "input.xml"
    for text, message in (
        ("<simulation>", "cannot be read as i-PI's input"),
        ("<simulation/>", "<timestep> must be there, in one of the units femtosecond"),
        (
            "<simulation><timestep units='femtosecond'> 1 </timestep>"
            "<ensemble><temperature units='kelvin'> 3 </temperature></ensemble></simulation>",
            "has no centroids' velocities written",
        ),
        ("<simulation><timestep units='femtosecond'> one </timestep></simulation>", "must be a number greater than 0"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            ipi_spectra.read(path)
