"""QM9's raw format, on archives made here: no network."""

import hashlib
import http.server
import io
import tarfile
import threading
from typing import ClassVar

import numpy as np
import pytest

from dimenet_tf.data import DataConfig, load_dataset, qm9, read_file
from dimenet_tf.errors import UserError

METHANE = """5
gdb 1	157.7118	157.70997	157.70699	0.	13.21	-0.3877	0.1171	0.5048	35.3641	\
0.044749	-40.47893	-40.476062	-40.475117	-40.498597	6.469
C	-0.0126981359	 1.0858041578	 0.0080009958	-0.535689
H	 0.002150416	-0.0060313176	 0.0019761204	 0.133921
H	 1.0117308433	 1.4637511618	 2.7657*^-4	 0.133922
H	-0.540815069	 1.4475266138	-0.8766437152	 0.133923
H	-0.5238136345	 1.4379326443	 0.9063972942	 0.133923
1341.307	1341.3284	1341.365	1562.6731	1562.7453	3038.3205	3151.6034	3151.6788	3151.7078
C	C
InChI=1S/CH4/h1H4	InChI=1S/CH4/h1H4
"""


def xyz(number: int) -> str:
    return METHANE.replace("gdb 1\t", f"gdb {number}\t").replace("0.\t13.21", f"{number}.5*^-1\t13.21")


def archive(path, count=9, name="dsgdb9nsd_{:06d}.xyz", mode="w:bz2"):
    with tarfile.open(path, mode) as tar:
        for number in range(count, 0, -1):  # not in order
            text = xyz(number).encode()
            info = tarfile.TarInfo(name.format(number))
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    return path


def uncharacterized(path, numbers):
    lines = [f"{n:>9}  CC  CC  x  y" for n in numbers]
    header = "3054 molecules that failed the consistency check\n" * 9
    path.write_text(header + "\n".join(lines) + "\n3054 compounds\n")
    return path


def test_units_references_and_exponents(tmp_path):
    data = qm9.parse_archive(archive(tmp_path / "raw.tar.bz2"))
    assert data.id.tolist() == list(range(1, 10)) and data.N.tolist() == [5] * 9
    assert data.Z[:5].tolist() == [6, 1, 1, 1, 1]
    assert data.R[2, 2] == pytest.approx(2.7657e-4)
    np.testing.assert_allclose(data.target("mu"), [0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95])
    assert data.target("homo")[0] == pytest.approx(-0.3877 * 27.211386246)
    assert data.target("r2")[0] == 35.3641 and data.target("Cv")[0] == 6.469 and data.target("alpha")[0] == 13.21
    atoms = -37.846772 + 4 * -0.500273
    assert data.target("U0")[0] == pytest.approx((-40.47893 - atoms) * 27.211386246)
    # the atomization energy of methane that chemists know, about 17 eV
    assert -17.5 < data.target("U0")[0] < -17.0
    assert data.target("G")[0] == pytest.approx((-40.498597 + 37.861317 + 4 * 0.510927) * 27.211386246)


