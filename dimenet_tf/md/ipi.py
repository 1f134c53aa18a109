"""A model as driver of i-PI: path-integral and ring-polymer molecular dynamics, all beads in one batch.

i-pi input.xml &                                                  # pip install ipi; it listens on a socket
dimenet-tf ipi MODEL structure.xyz --beads 16                     # --port as in input.xml, or --unix NAME

i-PI sends one structure to each client: with --beads N the driver connects N times, evaluates what has arrived on all
connections as one batch and answers each. structure.xyz specifies the elements of the atoms in i-PI's order. The models
know molecules: the cell that i-PI sends has no meaning, and a molecule must not be wrapped into it. Dipole (e*a0) and
polarizability (a0^3), where the model has them, go back as i-PI's extras, "dipole" and "polarizability".
"""

from __future__ import annotations

if __name__ == "__main__":
    raise SystemExit("error: python -m dimenet_tf.md.ipi is no longer a command; use: dimenet-tf ipi")

import contextlib
import json
import selectors
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.socketio import IPIProtocol, SocketClosed, actualunixsocketname

from dimenet_tf.errors import UserError
from dimenet_tf.predictor import Predictor, load
from dimenet_tf.predictor.watch import DomainWatch
from dimenet_tf.structures.inputs import read_molecule

GATHER = 0.005  # s without another structure until a batch that is not full is computed


