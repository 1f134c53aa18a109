"""Make a pretrained model of a finished run: `python tools/publish_run.py RUN NAME "one sentence about it"`.

Copies the run's best model, its configuration, split, test errors and learning curve into pretrained/NAME and writes
the model card, with the certificate (RUN/certificate.json) and spectra (RUN/spectra) where there are any.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import yaml

from dimenet_tf.md.certify import fingerprint, format_certificate
from dimenet_tf.predictor import load
from dimenet_tf.predictor.domain import Domain
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.structures.elements import symbols

NEAR_EQUILIBRIUM = "neutral closed-shell molecules near their equilibrium geometries"
LIKE_TRAINING = "geometries like those of its training data"
CARD = """# {name}

{sentence}

| | |
| --- | --- |
| model | {model}, {hyperparameters} |
| predicts | {targets} |
| elements | {elements} |
| domain | {domain} |
| data | {source} (SHA-256 {sha}), {split} molecules, listed in `split.npz` |
| recipe | `config.yaml`: {steps} steps of {batch} molecules, learning rate {rate}, seed {seed} |
| TensorFlow | {tensorflow} |

{errors}

![Learning curve](learning_curve.png)

```python
predictor = dimenet_tf.load("{name}")
predictor.predict({{"Z": Z, "R": R}})  # R in Angstrom
```

Use this model for {scope}. It is a demonstration, not a research model.
"""


def main() -> None:
    run, name, sentence = sys.argv[1:]
    folder, target = RunFolder(run), Path("pretrained") / name
    if not (folder.path / "test.json").exists():
        raise SystemExit(f"{run} is no finished run")
    weights = fingerprint(load(folder.best))
    for file, command in (
        (folder.path / "certificate.json", "certify"),
        (folder.path / "spectra/spectra.json", "spectra"),
    ):
        if file.exists() and json.loads(file.read_text())["weights"] != weights:
            raise SystemExit(f"{file} is of other weights: run dimenet-tf {command} {run} again")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder.best, target)
    copied = [folder.split_file, folder.data_file, folder.path / "test.json", folder.plots / "learning_curve.png"]
    certificate = folder.path / "certificate.json"
    for path in copied + [certificate] * certificate.exists():
        shutil.copy(path, target)
    config = folder.read_config()
    config["run"] = None
    (target / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    data, test = folder.read_data_description(), json.loads((target / "test.json").read_text())
    description = json.loads((target / "predictor.json").read_text())
    model = description["model"]
    shown = "emb_size out_emb_size int_emb_size num_blocks num_spherical num_radial cutoff conventions".split()

    lines = ["| target | test MAE | RMSE | MAE of a per-element fit, of zero forces |", "| --- | --- | --- | --- |"]
    for key, t in test["targets"].items():
        fit = test["mae_of_per_element_fit"][key]
        lines.append(f"| {key} | {t['mae']:.4g} {t['unit']} | {t['rmse']:.4g} {t['unit']} | {fit:.4g} {t['unit']} |")
    training = config["training"]
    forces = "forces" in test["targets"]
    card = CARD.format(
        scope=LIKE_TRAINING if forces else NEAR_EQUILIBRIUM,
        name=name,
        sentence=sentence,
        model=model["name"],
        hyperparameters=", ".join(f"{k} {model[k]}" for k in shown if k in model),
        targets=", ".join(f"{k} in {v['unit']}" for k, v in test["targets"].items()),
        elements=symbols(description["elements"]),
        domain=Domain.from_config(description["domain"]).summary(),
        source=data["source"],
        sha=data["sha256"][:16] + "...",
        split=", ".join(f"{n} {part}" for part, n in data["split"].items()),
        steps=training["num_steps"] or int(folder.read_metrics()[-1]["step"]),
        batch=training["batch_size"],
        rate=training["learning_rate"],
        seed=config["seed"],
        tensorflow=json.loads((folder.path / "versions.json").read_text())["tensorflow"],
        errors="\n".join(lines),
    )
    if certificate.exists():
        content = json.loads(certificate.read_text())
        table = format_certificate(content["measured"])
        card += f"\n## Certificate\n\n`dimenet-tf certify {name}`\n\n```\n{table}\n```\n"
    spectra = folder.path / "spectra"
    if spectra.exists():
        about = json.loads((spectra / "spectra.json").read_text())
        for file in ("spectrum.csv", "spectrum.png", "harmonic.csv", "relaxed.xyz"):
            shutil.copy(spectra / file, target)
        about |= {"model": name, "structure": "relaxed.xyz"}
        (target / "spectra.json").write_text(json.dumps(about, indent=1))
        options = " ".join(f"--{key} {value:g}" for key, value in about["settings"].items())
        card += (
            f"\n## Spectra\n\n`dimenet-tf spectra {name} relaxed.xyz {options}` computed these spectra. "
            f"The largest drift of the energy was {about['largest drift / meV/atom/ps']:.2g} meV/atom/ps.\n\n"
            "![Spectra](spectrum.png)\n"
        )
    (target / "README.md").write_text(card)
    print(target)


if __name__ == "__main__":
    main()
