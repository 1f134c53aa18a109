import json
import zipfile

import numpy as np
import pytest

from dimenet_tf.basis.formulas import make_bessel_series, spherical_bessel_zeros
from dimenet_tf.errors import UserError
from dimenet_tf.interop import load_oc20_checkpoint
from dimenet_tf.interop.oc20 import from_checkpoint
from dimenet_tf.layers.geometry import edge_vectors, safe_norm
from helpers.paths import FILES
from helpers.periodic import periodic_reference
from helpers.torch_pickles import plain, tensor, whole

ELEMENTS = [6, 8, 11, 13, 17, 29, 78]
NAMES = ("gemnet_t", "gemnet_t_oc20", "gemnet_dt_oc20", "dimenet_pp_oc20", "painn_oc20", "painn_oc20_direct")


def rounded_zeros(num_spherical, num_radial):
    return spherical_bessel_zeros(num_spherical, num_radial).astype(np.float32).astype(np.float64)


def predict(predictor, reference):
    """Energies, forces and stress of the reference's structures, as the library predicts them."""
    N, Z, R, cell = (reference[f"in/{key}"] for key in ("N", "Z", "R", "cell"))
    prediction = predictor.compute(predictor.graph_store(N, Z, R, cell).batch(range(len(N))))
    return prediction.values[:, 0].numpy(), prediction.forces.numpy(), np.asarray(prediction.stress)


def load(name, dtype="float64", **hyperparameters):
    hyperparameters = {"cutoff": 5.0, "extensive": name not in ("gemnet_t_oc20", "gemnet_dt_oc20"), **hyperparameters}
    return load_oc20_checkpoint(FILES / f"periodic_{name}.npz", ELEMENTS, dtype, **hyperparameters)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-9)])
@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_the_reference(name, dtype, tolerance, monkeypatch):
    # the reference rounds the zeros of the Bessel functions to float32, also in float64
    monkeypatch.setattr("dimenet_tf.basis.spherical.bessel_series", make_bessel_series)
    monkeypatch.setattr("dimenet_tf.basis.formulas.spherical_bessel_zeros", rounded_zeros)
    predictor, reference = load(name, dtype), periodic_reference(name)
    found = dict(zip(("E", "F", "stress"), predict(predictor, reference)))
    direct = predictor.model.direct_forces
    for key in ("E", "F") if direct else ("E", "F", "stress"):
        expected = reference["out64/F_as_released" if direct and key == "F" else f"out64/{key}"]
        assert np.abs(found[key] - expected).max() < tolerance * np.abs(expected).max(), key


@pytest.mark.parametrize("aggregation", ["sum_first", "harmonics", "triplets"])
def test_ways_to_sum(aggregation):
    predictor, reference = load("gemnet_t_oc20", aggregation=aggregation), periodic_reference("gemnet_t_oc20")
    energy = predict(predictor, reference)[0]
    assert np.abs(energy - reference["out64/E"]).max() < 1e-9


@pytest.mark.parametrize("max_neighbors", [5, 10, 20])
@pytest.mark.parametrize("name", ["gemnet_t_oc20", "gemnet_dt_oc20", "painn_oc20", "dimenet_pp_oc20"])
def test_nearest_neighbors_are_those_of_the_reference(name, max_neighbors):
    """In structures where the limit divides no equally long pairs: the reference leaves out some of these, we none."""
    predictor, reference = load(name, max_neighbors=max_neighbors), periodic_reference(name)
    N, Z, R, cell = (reference[f"in/{key}"] for key in ("N", "Z", "R", "cell"))
    graph = predictor.graph_store(N, Z, R, cell).batch(range(len(N))).to_tensors()
    distance = safe_norm(edge_vectors(graph)).numpy()
    of_atoms = [np.sort(distance[graph.edge_target.numpy() == atom]) for atom in range(len(Z))]
    divided = [len(d) > max_neighbors and d[max_neighbors] - d[max_neighbors - 1] < 1e-4 for d in of_atoms]
    molecule = np.repeat(np.arange(len(N)), N)
    same = np.bincount(molecule, divided) == 0
    assert same.sum() >= (4 if max_neighbors == 10 else 1)
    found = dict(zip("EF", predict(predictor, reference)))
    expected = periodic_reference("max_neighbors")
    for quantity in "EF" if name.startswith("gemnet") else "E":  # the others' released forces are no gradient
        theirs = expected[f"{name}/{max_neighbors}/{quantity}"]
        chosen = same if quantity == "E" else same[molecule]
        np.testing.assert_allclose(found[quantity][chosen], theirs[chosen], atol=5e-6 * np.abs(theirs).max())