class Connection:
    """One of the driver's clients, as i-PI sees it: asks for positions, has data, is asked for forces."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.protocol = IPIProtocol(connected)
        self.greeted = False  # i-PI has accepted it
        self.initialised = False
        self.positions: np.ndarray | None = None  # (atoms, 3), Angstrom
        self.asked = False  # for forces of these

    def handle(self, num_atoms: int) -> bool:
        """Read and execute one message. Returns False after the last one."""
        message = self.protocol.recvmsg()
        self.greeted = True
        if message == "STATUS":
            ready = "READY" if self.positions is None else "HAVEDATA"
            self.protocol.sendmsg(ready if self.initialised else "NEEDINIT")
        elif message == "INIT":
            _, text = self.protocol.recvinit()
            if b"batch_size" in text.tobytes():
                raise UserError(
                    "input.xml sets batch_size, a protocol of i-PI that is not spoken here: remove it, "
                    "--beads N makes batches of N without it"
                )
            self.initialised = True
        elif message == "POSDATA":
            try:
                _, inverse, positions = self.protocol.recvposdata()
            except AssertionError:  # ASE's
                raise UserError("i-PI sent positions that are not finite: the simulation has flown apart") from None
            if len(positions) != num_atoms:
                raise UserError(f"i-PI sent {len(positions)} atoms, the structure has {num_atoms}")
            if np.ptp(positions @ inverse, axis=0).max() > 0.5:
                raise UserError(
                    "the molecule reaches over half of i-PI's cell, so it may have been wrapped into it: "
                    "choose a far larger cell, it has no other meaning here, and no pbc in the force field"
                )
            self.positions = positions
        elif message == "GETFORCE":
            self.asked = True
        elif message == "EXIT":
            return False
        else:
            raise UserError(f"what listens there is not i-PI: it sent '{message}'")
        return True

    def answer(self, energy: float, forces: np.ndarray, extras: str) -> None:
        """Send eV, eV/Angstrom and extras, which i-PI passes on as they are."""
        assert self.positions is not None  # it was asked for their forces
        virial = self.positions.T @ forces  # how the energy falls when everything is stretched
        self.protocol.sendforce(energy, forces, virial, np.frombuffer(extras.encode() or b" ", np.byte))
        self.positions, self.asked = None, False


class Driver:
    """Answers i-PI until it ends.

    Parameters
    ----------
    predictor : with forces
    atoms : the molecule; its elements in i-PI's order
    connect : makes a connected socket
    beads : how many connections
    domain : "flag" to warn once of each reason why a structure lies outside of the model's domain, "error" to end
    """

    def __init__(
        self, predictor: Predictor, atoms: Atoms, connect: Callable[[], socket.socket], beads: int, domain: str = "flag"
    ) -> None:
        self.watch = DomainWatch(predictor.domain, predictor.model.cutoff, domain)
        self.predictor, self.atoms, self.connect, self.beads = predictor, atoms, connect, beads
        self.batches: list[int] = []
        """Sizes of the batches that were computed."""

    def run(self) -> str:
        """Return why it ended.

        Raises
        ------
        UserError
            If nobody listens, or for molecules that cannot be predicted.
        """
        self._open: list[Connection] = []
        self._reason, made = "i-PI has gone", 1
        with selectors.DefaultSelector() as self._selector:
            try:
                self._add()
                while self._open:
                    # i-PI greets one client before it takes the next, and meanwhile the others must be answered
                    if made < self.beads and self._open[-1].greeted:
                        made += 1
                        with contextlib.suppress(UserError):  # it has ended in between, as the others will see
                            self._add()
                    self._serve()
            finally:
                for connection in list(self._open):
                    self._close(connection)
        return self._reason

    def _add(self) -> None:
        connection = Connection(self.connect())
        self._open.append(connection)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def _close(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()
        self._open.remove(connection)

    def _serve(self) -> None:
        """Handle a message on every connection that has one; where nothing more comes, compute what was asked for."""
        waiting = [connection for connection in self._open if connection.asked]
        patience = None if not waiting else 0 if len(waiting) == len(self._open) else GATHER
        ready = self._selector.select(patience)
        try:
            if waiting and not ready:
                self._compute(waiting)
            for key, _ in ready:
                if not key.data.handle(len(self.atoms)):
                    self._reason = "i-PI ended"
                    self._close(key.data)
        except (SocketClosed, ConnectionError):
            for connection in [c for c in self._open if _is_closed(c.socket)]:
                self._close(connection)

    def _compute(self, waiting: list[Connection]) -> None:
        energy = self.predictor.energy
        assert energy is not None  # it has forces
        R = np.array([connection.positions for connection in waiting])
        Z = np.tile(self.atoms.numbers, (len(waiting), 1))
        predicted = self.predictor.predict({"Z": Z, "R": R}, batch_size=len(waiting), length_unit="Ang")
        sizes = np.full(len(waiting), Z.shape[1])
        self.watch.look(predicted.get("in_domain"), sizes, Z.ravel(), R.reshape(-1, 3))
        self.batches.append(len(waiting))
        for i, connection in enumerate(waiting):
            forces = predicted["forces"][i].astype(np.float64)
            connection.answer(predicted[energy][i], forces, extras(predicted, i))

    def summary(self) -> str:
        """Return how much was computed."""
        if not self.batches:
            return "no structures"
        return (
            f"{sum(self.batches)} structures in {len(self.batches)} batches "
            f"(mean {np.mean(self.batches):.1f}, largest {max(self.batches)})"
        )


def extras(predicted: dict[str, np.ndarray], i: int) -> str:
    """Return dipole and polarizability of a molecule as JSON, in atomic units; nothing for a model without."""
    scale = {"dipole": 1 / units.Bohr, "polarizability": 1.0}
    found = {name: (predicted[name][i] * scale[name]).tolist() for name in scale if name in predicted}
    return json.dumps(found) if found else ""


def _is_closed(connected: socket.socket) -> bool:
    """Whether the other side has closed a connection; nothing is read."""
    try:
        connected.setblocking(False)
        return connected.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connected.setblocking(True)


def connector(address: str, port: int, unix: str | None) -> Callable[[], socket.socket]:
    """Return a function that connects to i-PI, or raises a UserError."""

    def connect() -> socket.socket:
        if unix is None:
            where = f"{address}:{port}"
            family, target = socket.AF_INET, (address, port)
        else:
            where = actualunixsocketname(unix)
            family, target = socket.AF_UNIX, where
        connected = socket.socket(family, socket.SOCK_STREAM)
        try:
            connected.connect(target)
        except OSError as error:
            connected.close()
            raise UserError(f"no i-PI at {where} ({error}): start it first, i-pi input.xml") from None
        if unix is None:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # messages are small and waited for
        return connected

    return connect


def drive(
    model: str | Path, structure: str | Path, connect: Callable[[], socket.socket], beads: int = 1, domain: str = "flag"
) -> str:
    """Answer i-PI until it ends.

    Parameters
    ----------
    model : as `dimenet_tf.load`, with forces
    structure : file with the molecule; its elements in i-PI's order
    connect, beads, domain : as in `Driver`

    Returns
    -------
    str
        why it ended and how much was computed
    """
    if beads < 1:
        raise UserError(f"--beads {beads} must be at least 1")
    predictor, atoms = load(model), read_molecule(structure)
    if predictor.energy is None:
        raise UserError(f"{model} has no forces: dynamics needs a model that was trained with them")
    if predictor.model.discontinuity:
        print(f"WARNING: {predictor.model.discontinuity}", flush=True)
    # the molecule is checked now, and i-PI does not wait for a trace
    predictor.predict([atoms] * beads, batch_size=beads, domain=domain)
    driver = Driver(predictor, atoms, connect, beads, domain)
    reason = driver.run()
    return f"{reason}: {driver.summary()}"