def test_correct_and_release_filter(tmp_path):
    data = qm9.parse_archive(archive(tmp_path / "raw.tar.bz2"))
    listed = qm9.read_uncharacterized(uncharacterized(tmp_path / "u.txt", [3, 5, 8]))
    assert listed.tolist() == [3, 5, 8]
    assert data.id[qm9.dropped_rows(data.id, listed, "correct")].tolist() == [3, 5, 8]
    # the release dropped the molecules that follow
    assert data.id[qm9.dropped_rows(data.id, listed, "release")].tolist() == [4, 6, 9]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder that holds small raw files, and a library that expects their sizes."""
    archive(tmp_path / qm9.ARCHIVE)
    uncharacterized(tmp_path / qm9.UNCHARACTERIZED, [3, 5, 8])
    monkeypatch.setattr(qm9, "MOLECULES", 9)
    monkeypatch.setattr(qm9, "NUM_UNCHARACTERIZED", 3)
    return tmp_path


def test_the_whole_way_from_raw_files_to_a_dataset(cache):
    config = DataConfig(name="qm9", cache=str(cache), target="mu,gap", num_train=4, num_valid=1)
    dataset = load_dataset(config)
    assert dataset.container.id.tolist() == [1, 2, 4, 6, 7, 9]
    order = np.random.RandomState(seed=42).permutation(6)
    assert np.concatenate(dataset.split).tolist() == order.tolist()
    (cache / qm9.ARCHIVE).unlink()  # parsed once, it is not needed any more
    assert load_dataset(config).container.checksum() == dataset.container.checksum()
    assert sorted(p.name for p in cache.iterdir()) == ["checksums.json", "qm9_correct.npz", qm9.UNCHARACTERIZED]
    with pytest.raises(UserError, match="data.filter must be one of correct, release; got 'wrong'"):
        qm9.qm9("wrong", cache)


def test_another_file_than_before_is_refused(cache):
    qm9.qm9("correct", cache)
    archive(cache / qm9.ARCHIVE, count=8)
    with pytest.raises(UserError, match="is not the file that was used before"):
        qm9.qm9("release", cache)
    assert not (cache / "qm9_release.npz").exists()
    pinned = hashlib.sha256((cache / qm9.UNCHARACTERIZED).read_bytes()).hexdigest()
    assert pinned in (cache / "checksums.json").read_text()


def test_without_a_network_the_place_of_the_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(qm9, "MIRRORS", ("http://127.0.0.1:9/{}", "http://127.0.0.1:9/again/{}"))
    with pytest.raises(UserError, match="put the file at .*uncharacterized.txt by hand") as error:
        qm9.qm9("correct", tmp_path)
    assert "\n" not in str(error.value) and not list(tmp_path.glob("*.npz"))


class Interrupting(http.server.BaseHTTPRequestHandler):
    """Serves a file with ranges; the first connection breaks in the middle."""

    content = bytes(range(256)) * 2000
    requested: ClassVar[list] = []

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        rest = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        self.end_headers()
        self.requested.append(start)
        self.wfile.write(rest if len(self.requested) > 1 else rest[:200_000])

    def log_message(self, *args):
        pass


def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path, monkeypatch):
    with http.server.HTTPServer(("127.0.0.1", 0), Interrupting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(qm9, "MIRRORS", (f"http://127.0.0.1:{server.server_port}/{{}}",))
        with pytest.raises(UserError, match="try again, which resumes where it stopped"):
            qm9.fetch(qm9.ARCHIVE, tmp_path)
        assert not (tmp_path / qm9.ARCHIVE).exists()
        left = (tmp_path / f"{qm9.ARCHIVE}.part").stat().st_size
        path = qm9.fetch(qm9.ARCHIVE, tmp_path)
        server.shutdown()
    assert path.read_bytes() == Interrupting.content
    assert 0 < left < len(Interrupting.content) and Interrupting.requested == [0, left]
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".lock"] == [qm9.ARCHIVE]


def test_truncated_archive(cache):
    path = cache / qm9.ARCHIVE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="damaged or truncated"):
        qm9.qm9("correct", cache)
    assert not list(cache.glob("*.npz"))


def test_too_few_molecules(cache, monkeypatch):
    monkeypatch.setattr(qm9, "MOLECULES", 10)
    with pytest.raises(UserError, match="holds 9 molecules, expected 10"):
        qm9.qm9("correct", cache)


@pytest.mark.parametrize("name", ["../dsgdb9nsd_{:06d}.xyz", "other_{:06d}.xyz", "dsgdb9nsd_{}.xyz"])
def test_unexpected_members(tmp_path, name):
    with pytest.raises(UserError, match="unexpected member"):
        qm9.parse_archive(archive(tmp_path / "raw.tar.bz2", name=name))


@pytest.mark.parametrize("text", ["", "5\ngdb 1 1 2 3\n", METHANE.replace("gdb", "gdp"), METHANE[:300], "x" + METHANE])
def test_broken_xyz(text):
    with pytest.raises(UserError, match="here: "):
        qm9.parse_xyz(text, "here")


def test_the_releases_own_file(tmp_path):
    """qm9_eV.npz of the DimeNet release: its keys, through data.path."""
    data = qm9.parse_archive(archive(tmp_path / "raw.tar.bz2"))
    np.savez(tmp_path / "qm9_eV.npz", id=data.id, N=data.N, Z=data.Z, R=data.R, **data.targets)
    again = read_file(tmp_path / "qm9_eV.npz")
    assert again.checksum() == data.checksum()