@pytest.mark.parametrize("name", ["gemnet_dt_oc20", "painn_oc20_direct"])
def test_normalizers(name):
    plain = load(name)
    scaled = load(name, energy_mean=-0.7, energy_std=2.0, forces_std=0.5)
    reference = periodic_reference(name)
    E, F, _ = predict(plain, reference)
    E_scaled, F_scaled, _ = predict(scaled, reference)
    np.testing.assert_allclose(E_scaled, 2.0 * E - 0.7, rtol=1e-12)
    np.testing.assert_allclose(F_scaled, 0.5 * F, rtol=1e-6, atol=1e-9)


def test_prefixes_of_names(tmp_path):
    weights = {key[2:]: array for key, array in periodic_reference("painn_oc20").items() if key.startswith("w/")}
    np.savez(tmp_path / "file.npz", **{f"module.module.{name}": array for name, array in weights.items()})
    assert load_oc20_checkpoint(tmp_path / "file.npz", ELEMENTS, cutoff=5.0).model.emb_size == 16


def test_mistakes_name_the_weight(tmp_path):
    weights = {key[2:]: array for key, array in periodic_reference("dimenet_pp_oc20").items() if key.startswith("w/")}

    def load_changed(**options):
        np.savez(tmp_path / "file.npz", **weights)
        return load_oc20_checkpoint(tmp_path / "file.npz", ELEMENTS, **{"cutoff": 5.0, **options})

    with pytest.raises(UserError, match="num_blocks = 3, but the weights have 2"):
        load_changed(num_blocks=3)
    bias = weights.pop("output_blocks.1.lin_up.bias")
    with pytest.raises(UserError, match="no weight 'output_blocks/1/up_projection/bias'"):
        load_changed()
    weights["output_blocks.1.lin_up.bias"] = bias[:3]
    with pytest.raises(UserError, match=r"'output_blocks/1/up_projection/bias' has shape \(3,\), expected \(16,\)"):
        load_changed()
    weights |= {"output_blocks.1.lin_up.bias": bias, "other": bias}
    with pytest.raises(UserError, match="unexpected weight 'other'"):
        load_changed()
    del weights["interaction_blocks.0.lin_sbf1.weight"]
    with pytest.raises(UserError, match="is this a GemNet-T, DimeNet\\+\\+ or PaiNN"):
        load_changed()


@pytest.mark.parametrize("name", NAMES)
def test_checkpoint_with_configuration_and_normalizers(name):
    reference, unscaled = periodic_reference(name), load(name)
    checkpoint = {
        "state_dict": {f"module.{key[2:]}": array for key, array in reference.items() if key.startswith("w/")},
        "config": {"model_attributes": json.loads((FILES / f"periodic_{name}.json").read_text())["hyperparameters"]},
        "normalizers": {"target": {"mean": np.float32(-0.5), "std": np.float32(2.0)}},
    }
    predictor = from_checkpoint(checkpoint, "file.pt", ELEMENTS, "float64", {}, {})
    own, expected = predictor.model.get_config(), unscaled.model.get_config()
    assert {**own, "name": ""} == {**expected, "name": ""}
    assert (predictor.head["energy"].scale, predictor.head["energy"].offset) == (2.0, -0.5)


def test_settings_that_cannot_be_guessed(tmp_path):
    file = FILES / "periodic_gemnet_t_oc20.npz"
    with pytest.raises(UserError, match="cutoff is not in the file"):
        load_oc20_checkpoint(file, ELEMENTS, extensive=False)
    with pytest.raises(UserError, match="extensive is not in the file"):
        load_oc20_checkpoint(file, ELEMENTS, cutoff=5.0)
    checkpoint = {
        "state_dict": {key[2:]: array for key, array in np.load(file).items() if key.startswith("w/")},
        "config": {"model_attributes": {"cutoff": 5.0, "envelope": {"name": "exponential"}}},
    }
    with pytest.raises(UserError, match="envelope must be polynomial in the model's configuration; got 'exponential'"):
        from_checkpoint(checkpoint, "file.pt", ELEMENTS, "float32", {}, {})


def test_archive_of_torch(tmp_path):
    """A file of `torch.save`, with the names that several wrappers have prefixed."""
    reference = periodic_reference("painn_oc20")
    weights = {f"module.module.{key[2:]}": array for key, array in reference.items() if key.startswith("w/")}
    config = json.loads((FILES / "periodic_painn_oc20.json").read_text())["hyperparameters"]
    state = b"}(" + b"".join(plain(key) + tensor(array) for key, array in weights.items()) + b"u"
    content = plain("state_dict") + state + plain("config") + plain({"model_attributes": config})
    with zipfile.ZipFile(tmp_path / "best.pt", "w") as archive:
        archive.writestr("archive/data.pkl", whole(b"}(" + content + b"u"))
    predictor = load_oc20_checkpoint(tmp_path / "best.pt", ELEMENTS, "float64")
    energy, forces, _ = predict(predictor, reference)
    np.testing.assert_allclose(energy, reference["out64/E"], rtol=1e-9)
    np.testing.assert_allclose(forces, reference["out64/F"], atol=1e-9 * np.abs(reference["out64/F"]).max())
